"""Floor 0: octets to values and back. Standard library only, no I/O."""
