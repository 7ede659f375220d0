"""Fuzzing: random and mutated input for each part that reads bytes from outside."""
