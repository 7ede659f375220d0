"""Jinja templates, rendered in separate processes.

Layer 2. Only the render processes import jinja2.
"""
