from tftpd.dataplane.reference import DataPlane as DataPlane
