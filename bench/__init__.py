"""Measurements of the server and the client: `python -m bench --help`."""
