"""The report as a table of 80 columns and as a JSON object."""

import json

import pytest

from tests.client.probe import serving
from tests.client.probe.serving import run_probe
from tftpd.client.probe.findings import derive_findings
from tftpd.client.probe.report import format_json, format_report

SERVERS = [
    serving.Good, serving.Silent, serving.Malformed, serving.Missing, serving.GrantsTooMuch,
    serving.AddsOptions, serving.BlackHole, serving.OtherAddress, serving.IgnoresOptions,
    serving.RefusesOptions, serving.WrongSize, serving.NeverRetransmits,
]  # fmt: skip


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: server.__name__)
def observed(request):
    observed, _ = run_probe(request.param())
    return observed


def test_lines_fit_a_terminal_and_are_printable(observed):
    lines = format_report(observed, derive_findings(observed)).splitlines()
    assert [line for line in lines if len(line) > 79 or not line.isprintable()] == []
    assert [line for line in lines if line != line.rstrip()] == []


def test_the_object_contains_all_observations_and_findings(observed):
    findings = derive_findings(observed)
    converted = json.loads(format_json(observed, findings, 1))
    assert converted["answer"]["kind"] == observed.answer.kind.value
    assert [entry["requested"] for entry in converted["blksizes"]] == [
        entry.requested for entry in observed.blksizes
    ]
    assert [sample["rate"] for sample in converted["samples"]] == [
        sample.rate for sample in observed.samples
    ]
    assert [finding["kind"] for finding in converted["findings"]] == [
        finding.kind for finding in findings
    ]
    assert converted["status"] == 1


def lines(server):
    observed, _ = run_probe(server)
    return format_report(observed, derive_findings(observed)).splitlines()


def test_blocks_that_never_arrive_are_marked():
    printed = lines(serving.BlackHole())
    assert "     2048  granted       NEVER" in printed
    assert "   larger  not tested" in printed


def test_windows_that_are_never_granted_are_one_line():
    assert "  1 to 64  ignored" in lines(serving.NoWindows())


def test_the_file_size_is_compared_with_tsize():
    assert "file size         120,000 bytes, equal to tsize" in lines(serving.Good())
    assert "file size         120,000 bytes, but tsize is 1,234 bytes (!)" in lines(
        serving.WrongSize()
    )
    assert "file size         100,000 bytes, no tsize" in lines(serving.IgnoresOptions(100_000))
