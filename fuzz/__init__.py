"""Octets that nobody would send: what each part of tftpd makes of them."""
