"""Choices, uploads that tell whose they are, mutations, and the command."""

import pytest

from fuzz.__main__ import main
from fuzz.bounds import bounded
from fuzz.choices import Choices
from fuzz.faults import none_logged
from fuzz.mutation import mutations
from fuzz.running import MISSING, available, run
from fuzz.scene import Watched
from fuzz.targets import LONGEST
from fuzz.uploads import Sent, payload


def test_choices_are_taken_one_after_the_other():
    choices = Choices(bytes((7, 1, 2, 3, 2, 65, 66, 9)))
    assert choices.number(9) == 7
    assert choices.number(0xFFFF) == 0x0102
    assert choices.one("abcd") == "d"
    assert choices.octets() == b"AB"
    assert choices.flag()
    assert not choices


def test_where_nothing_is_left_each_choice_is_the_first():
    choices = Choices(b"")
    assert (choices.number(9), choices.one("ab"), choices.octets(), choices.flag()) == (
        0,
        "a",
        b"",
        False,
    )
    assert choices.rest() == b""


def test_an_upload_is_whole_if_all_its_blocks_were_sent():
    sent = Sent(whose=3, blksize=8)
    sent.add(1, 8)
    sent.add(2, 5)
    whole = payload(3, 1, 8) + payload(3, 2, 5)
    assert sent.is_whole(whole)
    assert not sent.is_whole(whole[:-1])
    assert not sent.is_whole(payload(3, 1, 8))
    assert not sent.is_whole(payload(4, 1, 8) + payload(3, 2, 5))
    assert (sent.ends_at(1), sent.ends_at(2)) == (False, True)


def test_mutations_are_the_same_for_the_same_seed():
    once = list(mutations("codec", 50, seed=1))
    assert once == list(mutations("codec", 50, seed=1))
    assert once != list(mutations("codec", 50, seed=2))
    assert max(map(len, mutations("server", 500, seed=1))) <= LONGEST["server"]


def test_what_is_logged_is_raised():
    from twisted.logger import Logger

    def fails():
        with none_logged():
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                Logger().failure("a fault")

    with pytest.raises(ZeroDivisionError):
        fails()


def test_what_takes_too_long_is_told():
    def takes_long():
        with bounded(0.0):
            sum(range(10000))

    with pytest.raises(AssertionError, match=r"0\.0 s"):
        takes_long()


def test_a_timer_that_comes_again_at_once_is_told():
    clock = Watched()

    def again():
        clock.callLater(0, again)

    again()
    with pytest.raises(AssertionError, match="without end"):
        clock.waits(1)


def test_time_goes_from_timer_to_timer():
    clock, times = Watched(), []
    clock.callLater(0.1 + 0.2, lambda: times.append(clock.seconds()))
    clock.callLater(5, lambda: times.append(clock.seconds()))
    clock.waits(1)
    assert (times, clock.seconds()) == ([0.1 + 0.2], 1)


def test_without_atheris_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr("fuzz.__main__.available", lambda: False)
    assert main(["codec"]) == 2
    assert MISSING in capsys.readouterr().err


@pytest.mark.skipif(not available(), reason=MISSING)
def test_a_short_guided_run_executes_and_covers(tmp_path):
    said = run("codec", 1, tmp_path)
    assert said.executions > 1000
    assert said.coverage > 10
    assert said.findings == []
    assert list(tmp_path.iterdir())


@pytest.mark.skipif(not available(), reason=MISSING)
def test_a_guided_run_keeps_what_it_finds(tmp_path, monkeypatch):
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import sys\n"
        "if sys.argv[0] == '-m':\n"
        "    import tftpd.protocol.packets as packets\n"
        "    packets.Ack.encode = lambda self: b'\\0\\4\\0\\0'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("fuzz.running.FINDINGS", tmp_path / "findings")
    said = run("codec", 2)
    assert said.findings
    assert {path.parent for path in said.findings} == {tmp_path / "findings/codec"}
