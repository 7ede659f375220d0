"""Access control: which client may read or write which name. Pure values, no file system.

Layer 1.
"""
