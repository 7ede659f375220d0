"""Measures the daemon beside other TFTP servers: `python -m bench --help`."""
