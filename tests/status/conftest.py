"""Fixtures of a server in memory."""

from tests.server.conftest import offer, root

__all__ = ["offer", "root"]
