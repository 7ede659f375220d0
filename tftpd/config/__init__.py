"""Floor 2: YAML to Settings, every problem with its line. No Twisted."""
