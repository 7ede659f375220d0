"""Messages between the daemon and a worker are decoded to equal values."""

import pickle

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from tftpd.access.variables import ClientValue
from tftpd.config.settings import Settings
from tftpd.daemon.ipc import WorkerConfig, decode_variables, encode, encode_variables
from tftpd.daemon.worker_pool import WorkerProcess, WorkerSlot
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


def _worker(on_result=_unexpected, on_drained=_unexpected):
    """Return the daemon's end of worker 7."""
    reactor = Clock()
    return WorkerProcess(WorkerSlot(reactor, 7, -1, on_result, on_drained, _unexpected), reactor)


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_is_decoded(result):
    received = []
    _worker(on_result=received.append).stringReceived(encode("result", result))
    assert received == [result]


def test_a_drained_address_is_decoded():
    received = []
    address = ("fe80::1%eth0", 69, 0, 2)
    worker = _worker(on_drained=lambda *drained: received.append(drained))
    worker.stringReceived(encode("drained", address))
    assert received == [(7, address)]


def test_a_log_event_is_decoded_and_logged():
    received = []
    globalLogPublisher.addObserver(received.append)
    message = encode("event", ["warn", "name.space", "event_name", "é\n\udce4"])
    _worker().stringReceived(message)
    globalLogPublisher.removeObserver(received.append)
    (event,) = received
    assert (event["log_level"].name, event["log_namespace"]) == ("warn", "name.space")
    assert (event["event"], event["message"], event["worker"]) == ("event_name", "é\n\udce4", 7)


def test_a_configuration_is_decoded(tmp_path):
    settings = Settings.model_validate(
        {"directories": [{"root": str(tmp_path), "read": {"clients": ["10.0.0.0/8"]}}]}
    )
    config = WorkerConfig(settings, settings.listen, number=1)
    assert pickle.loads(pickle.dumps(config)) == config


def test_messages_are_separated_however_the_pipe_splits_them():
    received = []
    worker = _worker(on_result=received.append)
    for result in RESULTS:
        message = encode("result", result)
        for byte in len(message).to_bytes(4, "big") + message:
            worker.outReceived(bytes([byte]))
    assert received == RESULTS


def test_variables_of_clients_are_decoded():
    clients = {"192.0.2.7": {"a": ClientValue([1, {"b": None}], 1.5, True)}, "::1": {}}
    assert decode_variables(encode_variables(clients)) == clients
