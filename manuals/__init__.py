"""Manual pages and shell completions, built from what the program itself knows."""
