"""Server: a listener with its sessions and files, for any packets at any time.

The input is a sequence of steps: packets of four clients, time that passes, slow threads,
reloads, ports that cannot be opened, and files that change meanwhile.
"""

from tests.fuzz.checked_server import CheckedServer
from tests.fuzz.choices import Choices
from tests.fuzz.harness import no_hidden_faults
from tests.fuzz.server_files import FILES, SERVER_ADDRESS, served_root
from tftpd.net.port_pool import PortRange

_MAX_STEPS = 200
_WAITS = (0.0, 0.06, 0.3, 1.0, 1.3, 3.1, 9.0, 40.0, 300.0)


def check(data: bytes) -> None:
    """Run the steps, then wait until all transfers have ended."""
    choices = Choices(data)
    with no_hidden_faults():
        server = CheckedServer(choices.flag())
        for _ in range(_MAX_STEPS):
            if choices:
                _step(choices, server)
        server.end()


def _step(choices: Choices, server: CheckedServer) -> None:
    changing = served_root() / "changing"
    match choices.number(15):
        case kind if kind < 10:
            _send(choices, server, is_request=kind < 3)
        case 10 | 11:
            server.advance(choices.one(_WAITS))
        case 12:
            server.net.hold_threads = choices.flag()
            server.threads_were_held |= server.net.hold_threads
            server.dentry_cache.cold = choices.flag()
            if choices.flag():
                server.net.run_threads()
        case 13:
            server.listener.config = choices.one(server.configurations)
            server.listener.single_port = choices.flag()
            server.listener.ports = PortRange(50000, 50003) if choices.flag() else None
        case 14:
            server.net.no_ports, server.net.ports_exhausted = choices.flag(), choices.flag()
            server.port.broadcast = choices.flag()
        case _:
            match choices.number(3):
                case 0:
                    changing.write_bytes(b"d" * choices.number(5000))
                case 1:
                    changing.unlink(missing_ok=True)
                case 2:
                    changing.write_bytes(FILES[b"changing"])
                case _:
                    server.sessions.stop()
    server.find_new_sessions()


def _send(choices: Choices, server: CheckedServer, is_request: bool) -> None:
    """Send a datagram of one client, most often to the port that has answered it."""
    peer = choices.one(tuple(server.peers.values()))
    if is_request:
        server.deliver(peer, peer.choose_request(choices), SERVER_ADDRESS)
        return
    datagram = peer.choose_reply(choices)
    tids = [other.tid for other in server.peers.values()]
    server.deliver(peer, datagram, choices.one((*[peer.tid] * 3, SERVER_ADDRESS, *tids)))
