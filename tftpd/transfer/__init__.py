"""Floor 1: the rules of a transfer. Packets and times in, packets and a deadline out."""
