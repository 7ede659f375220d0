"""Client: whatever a server sends, the transfer ends with a complete file or an exception.

The data of each server port shows its sender, so that a file mixed from two senders is found.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.client.in_memory import TransferProtocol
from tests.fuzz.choices import Choices
from tests.fuzz.harness import no_hidden_faults, scratch_directory
from tests.fuzz.network import ObservedNetwork
from tests.fuzz.peers import Peer, SentBlocks
from tests.fuzz.server_files import SERVER_ADDRESS
from tests.support.fakes import SERVER, let_pass
from tftpd.client.settings import ClientSettings
from tftpd.client.transfer import ClientTransfer, get, put
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import TransferError
from tftpd.protocol.negotiation import Mode
from tftpd.protocol.packets import ErrorPacket, decode

_OTHER_HOST: SocketAddress = ("192.0.2.66", 3000)
_PORTS: tuple[SocketAddress, ...] = ((SERVER, 3000), (SERVER, 3001), _OTHER_HOST)
_WAITS = (0.0, 0.06, 0.3, 1.0, 3.1, 9.0, 31.0)
_MAX_SECONDS = 2000.0  # of a transfer
_SIZES = (512, 16, 8)
_CONTENT = bytes(range(256)) * 3


def check(data: bytes) -> None:
    """Act as the server, then wait until the transfer has ended."""
    choices = Choices(data)
    with no_hidden_faults():
        transfer = _Transfer(choices)
        while choices:
            transfer.step()
        transfer.end()


class _Transfer:
    """One transfer of the client with a hostile server."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.network = ObservedNetwork(self._on_sent)
        self.directory = scratch_directory() / "client"
        self.directory.mkdir(exist_ok=True)
        self.results: list[Any] = []
        self.error_source: SocketAddress | None = None
        self.is_download = choices.flag()
        mode, blksize = choices.one((Mode.OCTET, Mode.NETASCII)), choices.one(_SIZES)
        windowsize, timeout = choices.one((1, 2, 4)), choices.one((None, 1))
        rollover = choices.one((None, 0, 1))
        max_size = choices.one((None, 600)) if self.is_download else None
        settings = ClientSettings(mode, blksize, windowsize, timeout, rollover, max_size=max_size)
        self.peers = {
            port: Peer(port, SentBlocks(number, blksize)) for number, port in enumerate(_PORTS)
        }
        prepare: Callable[[], ClientTransfer[Any]]
        if self.is_download:
            path = self.directory / "file"
            prepare = partial(get, SERVER, "f", path, settings=settings)
        else:
            content = _CONTENT[: choices.number(len(_CONTENT))]
            prepare = partial(put, SERVER, "f", content, settings=settings)
        self.deferred: Deferred[Any] = TransferProtocol(self.network.runtime, prepare).result
        self.deferred.addBoth(self.results.append)

    def step(self) -> None:
        """Send a datagram, let time pass, hold threads, or cancel."""
        choices = self.choices
        match choices.number(11):
            case 9:
                let_pass(self.network.clock, choices.one(_WAITS))
            case 10:
                self.network.hold_threads = choices.flag()
                self.network.run_threads()
            case 11:
                if choices.number(7) == 7:
                    self.deferred.cancel()
            case _:
                source = choices.one((*_PORTS[:1] * 5, *_PORTS))
                datagram = self.peers[source].choose_reply(choices)
                self.error_source = source if datagram[:2] == b"\0\5" else None
                for port in list(self.network.ports):
                    self.network.deliver(datagram, source, port)
                self.error_source = None
        let_pass(self.network.clock, 0.0)

    def end(self) -> None:
        """Wait for the result, and check that nothing is left but the file of a download."""
        self.network.hold_threads = False
        self.network.run_threads()
        let_pass(self.network.clock, _MAX_SECONDS)
        assert self.results, "the transfer never ends"
        (result,) = self.results
        failed = isinstance(result, Failure)
        cancelled = failed and result.check(CancelledError) is not None
        assert not failed or result.check(TransferError, CancelledError), f"{result!r}"
        assert self.network.ports == {}, "a port is still open"
        assert not self.network.clock.getDelayedCalls(), "a timer is still set"
        contents = {path.name: path.read_bytes() for path in self.directory.iterdir()}
        for name in contents:
            (self.directory / name).unlink()
        if self.is_download and not failed:
            assert list(contents) == ["file"], f"files: {list(contents)}"
            content = contents["file"]
            sent = [peer.sent for peer in self.peers.values()]
            assert any(blocks.is_complete(content, size) for blocks in sent for size in _SIZES)
            assert len(content) == result.bytes_transferred
        else:
            # A download that is cancelled while it is stored may leave its file.
            assert not contents or (cancelled and list(contents) == ["file"]), f"{list(contents)}"

    def _on_sent(self, source: SocketAddress, to: SocketAddress | None, data: bytes) -> None:
        """Check a datagram of the client."""
        packet = decode(data)
        assert to in (*_PORTS, SERVER_ADDRESS), f"{to} has never sent anything"
        assert to != self.error_source, "an ERROR is answered"
        assert to != _OTHER_HOST or isinstance(packet, ErrorPacket), "another host is answered"
        for peer in self.peers.values():
            peer.receive(source, data)
