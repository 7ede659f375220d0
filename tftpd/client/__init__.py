"""Floor 4, beside `daemon`: files read from and written to other servers."""
