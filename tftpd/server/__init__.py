"""Floor 4: the server. Listens, queues, admits, resolves and starts sessions."""
