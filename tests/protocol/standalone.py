"""Run an RRQ and a WRQ between two state machines in a process that cannot import Twisted.

test_without_twisted.py runs this module as a script.
"""

import sys

# The import of a module that is set to None raises ImportError.
for name in ("twisted", "zope", "socket", "yaml", "pydantic", "jinja2"):
    sys.modules[name] = None

from tftpd.protocol import (  # noqa: E402
    Data,
    Direction,
    Mode,
    OptionLimits,
    Outcome,
    Receiver,
    RequestMachine,
    RetransmitPolicy,
    RetransmitTimer,
    Sender,
    TransferRequest,
    decode,
    negotiate,
)

CONTENT = bytes(range(256)) * 20 + b"the end"


def timer(timeout=None):
    return RetransmitTimer(RetransmitPolicy(), timeout)


def send(sender, now):
    """Return the datagrams that the sender sends now."""
    blksize = sender.options.blksize
    block_count, last_size = len(CONTENT) // blksize + 1, len(CONTENT) % blksize
    if sender.blocks_wanted and sender.blocks == 0:  # all blocks fit into the read-ahead buffer
        sender.blocks_ready(block_count, last_size)
    output = sender.next_send(now)
    if not isinstance(output, tuple):
        return [] if output is None else [output]
    first, count = output
    return [
        Data(index, CONTENT[(index - 1) * blksize : index * blksize]).encode()
        for index in range(first, first + count)
    ]


def transfer(direction):
    """Transfer CONTENT and return the received bytes and both machines."""
    now = 0.0
    size = len(CONTENT) if direction is Direction.WRITE else 0
    requested = TransferRequest(direction, b"file", blksize=1000, windowsize=3, tsize=size)
    client = RequestMachine(requested, timer(), now, broadcast=False)
    request = decode(client.next_send(now))
    agreed = negotiate(
        request.options, OptionLimits(), Mode.parse(request.mode), direction, len(CONTENT)
    )
    server_class = Sender if direction is Direction.READ else Receiver
    client_class = Receiver if direction is Direction.READ else Sender
    server = server_class(agreed, timer(agreed.timeout), now)
    client.receive(decode(server.next_send(now)), now)
    assert client.accepted
    assert (client.options.blksize, client.options.windowsize) == (1000, 3)
    assert client.options.tsize == len(CONTENT)
    client = client_class(client.options, timer(), now)
    sender, receiver = (server, client) if direction is Direction.READ else (client, server)
    content = b""
    for _ in range(100):
        now += 0.001
        ack = receiver.next_send(now)
        if ack is not None:
            sender.receive(decode(ack), now)
        for datagram in send(sender, now):
            receiver.receive(decode(datagram), now)
        content += b"".join(receiver.take_payloads())
        if receiver.complete and receiver.outcome is None:
            receiver.on_stored(now)
        if sender.closed:
            break
    receiver.on_timeout(now + 60)
    return content, sender, receiver


if __name__ == "__main__":
    for direction in Direction:
        content, *machines = transfer(direction)
        assert content == CONTENT
        assert [machine.outcome for machine in machines] == [Outcome.DONE] * 2
        assert all(machine.closed for machine in machines)
        assert [machine.retransmits for machine in machines] == [0, 0]
        print(direction.value, len(content))
