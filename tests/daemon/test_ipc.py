"""Messages between the daemon and a worker are decoded to equal values."""

import pytest

from tftpd.config.settings import Settings
from tftpd.daemon.ipc import Channel, WorkerConfig, dispatch, encode_event, encode_result
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.result import Outcome, TransferResult

RESULTS = [
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


def _unexpected(*arguments):
    raise AssertionError(arguments)


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_is_decoded(result):
    received = []
    dispatch(encode_result(result), received.append, _unexpected, _unexpected, _unexpected)
    assert received == [result]


def test_a_log_event_is_decoded():
    received = []
    event = ("warn", "name.space", "event_name", "é\n\udce4")
    message = encode_event(*event)
    dispatch(message, _unexpected, lambda *args: received.append(args), _unexpected, _unexpected)
    assert received == [event]


def test_a_configuration_is_decoded(tmp_path):
    settings = Settings.model_validate(
        {"directories": [{"root": str(tmp_path), "read": {"clients": ["10.0.0.0/8"]}}]}
    )
    config = WorkerConfig(settings, settings.listen, number=1)
    assert WorkerConfig.decode(config.encode()) == config


def test_messages_are_separated_however_the_pipe_splits_them():
    received = []
    channel = Channel(received.append)
    for byte in b"\0\0\0\3one\0\0\0\0\0\0\0\3two":
        channel.dataReceived(bytes([byte]))
    assert received == [b"one", b"", b"two"]
