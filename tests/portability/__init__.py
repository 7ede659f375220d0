"""Tests of macOS, the BSDs and Windows: their differences from Linux are emulated."""
