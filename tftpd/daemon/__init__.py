"""Floor 4: the twistd plugin's service and the `tftpd` command."""
