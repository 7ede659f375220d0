"""Addresses that are served no more, and which workers still have transfers there."""

from collections.abc import Callable, Iterable

from tftpd.net.types import SocketAddress


class Leaving:
    """Tells `vacated` of each address that the last worker has left."""

    def __init__(self, vacated: Callable[[SocketAddress], None]) -> None:
        self._vacated = vacated
        self._served: set[SocketAddress] = set()
        self._there: dict[SocketAddress, set[int]] = {}

    def serve(self, addresses: Iterable[SocketAddress], workers: Iterable[int]) -> None:
        """These are served from now on; `workers` have to leave the others."""
        before, self._served = self._served, set(addresses)
        for address in self._served:
            self._there.pop(address, None)
        there = set(workers)
        for address in before - self._served:
            self._there[address] = set(there)
            self._check(address)

    def left(self, worker: int, address: SocketAddress) -> None:
        """`worker` has no transfer on the socket of `address` any more."""
        if address in self._there:
            self._there[address].discard(worker)
            self._check(address)

    def died(self, worker: int) -> None:
        """`worker` is nowhere any more."""
        for address in list(self._there):
            self.left(worker, address)

    def _check(self, address: SocketAddress) -> None:
        if not self._there[address]:
            del self._there[address]
            self._vacated(address)
