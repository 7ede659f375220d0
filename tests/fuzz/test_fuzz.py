"""Each target passes its corpus and some mutations, and detects faults that a test adds."""

import gc
import os

import pytest

from tests.fuzz import harness
from tests.fuzz.__main__ import main
from tests.fuzz.choices import Choices
from tftpd.client.transfer import DownloadTransfer
from tftpd.config.loader import Document
from tftpd.dataplane import NAME, reference
from tftpd.net.send_session import SendSession
from tftpd.net.session import Session
from tftpd.protocol.machine import TransferMachine
from tftpd.server.listener import Listener
from tftpd.storage.upload import Upload
from tftpd.templates import sandbox

_MUTATIONS = 60
_preadv = os.preadv


@pytest.fixture(autouse=True)
def _no_garbage():
    """Close the files of earlier tests that are garbage; later this would look like a fault."""
    gc.collect()


@pytest.mark.parametrize("target", harness.TARGETS)
def test_corpus_and_mutations_pass(target):
    check = harness.load_target(target)
    for data in (*harness.read_corpus(target), *harness.mutations(target, _MUTATIONS, seed=1)):
        assert len(data) <= harness.MAX_INPUT_BYTES
        try:
            check(data)
        except Exception as error:
            error.add_note(f"input: bytes.fromhex('{data.hex()}')")
            raise


def _check_corpus(check, target):
    for data in harness.read_corpus(target):
        check(data)


def _answer_everything(listener, incoming):
    listener.transport.write(b"\0\5\0\4\0", incoming.peer)


@pytest.mark.parametrize(
    ("target", "owner", "name", "fault"),
    [
        # The listener answers invalid requests.
        ("server", Listener, "requestReceived", _answer_everything),
        # A session leaves its port open.
        ("server", Session, "_end", lambda self: None),
        # A session leaves its file open.
        ("server", SendSession, "_close_file", lambda self: None),
        # The first reply is repeated without end.
        ("server", TransferMachine, "_may_resend", TransferMachine._may_wait),
        # An aborted upload is not removed.
        ("server", Upload, "discard", lambda self: None),
        # The last block is acknowledged before the file is stored.
        ("server", Upload, "commit", lambda self: None),
        # A block has the data of another place.
        ("server", os, "preadv", lambda fd, data, at, flags=0: _preadv(fd, data, at + 1, flags)),
        # A template reads private attributes.
        ("templates", sandbox._Environment, "is_safe_attribute", lambda *args: True),
        # A template makes a file above the size limit.
        ("templates", sandbox, "_join", lambda pieces, size: "".join(pieces).encode()),
        # The client leaves the file of a download that failed.
        ("client", DownloadTransfer, "release", lambda self: None),
        # The data planes accept other blocks.
        pytest.param(
            *("dataplane", reference._ReceiverLoan, "_accept", lambda *args: True),
            marks=pytest.mark.skipif(NAME != "C", reason="the extension was not built"),
        ),
        # A problem has no line number.
        ("config", Document, "line", lambda self, path: 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_corpus_detects_an_added_fault(target, owner, name, fault, monkeypatch):
    check = harness.load_target(target)
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises(Exception):  # noqa: B017, PT011 - any exception is a finding
        _check_corpus(check, target)


def test_the_corpus_is_small_and_has_a_folder_for_each_target():
    assert sorted(path.name for path in harness.CORPUS.iterdir()) == sorted(harness.TARGETS)
    assert sum(len(harness.read_corpus(target)) for target in harness.TARGETS) <= 150


def test_modules_with_hypothesis_tests_are_targets():
    assert {"protocol.test_packets", "access.test_paths"} <= set(harness.all_targets())
    harness.load_target("protocol.test_packets")(b"\0\1\2\3")


def test_choices_after_the_end_of_the_input_are_the_first():
    choices = Choices(bytes((7, 1, 2, 3, 2, 65, 66)))
    assert (choices.number(9), choices.number(0xFFFF), choices.one("abcd")) == (7, 0x0102, "d")
    assert choices.data() == b"AB"
    assert not choices
    assert (choices.number(9), choices.one("ab"), choices.flag()) == (0, "a", False)


def test_the_command_says_how_to_install_atheris(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["config"])
    assert "pip install 'tftpd[fuzz]'" in capsys.readouterr().err


def test_atheris_keeps_new_inputs(tmp_path):
    pytest.importorskip("atheris")
    assert main(["protocol.test_netascii", "--keep", str(tmp_path), "-runs=200"]) == 0
    assert list((tmp_path / "protocol.test_netascii").iterdir())
