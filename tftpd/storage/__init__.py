"""Files below a root directory: resolve, read and write.

Layer 2. A function that may block for long says so in its docstring.
"""
