"""A TFTP client: its address and, on local networks, its MAC address."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tftpd.access.policy import Address, Networks, admits

MacAddress = bytes
"""MAC address, 6 bytes."""

Neighbour = Callable[[], MacAddress | None]
"""Looks up the MAC address of a client. Returns None if the client is not on a local network."""


# 52-54-00-12-34-56, also after 01- (the type of Ethernet, as PXELINUX and GRUB write it); and
# 525400123456 after MAC- or SEP, or as the beginning of a component. A UUID has no address.
_MAC_IN_NAME = re.compile(
    rb"(?<![0-9a-z:-])(?:[a-z.]{1,16}-)??(?:01[:-])?"
    rb"((?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2})(?![0-9a-z:-])"
    rb"|(?:^|[/\\\\]|mac-|sep)([0-9a-f]{12})(?![0-9a-z:-])",
    re.IGNORECASE,
)


def find_mac(name: bytes) -> MacAddress | None:
    """Return the MAC address in a name, such as `pxelinux.cfg/01-52-54-00-12-34-56`."""
    match = _MAC_IN_NAME.search(name)
    if match is None:
        return None
    return bytes.fromhex(re.sub(rb"[:-]", b"", match[1] or match[2]).decode())


@dataclass(eq=False)
class ClientIdentity:
    """A client, identified by its address.

    Attributes:
        address: Address of the client; IPv4-mapped IPv6 addresses are folded to IPv4.
        neighbour: Looks up the MAC address in the kernel's neighbour table.
        server: Local address to which the client sent its request, as text.
    """

    address: Address
    neighbour: Neighbour = lambda: None
    server: str = ""

    @cached_property
    def mac(self) -> MacAddress | None:
        """MAC address; None if unknown. The first use queries it."""
        return self.neighbour()

    def query_mac(self) -> MacAddress | None:
        """Query the MAC address now, in this thread, and keep it."""
        return self.mac

    def matches(self, networks: Networks | None, macs: Sequence[bytes] | None) -> bool:
        """Return True if the client meets all conditions that are not None.

        The MAC address is looked up only if the networks contain the client.

        Args:
            networks: Networks of the client.
            macs: MAC addresses or their first bytes.
        """
        if networks is not None and not admits(networks, self.address):
            return False
        return macs is None or (self.mac is not None and self.mac.startswith(tuple(macs)))
