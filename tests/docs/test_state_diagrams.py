"""The state diagrams of docs/explanation/architecture.md show what the machines do."""

import pytest

from docs import state_diagrams
from docs.state_diagrams import SenderDriver, explore, pictures
from tests.docs.blocks import DOCS
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.sender import Sender

STATES = ["waiting for ACK 0", "reading the file", "sending", "last block sent"]


class SilentSender(Sender):
    """A sender that does not answer a repeated request."""

    def on_request_repeated(self, now):
        pass


class HastyReceiver(Receiver):
    """A receiver that does not dally."""

    def on_stored(self, now):
        super().on_stored(now)
        self.close(self.outcome)


def test_the_committed_pictures_are_current():
    committed = {path.name: path.read_text() for path in DOCS.glob("explanation/*-states.svg")}
    assert committed == pictures(), (
        "run `python docs/state_diagrams.py docs/explanation` and commit the files"
    )


def test_the_architecture_shows_each_picture():
    page = (DOCS / "explanation/architecture.md").read_text()
    assert [name for name in pictures() if f"]({name})" not in page] == []


def test_a_machine_that_answers_less_has_another_picture(monkeypatch):
    before = pictures()
    monkeypatch.setattr(state_diagrams, "Sender", SilentSender)
    after = pictures()
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"sender-states.svg"}


def test_a_machine_that_misses_a_state_has_no_picture(monkeypatch):
    monkeypatch.setattr(state_diagrams, "Receiver", HastyReceiver)
    with pytest.raises(ValueError, match="'dallying'"):
        pictures()


def test_a_transition_has_the_events_after_which_the_same_is_sent():
    diagram = explore(STATES, {"RRQ with options": SenderDriver(True)})
    assert diagram.starts == {"RRQ with options / OACK": "waiting for ACK 0"}
    assert diagram.moves["waiting for ACK 0", "waiting for ACK 0"] == {
        "request again": ["OACK again"],
        "deadline": ["OACK again"],
    }
    assert diagram.ends["last block sent", "done"] == {"ACK of the last block": []}
