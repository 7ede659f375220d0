"""YAML to Settings. Every problem has its line number.

Layer 2. No Twisted.
"""
