"""Fixtures of the server in memory."""

from tests.server.conftest import offer, root, server

__all__ = ["offer", "root", "server"]
