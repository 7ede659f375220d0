"""Floor 3: Twisted datagrams. The listener, and a session for each transfer."""
