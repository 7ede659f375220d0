"""Floor 2: files beneath a root. What may block for long says so."""
