"""The `tftpd explain` command: the decision about a request, step by step."""
