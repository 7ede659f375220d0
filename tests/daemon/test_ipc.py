"""What goes between the daemon and a worker arrives as it was."""

import pytest

from tftpd.config.settings import Settings
from tftpd.daemon.ipc import Channel, WorkerConfig, dispatch, encode_event, encode_report
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.result import Outcome, TransferResult

REPORTS = [
    TransferResult(Direction.READ, ("fe80::1%eth0", 2000), bytes(range(256)), Outcome.REFUSED),
    TransferResult(
        Direction.WRITE,
        ("192.0.2.7", 1),
        b"",
        Outcome.TIMED_OUT,
        bytes_transferred=1 << 40,
        seconds=1.5,
        mode=Mode.NETASCII,
        blksize=8,
        windowsize=64,
        retransmits=3,
        code=0,
        detail="half a character \udce4, a line\nand \0",
        size=1 << 41,
        blocks=77,
        timeouts=2,
        rtt=0.25,
        profile="u-boot",
        options=("blksize", "tsize"),
        served_name=b"caf\xe9",
        resolution_steps=("rewrite[0]", "case"),
    ),
]


def _unexpected(*said):
    raise AssertionError(said)


@pytest.mark.parametrize("report", REPORTS)
def test_a_report(report):
    heard = []
    dispatch(encode_report(report), heard.append, _unexpected, _unexpected, _unexpected)
    assert heard == [report]


def test_a_log_event():
    heard = []
    event = encode_event("warn", "name.space", "é\n\udce4")
    dispatch(event, _unexpected, lambda *said: heard.append(said), _unexpected, _unexpected)
    assert heard == [("warn", "name.space", "é\n\udce4")]


def test_orders(tmp_path):
    settings = Settings.model_validate(
        {"directories": [{"root": str(tmp_path), "read": {"clients": ["10.0.0.0/8"]}}]}
    )
    orders = WorkerConfig(settings, settings.listen, number=1)
    assert WorkerConfig.decode(orders.encode()) == orders


def test_messages_are_told_apart_however_the_pipe_cuts_them():
    heard = []
    channel = Channel(heard.append)
    for octet in b"\0\0\0\3one\0\0\0\0\0\0\0\3two":
        channel.dataReceived(bytes([octet]))
    assert heard == [b"one", b"", b"two"]
