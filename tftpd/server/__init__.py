"""The TFTP server: listen, queue, admit, resolve and start sessions."""
