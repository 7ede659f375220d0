"""A server in memory, as the tests of `net` have it."""

from tests.server.conftest import offer, root

__all__ = ["offer", "root"]
