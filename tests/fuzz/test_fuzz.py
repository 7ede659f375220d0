"""Each target passes its corpus and some mutations, and detects faults that a test adds."""

import os

import pytest

from tests.fuzz.__main__ import main
from tests.fuzz.choices import Choices
from tests.fuzz.harness import (
    CORPUS,
    MAX_INPUT_BYTES,
    TARGETS,
    all_targets,
    corpus_files,
    load_target,
    mutations,
)
from tftpd.config.loader import Document
from tftpd.net.send_session import SendSession
from tftpd.net.session import Session
from tftpd.protocol.machine import TransferMachine
from tftpd.server.listener import Listener
from tftpd.storage.upload import Upload
from tftpd.templates import sandbox

_MUTATIONS = 60
_preadv, _on_request = os.preadv, Listener.requestReceived


@pytest.mark.parametrize("target", TARGETS)
def test_corpus_and_mutations_pass(target):
    check = load_target(target)
    files = [path.read_bytes() for path in corpus_files(target)]
    assert max(map(len, files)) <= MAX_INPUT_BYTES
    for data in (*files, *mutations(target, _MUTATIONS, seed=1)):
        try:
            check(data)
        except Exception as error:
            error.add_note(f"input: bytes.fromhex('{data.hex()}')")
            raise


def _fails(check, data):
    try:
        check(data)
    except Exception:
        return True
    return False


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
        # The client accepts data of another host.
        ("client", Session, "_reply_to_unknown_tid", lambda *args: Session.datagramReceived(*args)),
        # A problem has no line number.
        ("config", Document, "line", lambda self, path: 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_corpus_detects_an_added_fault(target, owner, name, fault, monkeypatch):
    check = load_target(target)
    monkeypatch.setattr(owner, name, fault)
    assert any(_fails(check, path.read_bytes()) for path in corpus_files(target))


def test_the_corpus_is_small_and_has_a_folder_for_each_target():
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)
    assert sum(len(corpus_files(target)) for target in TARGETS) <= 150


def test_modules_with_hypothesis_tests_are_targets():
    assert {"protocol.test_packets", "access.test_paths"} <= set(all_targets())
    load_target("protocol.test_packets")(b"\0\1\2\3")


def test_choices_after_the_end_of_the_input_are_the_first():
    choices = Choices(bytes((7, 1, 2, 3, 2, 65, 66)))
    assert (choices.number(9), choices.number(0xFFFF), choices.one("abcd")) == (7, 0x0102, "d")
    assert choices.data() == b"AB"
    assert (choices.number(9), choices.one("ab"), choices.flag(), choices.rest()) == (
        0,
        "a",
        False,
        b"",
    )


def test_the_command_says_how_to_install_atheris(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["config"])
    assert "pip install 'tftpd[fuzz]'" in capsys.readouterr().err


def test_atheris_keeps_new_inputs(tmp_path):
    pytest.importorskip("atheris")
    assert main(["protocol.test_netascii", "--keep", str(tmp_path), "-runs=200"]) == 0
    assert list((tmp_path / "protocol.test_netascii").iterdir())
