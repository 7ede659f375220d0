"""Floor 1: who may touch which name. Pure values: no file system is asked."""
