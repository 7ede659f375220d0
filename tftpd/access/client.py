"""Who asks: a client, and what is known of it besides its request."""

from collections.abc import Callable

from tftpd.access.policy import Address

MacAddress = bytes
"""The six octets of a network card's address."""

Neighbour = Callable[[], MacAddress | None]
"""Tells the MAC address of the client; None where it is not on a network of ours."""


class Client:
    """A client by its address, and the address of ours that it asked, as text.

    Its MAC address is asked for where it first matters, and once: `neighbour`
    is the kernel's word on it.
    """

    __slots__ = ("_known", "_mac", "_neighbour", "address", "server")

    def __init__(
        self,
        address: Address,
        neighbour: Neighbour = lambda: None,
        server: str = "",
    ) -> None:
        self.address = address
        self.server = server
        self._neighbour = neighbour
        self._mac: MacAddress | None = None
        self._known = False

    @property
    def mac(self) -> MacAddress | None:
        """MAC address; None if unknown. The first use queries it."""
        return self._mac if self._known else self.query_mac()

    def query_mac(self) -> MacAddress | None:
        """Query the MAC address now, in this thread, and keep it."""
        if not self._known:
            self._mac, self._known = self._neighbour(), True
        return self._mac
