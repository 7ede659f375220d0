"""What a server does with reads, and why a boot may fail."""
