"""Register `twistd tftp` as a plugin of Twisted."""

from twisted.application.service import ServiceMaker

tftp = ServiceMaker("tftpd", "tftpd.daemon.service", "A TFTP server.", "tftp")
