"""The `tftpd explain` command: why a client gets the answer that it gets."""
