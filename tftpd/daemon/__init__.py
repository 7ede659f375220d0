"""The service that twistd runs, its worker processes, and the `tftpd` command."""
