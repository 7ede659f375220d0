"""Floors 0 and 1: packets, options and the state machines of a transfer. No I/O."""
