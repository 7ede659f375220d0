"""TFTP clients and servers as Python tutorials teach them, with the faults of those programs.

None of them repeats a packet, and none requests an option. The names of their files are encoded
in GB2312. The real programs wait without limit; these give up after `LIMIT` seconds with a
`TimeoutError`.
"""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIMIT = 10.0
ENCODING = "gb2312"
RRQ, WRQ, DATA, ACK, ERROR = range(1, 6)

Peer = tuple[str, int]


@contextmanager
def udp_socket() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(LIMIT)
        yield sock


def request(opcode: int, name: str) -> bytes:
    return struct.pack("!H", opcode) + name.encode(ENCODING) + b"\0octet\0"


def request_with_counted_characters(opcode: int, name: str) -> bytes:
    """Return a request whose name has as many bytes as the name has characters: its end is lost."""
    layout = f"!H{len(name)}sb5sb"
    return struct.pack(layout, opcode, name.encode(ENCODING), 0, b"octet", 0)


def header(datagram: bytes) -> tuple[int, int]:
    opcode, number = struct.unpack("!HH", datagram[:4])
    return opcode, number


# Clients


def upload_from_block_0(server: Peer, name: str, content: bytes) -> None:
    """Send blocks with numbers from 0, after one answer of any kind."""
    with udp_socket() as sock:
        sock.sendto(request(WRQ, name), server)
        _, peer = sock.recvfrom(1024)
        number, size = 0, 512
        while size == 512:
            block = content[512 * number : 512 * number + 512]
            size = len(block)
            sock.sendto(struct.pack("!HH", DATA, number) + block, peer)
            answer, _ = sock.recvfrom(1024)
            if header(answer)[1] != number:
                return
            number += 1


def upload_without_last_block(
    server: Peer, name: str, content: bytes, blksize: int = 516
) -> list[bytes]:
    """Send blocks from 1 until the file is read, and no empty block after the last full one.

    The program takes the size of a whole datagram, 516, for that of a block.

    Returns:
        The datagrams of the server.
    """
    answers = []
    with udp_socket() as sock:
        sock.sendto(request(WRQ, name), server)
        number = 0
        while True:
            answer, peer = sock.recvfrom(516)
            answers.append(answer)
            if header(answer)[0] == ERROR:
                return answers  # the program waits here without end
            if header(answer) != (ACK, number):
                return answers
            block = content[blksize * number : blksize * number + blksize]
            if not block:
                return answers
            number += 1
            sock.sendto(struct.pack("!HH", DATA, number) + block, peer)


def download_without_last_ack(server: Peer, name: str) -> bytes:
    """Write each block in the order of its arrival, and acknowledge each except the last one."""
    content = b""
    with udp_socket() as sock:
        sock.sendto(request(RRQ, name), server)
        while True:
            datagram, peer = sock.recvfrom(1024)
            opcode, number = header(datagram)
            if opcode == ERROR:
                raise FileNotFoundError(name)
            content += datagram[4:]
            if len(datagram) < 516:
                return content
            sock.sendto(struct.pack("!HH", ACK, number), peer)


def download_in_order(server: Peer, name: str) -> bytes:
    """Write the next block and acknowledge it. Other blocks are ignored."""
    content, count = b"", 0
    with udp_socket() as sock:
        sock.sendto(request(RRQ, name), server)
        while True:
            datagram, peer = sock.recvfrom(1024)
            opcode, number = header(datagram)
            if opcode == ERROR:
                raise FileNotFoundError(name)
            if number == count + 1:
                content += datagram[4:]
                count += 1
                sock.sendto(struct.pack("!HH", ACK, count), peer)
            if len(datagram) < 516:
                return content


def download_that_counts_from_0(server: Peer, name: str) -> int:
    """Acknowledge block 0 for each block, because the counter begins with 0 and never moves.

    Returns:
        The number of datagrams that arrived before the server stopped.
    """
    count = 0
    with udp_socket() as sock:
        sock.settimeout(LIMIT / 4)
        sock.sendto(request(RRQ, name), server)
        while True:
            try:
                datagram, peer = sock.recvfrom(516)
            except TimeoutError:
                return count
            count += 1
            sock.sendto(struct.pack("!HH", ACK, 0), peer)
            if len(datagram) < 516:
                return count


# Servers


class TutorialServer:
    """Server whose transfers run in threads, each with a socket of its own.

    It finds the mode in the last 7 bytes of a request. Therefore it ignores each request with
    options, unless `strip_options` is set. It sends blocks from 0, and the last one without
    waiting for its ACK. It never repeats a packet.

    Args:
        root: Directory of the files.
        first_upload_block: Number of the first block that it expects of an upload.
        shortest_full_block: Size of the smallest datagram that does not end an upload.
        strip_options: True to handle a request with options as if it had none.
        option_error: Code of the ERROR for a request with options; None: no answer.
    """

    def __init__(
        self,
        root: Path,
        first_upload_block: int = 0,
        shortest_full_block: int = 516,
        strip_options: bool = False,
        option_error: int | None = None,
    ) -> None:
        self.requests: list[bytes] = []
        self._root = root
        self._first_upload_block = first_upload_block
        self._shortest_full_block = shortest_full_block
        self._strip_options = strip_options
        self._option_error = option_error
        self._threads: list[threading.Thread] = []

    @contextmanager
    def running(self) -> Iterator[int]:
        """Serve, and yield the port. All transfers end before this returns."""
        with udp_socket() as sock:
            port: int = sock.getsockname()[1]
            self._start(self._serve, sock)
            try:
                yield port
            finally:
                with udp_socket() as own:
                    own.sendto(b"", ("127.0.0.1", port))
                for thread in self._threads:
                    thread.join(2 * LIMIT)
                    assert not thread.is_alive()

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        while True:
            datagram, peer = sock.recvfrom(1024)
            if not datagram:
                return
            self.requests.append(datagram)
            if self._strip_options:
                datagram = datagram[: datagram.index(b"\0octet\0") + 7]
            if datagram[-7:] != b"\0octet\0":
                if self._option_error is not None:
                    sock.sendto(struct.pack("!HHx", ERROR, self._option_error), peer)
                continue
            path = self._root / datagram[2:-7].decode(ENCODING)
            self._start(self._send if datagram[1] == RRQ else self._receive, path, peer)

    def _send(self, path: Path, peer: Peer) -> None:
        with udp_socket() as sock:
            if not path.exists():
                sock.sendto(struct.pack("!HHHb", ERROR, 5, 5, 0), peer)
                return
            number, content = 0, path.read_bytes()
            while True:
                block = content[512 * number : 512 * number + 512]
                sock.sendto(struct.pack("!HH", DATA, number) + block, peer)
                if len(block) < 512:
                    return
                try:
                    answer = sock.recv(1024)
                except TimeoutError:
                    return
                if header(answer) != (ACK, number):
                    return
                number += 1

    def _receive(self, path: Path, peer: Peer) -> None:
        number = self._first_upload_block
        with udp_socket() as sock, path.open("ab") as file:
            sock.sendto(struct.pack("!HH", ACK, 0), peer)
            while True:
                try:
                    datagram = sock.recv(1024)
                except TimeoutError:
                    return
                if header(datagram) != (DATA, number):
                    continue
                file.write(datagram[4:])
                file.flush()
                sock.sendto(struct.pack("!HH", ACK, number), peer)
                number += 1
                if len(datagram) < self._shortest_full_block:
                    return
