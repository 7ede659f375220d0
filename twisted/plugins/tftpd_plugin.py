"""Makes `twistd tftp` known to Twisted."""

from twisted.application.service import ServiceMaker

tftp = ServiceMaker("tftpd", "tftpd.daemon.service", "A TFTP server.", "tftp")
