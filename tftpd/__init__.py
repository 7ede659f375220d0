"""TFTP server and client on Twisted.

Each package imports only packages above it in this list:

    protocol   packets, options, state machines; no I/O
    access     who may read or write which name
    storage    files below a root directory
    templates  Jinja templates in separate processes
    config     YAML to Settings
    net        UDP sockets, ports and sessions
    server     listen, queue, admit, resolve, start sessions
    status     status page, JSON, metrics
    daemon     the twistd plugin and the command `tftpd`
    client     the library and the command `tftpc`; uses protocol, access, storage and net
"""

__version__ = "0.1.0"
