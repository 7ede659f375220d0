"""The server in memory, also for the limits of its sessions."""

from tests.server.conftest import offer, root, server

__all__ = ["offer", "root", "server"]
