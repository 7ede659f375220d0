"""Log formats, the access log, and rotation of the log file."""

import io
import json
import os
import signal
import subprocess
import threading

import pytest
from twisted.internet.task import Clock
from twisted.logger import (
    Logger,
    LogLevel,
    LogPublisher,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from tests.support.daemons import CHECKOUT, answers, free_port, twistd, until
from tests.support.plain import get
from tftpd.daemon.access_log import AccessLog
from tftpd.daemon.logs import observer, open_log, print_startup_error
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.result import Outcome, TransferResult


def _logged(form, level="debug"):
    out = io.StringIO()
    publisher = LogPublisher(observer(level, form, out))
    return Logger(namespace="n", observer=publisher), out


def test_each_line_of_the_json_log_is_one_flat_object():
    log, out = _logged("json")
    log.info("{who} did {what}", who="x", what=3, thing=object())
    (line,) = out.getvalue().splitlines()
    record = json.loads(line)
    assert record.pop("time")
    assert record == {"level": "info", "logger": "n", "message": "x did 3", "who": "x", "what": 3}


def test_a_failure_has_its_traceback_in_the_object():
    log, out = _logged("json")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        log.failure("oh", Failure())
    record = json.loads(out.getvalue())
    assert record["level"] == "critical"
    assert "ZeroDivisionError" in record["traceback"]


def test_each_line_of_the_text_log_has_a_time_and_a_level():
    log, out = _logged("text")
    log.warn("careful")
    assert out.getvalue().endswith(" [n#warn] careful\n")


def test_the_text_log_has_the_format_of_twistd():
    log, out = _logged("text")
    twistds = io.StringIO()
    theirs = Logger(namespace="n", observer=textFileLogObserver(twistds))
    for logger in (log, theirs):
        logger.info("{a}\n{b}", a=1, b="two")
    # The second may have changed between the two.
    assert out.getvalue()[19:] == twistds.getvalue()[19:]
    assert out.getvalue()[:10] == twistds.getvalue()[:10]


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """A file that stands for the journal's socket, and its lines so far."""
    path = tmp_path / "journal"
    with path.open("w") as out:
        status = os.fstat(out.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        yield out, lambda: path.read_text().splitlines()


@pytest.mark.parametrize(
    ("level", "priority"),
    [("debug", 7), ("info", 6), ("warn", 4), ("error", 3), ("critical", 2)],
)
def test_the_journal_gets_a_priority_on_each_line_and_no_time(journal, level, priority):
    out, lines = journal
    log = Logger(namespace="n", observer=LogPublisher(observer("debug", "text", out)))
    log.emit(LogLevel.lookupByName(level), "one\ntwo")
    assert lines() == [f"<{priority}>[n#{level}] one", f"<{priority}>\ttwo"]


def test_each_line_of_a_traceback_has_the_priority_of_an_error(journal):
    out, lines = journal
    log = Logger(namespace="n", observer=LogPublisher(observer("debug", "text", out)))
    log.failure("oh", Failure(ZeroDivisionError("zero")))
    assert lines()[0] == "<2>[n#critical] oh"
    assert len(lines()) > 2
    assert {line[:3] for line in lines()} == {"<2>"}


def test_a_json_line_in_the_journal_has_its_priority(journal):
    out, lines = journal
    log = Logger(namespace="n", observer=LogPublisher(observer("debug", "json", out)))
    log.error("trouble")
    (line,) = lines()
    assert line.startswith("<3>{")
    assert json.loads(line[3:])["message"] == "trouble"


def test_only_the_journal_gets_priorities(journal, tmp_path):
    """`JOURNAL_STREAM` is inherited by what writes elsewhere."""
    with (tmp_path / "other").open("w+") as other:
        log = Logger(namespace="n", observer=LogPublisher(observer("debug", "text", other)))
        log.error("trouble")
        other.seek(0)
        assert other.read().endswith(" [n#error] trouble\n")


def test_a_failed_start_is_an_error_in_the_journal(journal, monkeypatch):
    out, lines = journal
    monkeypatch.setattr("sys.stderr", out)
    print_startup_error("t.yaml:1: one\nt.yaml:2: two")
    out.flush()
    assert lines() == ["<3>t.yaml:1: one", "<3>t.yaml:2: two"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_events_below_the_level_are_not_logged(form):
    log, out = _logged(form, level="warn")
    log.info("chatter")
    assert out.getvalue() == ""
    log.error("trouble")
    assert "trouble" in out.getvalue()


class _Reactor(Clock):
    """Reactor whose turns a test runs, in the thread of the test."""

    running = True

    def addSystemEventTrigger(self, phase, event, function):
        self.at_end = function


def test_the_lines_of_one_turn_of_the_reactor_are_written_together(monkeypatch):
    monkeypatch.setattr("tftpd.daemon.logs.isInIOThread", lambda: True)
    reactor, out = _Reactor(), io.StringIO()
    log = Logger(namespace="n", observer=observer("info", "text", out, reactor))
    log.info("one")
    log.error("two")
    assert out.getvalue() == ""
    reactor.advance(0)
    assert [line.split("] ")[1] for line in out.getvalue().splitlines()] == ["one", "two"]
    log.info("last")
    reactor.at_end()
    assert out.getvalue().endswith("] last\n")


def test_a_thread_and_a_daemon_without_a_running_reactor_write_at_once(monkeypatch):
    reactor, out = _Reactor(), io.StringIO()
    log = Logger(namespace="n", observer=observer("info", "text", out, reactor))
    monkeypatch.setattr("tftpd.daemon.logs.isInIOThread", lambda: False)
    log.info("of a thread")
    monkeypatch.setattr("tftpd.daemon.logs.isInIOThread", lambda: True)
    reactor.running = False
    log.info("at the start")
    assert len(out.getvalue().splitlines()) == 2


def test_a_line_of_a_thread_is_written_with_those_that_wait_for_the_end_of_the_turn(monkeypatch):
    reactor, out = _Reactor(), io.StringIO()
    log = Logger(namespace="n", observer=observer("info", "text", out, reactor))
    monkeypatch.setattr("tftpd.daemon.logs.isInIOThread", lambda: True)
    log.info("of the reactor")
    monkeypatch.setattr("tftpd.daemon.logs.isInIOThread", lambda: False)
    log.info("of a thread")
    assert out.getvalue() == ""
    reactor.advance(0)
    assert len(out.getvalue().splitlines()) == 2


@pytest.fixture
def lines():
    """Return a function that returns the lines of the access log."""
    out = io.StringIO()
    watching = observer("debug", "text", out)
    globalLogPublisher.addObserver(watching)
    yield lambda: [line.split("] ", 1)[1] for line in out.getvalue().splitlines()]
    globalLogPublisher.removeObserver(watching)


DETAIL = "No such file or directory"
READ = {"direction": Direction.READ, "peer": ("192.0.2.7", 2070), "filename": b"boot/vmlinuz"}
OPTIONS = {"mode": Mode.OCTET, "blksize": 1468, "windowsize": 4}


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (
            TransferResult(**READ, **OPTIONS, outcome=Outcome.DONE, bytes_transferred=3_000_000,
                           seconds=1.5, retransmits=2),
            'read "boot/vmlinuz" by 192.0.2.7:2070: done, 3000000 bytes in 1.500 s '
            "(2000000 bytes/s), blksize 1468, windowsize 4, 2 retransmitted",
        ),
        (
            TransferResult(**READ, **OPTIONS, outcome=Outcome.PROBE, code=8, detail="User aborted"),
            'read "boot/vmlinuz" by 192.0.2.7:2070: probe (ERROR 8: User aborted), 0 bytes in '
            "0.000 s (0 bytes/s), blksize 1468, windowsize 4, 0 retransmitted",
        ),
        (
            TransferResult(**READ, **OPTIONS, outcome=Outcome.DONE, first_block=0),
            'read "boot/vmlinuz" by 192.0.2.7:2070: done, 0 bytes in 0.000 s (0 bytes/s), '
            "blksize 1468, windowsize 4, 0 retransmitted, first block 0",
        ),
        (
            TransferResult(**READ, **OPTIONS, outcome=Outcome.DONE, cache_state="stale",
                           cache_age=61.4),
            'read "boot/vmlinuz" by 192.0.2.7:2070: done, 0 bytes in 0.000 s (0 bytes/s), '
            "blksize 1468, windowsize 4, 0 retransmitted, cache stale, age 61 s",
        ),
        (
            TransferResult(**READ, **OPTIONS, outcome=Outcome.DONE, sha256="0af1"),
            'read "boot/vmlinuz" by 192.0.2.7:2070: done, 0 bytes in 0.000 s (0 bytes/s), '
            "blksize 1468, windowsize 4, 0 retransmitted, sha256 0af1",
        ),
        (
            TransferResult(**READ, outcome=Outcome.TIMED_OUT, served_name=b"a\nb",
                           resolution_steps=("rewrite[0]", "case")),
            'read "boot/vmlinuz" as "a\\nb" (rewrite[0], case) by 192.0.2.7:2070: timed out, '
            "0 bytes in 0.000 s (0 bytes/s), blksize 0, windowsize 0, 0 retransmitted",
        ),
        (
            TransferResult(**READ, outcome=Outcome.REFUSED, code=1, detail=DETAIL),
            'read "boot/vmlinuz" by 192.0.2.7:2070: refused (ERROR 1: No such file or directory)',
        ),
        (
            TransferResult(**READ, outcome=Outcome.REFUSED, code=1, detail="No", profile="grub"),
            'read "boot/vmlinuz" by 192.0.2.7:2070: refused (ERROR 1: No), profile grub',
        ),
        (
            TransferResult(**READ, **OPTIONS, outcome=Outcome.ABORTED, code=0,
                           detail="a\nb\x1b[2J"),
            'read "boot/vmlinuz" by 192.0.2.7:2070: aborted by peer (ERROR 0: a\\nb\\x1b[2J), '
            "0 bytes in 0.000 s (0 bytes/s), blksize 1468, windowsize 4, 0 retransmitted",
        ),
    ],
    ids=lambda value: value.outcome.name if isinstance(value, TransferResult) else "",
)  # fmt: skip
def test_a_transfer_has_one_line(lines, result, line):
    AccessLog()(result)
    assert lines() == [line]


def test_a_netascii_transfer_says_so(lines):
    result = TransferResult(
        **READ, **OPTIONS | {"mode": Mode.NETASCII}, outcome=Outcome.DONE, bytes_transferred=19
    )
    AccessLog()(result)
    assert "19 bytes in 0.000 s (0 bytes/s), mode netascii, blksize 1468" in lines()[0]


@pytest.mark.parametrize(
    ("outcome", "fault", "level"),
    [
        (Outcome.FAILED, False, "error"),
        (Outcome.REFUSED, True, "warn"),
        (Outcome.REFUSED, False, "info"),
        (Outcome.DONE, False, "info"),
    ],
)
def test_the_level_of_a_result_says_who_must_act(outcome, fault, level):
    out = io.StringIO()
    watching = observer("debug", "text", out)
    globalLogPublisher.addObserver(watching)
    AccessLog()(TransferResult(**READ, outcome=outcome, fault=fault))
    globalLogPublisher.removeObserver(watching)
    assert f"[tftpd.access#{level}] " in out.getvalue()


@pytest.mark.parametrize("level", ["info", "debug"])
def test_information_of_twisted_itself_is_for_debugging_only(level):
    out = io.StringIO()
    publisher = LogPublisher(observer(level, "text", out))
    for namespace in ("twisted.internet.base", "log_legacy", "tftpd.server"):
        Logger(namespace=namespace, observer=publisher).info(f"info of {namespace}")
        Logger(namespace=namespace, observer=publisher).warn(f"warning of {namespace}")
    assert out.getvalue().count("warning of ") == 3
    assert out.getvalue().count("info of ") == (3 if level == "debug" else 1)


def test_long_names_are_truncated(lines):
    fields = {**READ, "filename": b"\xff" * 8000}
    AccessLog()(TransferResult(**fields, outcome=Outcome.REFUSED, code=4, detail="x" * 8000))
    (line,) = lines()
    assert '"' + "\\xff" * 1024 + '..."' in line
    assert len(line) < 6000


def test_dropped_requests_are_logged_once_a_second(lines, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    log = AccessLog()
    result = TransferResult(**READ, outcome=Outcome.DROPPED, detail="no room")
    for when in (100.0, 100.1, 100.9, 101.0, 102.5):
        now[0] = when
        log(result)
    line = 'read "boot/vmlinuz" by 192.0.2.7:2070: dropped (no room)'
    assert lines() == [line, f"{line} (2 similar messages suppressed)", line]


def test_evicted_requests_are_logged_once_a_second_and_counted_separately(lines, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    log = AccessLog()
    for when in (100.0, 100.1, 100.9, 101.0):
        now[0] = when
        log(TransferResult(**READ, outcome=Outcome.EVICTED))
        log(TransferResult(**READ, outcome=Outcome.DROPPED, detail="no room"))
    first, _, last, _ = lines()
    assert ": evicted, 0 bytes in" in first
    assert last == f"{first} (2 similar messages suppressed)"


def test_some_outcomes_are_successful():
    successful = [outcome for outcome in Outcome if outcome.successful]
    assert successful == [Outcome.DONE, Outcome.UNCONFIRMED, Outcome.PROBE]


def test_a_device_is_not_opened_again(tmp_path):
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with open_log(str(fifo), foreground=False) as out:
            out.write("line\n")
        assert os.read(reader, 100) == b"line\n"
    finally:
        os.close(reader)


def test_a_file_that_was_moved_or_removed_is_opened_again_before_the_next_line(tmp_path):
    path = tmp_path / "log"
    with open_log(str(path), foreground=False) as out:
        log = Logger(namespace="n", observer=LogPublisher(observer("info", "text", out)))
        log.info("one")
        path.rename(tmp_path / "log.1")
        log.info("two")
        path.unlink()
        log.info("three")
        (tmp_path / "new").write_text("four is elsewhere\n")
        (tmp_path / "new").replace(path)  # logrotate's `create`
        log.info("five")
    assert (tmp_path / "log.1").read_text().endswith("] one\n")
    first, second = path.read_text().splitlines()
    assert (first, second[-6:]) == ("four is elsewhere", "] five")


def test_a_file_that_was_truncated_gets_no_gap(tmp_path):
    path = tmp_path / "log"
    with open_log(str(path), foreground=False) as out:
        out.write("x" * 5000 + "\n")
        os.truncate(path, 0)  # logrotate's `copytruncate`
        out.write("next\n")
        assert path.read_bytes() == b"next\n"


def test_a_file_that_cannot_be_opened_again_stays_open_with_one_warning(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "log"
    path.parent.mkdir()
    with open_log(str(path), foreground=False) as out:
        log = LogPublisher(observer("info", "text", out))
        globalLogPublisher.addObserver(log)
        path.parent.rename(tmp_path / "moved")
        for text in ("one", "two"):
            Logger(namespace="n").info(text)
        globalLogPublisher.removeObserver(log)
    lines = (tmp_path / "moved" / "log").read_text().splitlines()
    warnings = [line for line in lines if "cannot be reopened: No such file or directory" in line]
    assert len(warnings) == 1
    assert [line[-3:] for line in lines if line not in warnings] == ["one", "two"]


def test_a_fifo_in_place_of_the_file_does_not_block_the_daemon(tmp_path):
    path = tmp_path / "log"
    with open_log(str(path), foreground=False) as out:
        out.write("one\n")
        path.rename(tmp_path / "log.1")
        os.mkfifo(path)
        writing = threading.Thread(target=out.write, args=("two\n",), daemon=True)
        writing.start()
        writing.join(20.0)
        assert not writing.is_alive()
    assert (tmp_path / "log.1").read_text() == "one\ntwo\n"


@pytest.mark.check
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGHUP"])
def test_the_signals_of_log_rotation_do_not_end_the_daemon(tmp_path, name):
    """The daemon follows the file by itself."""
    (tmp_path / "file").write_bytes(b"x")
    config, log, port = tmp_path / "t.yaml", tmp_path / "log", free_port()
    config.write_text(
        f"listen: [{{address: 127.0.0.1, port: {port}}}]\n"
        f"directories: [{{root: {tmp_path}, read: true}}]\n"
    )
    process = subprocess.Popen(
        twistd("--logfile", str(log), "tftp", "--config", str(config)),
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
    )
    try:
        until(lambda: answers(port))
        log.rename(tmp_path / "log.1")
        process.send_signal(getattr(signal, name))
        assert get(port, b"file") == b"x"
        until(lambda: log.exists() and 'read "file"' in log.read_text())
        assert "serving on" in (tmp_path / "log.1").read_text()
    finally:
        process.terminate()
        process.wait(20)
