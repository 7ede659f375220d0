"""A TFTP server on Twisted.

The folders are floors, and imports point down only:

    wire      octets <-> values                          (standard library)
    transfer  the rules of a transfer, without I/O       (wire)
    access    who may touch which name                   (wire)
    storage   files beneath a root                       (wire, access)
    config    YAML -> Settings                           (wire, transfer, access)
    net       Twisted datagrams: listener and sessions   (all above but config)
    daemon    the twistd plugin and the `tftpd` command  (all above)
"""

__version__ = "0.1.0"
