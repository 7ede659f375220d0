"""The table at 80 columns, and the object of JSON."""

import json

import pytest

from tests.client.probe import serving
from tests.client.probe.serving import probed
from tftpd.client.probe.findings import findings
from tftpd.client.probe.report import plain, table

SERVERS = [
    serving.Good, serving.Silent, serving.Garbage, serving.Missing, serving.GrantsTooMuch,
    serving.AddsOptions, serving.BlackHole, serving.Elsewhere, serving.IgnoresOptions,
    serving.RefusesOptions, serving.WrongSize, serving.NeverRepeats,
]  # fmt: skip


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: server.__name__)
def seen(request):
    observed, _ = probed(request.param())
    return observed


def test_no_line_is_wider_than_a_terminal_nor_can_draw_on_it(seen):
    lines = table(seen, findings(seen)).splitlines()
    assert [line for line in lines if len(line) > 79 or not line.isprintable()] == []
    assert [line for line in lines if line != line.rstrip()] == []


def test_the_object_is_json_and_has_all(seen):
    found = findings(seen)
    said = json.loads(json.dumps(plain(seen, found, 1)))
    assert said["answer"]["kind"] == seen.answer.kind.value
    assert [one["asked"] for one in said["blksizes"]] == [one.asked for one in seen.blksizes]
    assert [one["rate"] for one in said["samples"]] == [one.rate for one in seen.samples]
    assert [one["kind"] for one in said["findings"]] == [one.kind for one in found]
    assert said["status"] == 1


def lines(server):
    observed, _ = probed(server)
    return table(observed, findings(observed)).splitlines()


def test_what_never_arrives_cannot_be_overlooked():
    said = lines(serving.BlackHole())
    assert "     2048  granted       NEVER" in said
    assert "   larger  not tried" in said


def test_windows_that_nobody_grants_are_one_line():
    assert "  1 to 64  ignored" in lines(serving.NoWindows())


def test_the_size_is_told_with_what_the_server_says_of_it():
    assert "size          700,000 octets, and tsize says so" in lines(serving.Good())
    assert "size          700,000 octets; tsize: 1,234 octets (!)" in lines(serving.WrongSize())
    assert "size          700,000 octets; tsize: not told" not in lines(serving.Good())
