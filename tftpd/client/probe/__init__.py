"""Tests of a TFTP server: which options it grants, and why a boot may fail."""
