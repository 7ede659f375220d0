"""The sections `events` and `event_queue`."""

import os

import pytest

from tftpd.config.errors import ConfigError
from tftpd.config.events import EventSection
from tftpd.config.loader import load_settings


@pytest.fixture
def load(tmp_path):
    """Return a function that loads a configuration beside a program and a secret."""
    for name, text, mode in (
        ("program", "", 0o755),
        ("text", "", 0o644),
        ("secret", "0123456789abcdef\n", 0o600),
        ("public", "0123456789abcdef\n", 0o644),
        ("short", "0123456789\n", 0o600),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)

    def load(text, key="events"):
        text = text.replace("DIR", str(tmp_path))
        (tmp_path / "t.yaml").write_text(
            f"directories: [{{root: {tmp_path}, read: true}}]\n{key}:\n{text}\n"
        )
        return load_settings(tmp_path / "t.yaml")

    return load


def test_a_program_and_a_webhook_are_loaded(load, tmp_path):
    settings = load(
        "  - {event: upload_stored, exec: [DIR/program, --all], directories: [/backup]}\n"
        "  - {event: [read_done, read_done], webhook: 'https://h:8443/p?t=1', secret_file: secret}"
    )
    program, webhook = settings.events
    assert program.directories == [(b"backup",)]
    assert program.label == f"{tmp_path}/program"
    assert (webhook.event, webhook.secret_file) == (["read_done"], f"{tmp_path}/secret")
    assert webhook.label == "https://h:8443"
    assert (settings.has_event("read_done"), settings.has_event("transfer_started")) == (
        True,
        False,
    )


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{event: stored, exec: [DIR/program]}", "events[0].event: expected one of request_refu"),
        ("{event: read_done}", 'expected either "exec" or "webhook"'),
        (
            "{event: read_done, exec: [program]}",
            "expected the absolute path of the program first, ",
        ),
        ("{event: read_done, exec: []}", "expected at least one entry"),
        ("{event: read_done, exec: [DIR/absent]}", "absent does not exist"),
        ("{event: read_done, exec: [DIR/text]}", "text is not executable"),
        ("{event: read_done, exec: [DIR]}", "is not a file"),
        ("{event: read_done, webhook: ftp://h}", "expected a URL such as https://HOST/PATH"),
        ("{event: read_done, webhook: 'http://u:p@h/'}", "without user and password"),
        ("{event: read_done, webhook: 'http://h:99999/'}", "expected a URL"),
        ("{event: read_done, webhook: http://h, secret_file: absent}", "absent does not exist"),
        ("{event: read_done, webhook: http://h, secret_file: public}", "has mode 644, and all"),
        ("{event: read_done, webhook: http://h, secret_file: short}", "expected a secret of 16 to"),
        ("{event: read_done, webhook: http://h, ca_file: secret}", '"ca_file" is for https'),
        ("{event: read_done, exec: [DIR/program], secret_file: secret}", '"secret_file" is for a'),
        ("{event: boot_verdict_changed, exec: [DIR/program]}", 'needs the key "status"'),
        ("{event: read_done, exec: [DIR/program], timeout: 0}", "expected seconds"),
    ],
)
def test_a_problem_has_its_line_and_what_was_expected(load, entry, problem):
    with pytest.raises(ConfigError) as caught:
        load(f"  - {entry}")
    assert problem in str(caught.value)
    assert "t.yaml:3: events[0]" in str(caught.value)


def test_two_entries_with_one_target_need_names(load):
    entry = "  - {event: read_done, exec: [DIR/program]}\n"
    with pytest.raises(ConfigError, match=r"is already that of events\[0\]"):
        load(entry * 2)
    named = "  - {event: read_done, exec: [DIR/program], name: second}\n"
    first, second = load(entry + named).events
    assert first.key != second.key


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_secret_must_be_readable(load, tmp_path):
    (tmp_path / "secret").chmod(0)
    with pytest.raises(ConfigError, match="secret cannot be read: Permission denied"):
        load("  - {event: read_done, webhook: http://h, secret_file: secret}")


def test_a_hook_keeps_its_key_with_its_name():
    values = {"event": "read_done", "name": "mail"}
    first = EventSection(exec=["/bin/one"], **values)
    assert first.key == EventSection(webhook="http://h", **values).key
    assert EventSection(event="read_done", exec=["/bin/one"]).key != first.key


def test_the_queue_is_in_the_state_directory(load, monkeypatch, tmp_path):
    entry = "  - {event: read_done, exec: [DIR/program]}\n"
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert load(entry).event_queue.path is None
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/tftpd:/var/lib/tftpd/upload")
    assert load(entry).event_queue.path == "/var/lib/tftpd/events.sqlite3"
    assert load(entry + "event_queue: {file: q}").event_queue.path == f"{tmp_path}/q"
    with pytest.raises(ConfigError, match="is not in an existing directory"):
        load(entry + "event_queue: {file: absent/q}")


def test_the_section_may_be_called_on(load):
    text = "  - {event: upload_stored, exec: [DIR/program]}"
    assert [each.event for each in load(text, "on").events] == [["upload_stored"]]
    with pytest.raises(ConfigError, match=r"t.yaml:3: events\[0\].event: expected one of"):
        load(text.replace("upload_stored", "stored"), "on")
    with pytest.raises(ConfigError, match="is already given as events on line 2"):
        load(text, "events: []\non")


@pytest.mark.parametrize("name", ["device_overdue", "device_recovered"])
def test_events_of_devices_need_devices(load, name):
    with pytest.raises(ConfigError, match='needs the key "devices"'):
        load(f"  - {{event: {name}, exec: [DIR/program]}}")
