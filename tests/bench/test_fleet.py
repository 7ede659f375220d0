"""Namespaces with four servers, and the simulation of machines that boot."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from bench.fleet import Fleet, Load, Outcome, describe_fleet, draw_chart, make_rules, measure_fleet
from tests.bench.test_generator import needs_compiler
from tests.support.programs import program

RUN = {"ok": 9, "failed": 1, "reasons": [], "p50": 0.1, "p99": 0.2, "max": 0.3}
REPORT = {
    "rolling": [RUN | {"rolled_seconds": 9.0}, RUN | {"rolled_seconds": 9.0, "p99": 0.4}],
    "kill": [RUN | {"ran_there": 3}],
    "simulation": RUN
    | {
        "duration": 4.0,
        "megabytes_per_second": 5.0,
        "requests_per_second": 6.0,
        "cpu_shares": [0.5],
        "peak_mib": [70.0],
    },
}


def test_the_rules_have_a_target_for_each_ready_node():
    text = make_rules([1, 3])
    assert "mod 2 map { 0 : 10.8.1.2, 1 : 10.8.3.2 }" in text
    assert "dnat" not in make_rules([])


def test_quantiles_are_those_of_the_successful_boots():
    outcome = Outcome([float(n) for n in range(101)], ["no answer"])
    assert (outcome.quantile(0.5), outcome.quantile(0.99), outcome.quantile(1.0)) == (50, 99, 100)


def test_the_report_has_a_row_for_each_run():
    text = describe_fleet(REPORT)
    assert "| 10 boots of 1 MiB, a node killed with 3 transfers | 1 | 0.100 s |" in text
    assert "| machines, failed | 10, 1 |" in text


def test_the_chart_is_svg_with_two_lines():
    timeline = [(n / 2, 5, n, n * 1_000_000) for n in range(1000)]
    root = ElementTree.fromstring(draw_chart(timeline))
    lines = [each for each in root.iter() if each.tag.endswith("polyline")]
    assert len(lines) == 2
    assert all(len(line.get("points").split()) <= 201 for line in lines)
    assert re.search("machines that have booted, 999", draw_chart(timeline))


@pytest.mark.check
@needs_compiler
def test_machines_boot_from_all_nodes_and_a_restart_breaks_nothing():
    for name in ("nft", "conntrack", "sysctl"):
        program(name)
    files = [("loader", "loader"), ("none-%", None), ("menu", "menu")]
    with Fleet() as fleet:
        outcome = fleet.run(Load(60, 20, files))
        assert (len(outcome.seconds), outcome.failures) == (60, [])
        assert fleet.run(Load(1, 1, [("menu", None)])).failures
        fleet.restart(2)
        assert fleet.run(Load(20, 20, files)).failures == []
        assert len(fleet.usage()) == 4


@pytest.mark.nightly
@needs_compiler
def test_a_rolling_restart_and_a_kill_lose_only_what_ran_on_the_killed_node():
    report = measure_fleet(50, 1, print, boots=3000, reads=600)
    assert report["rolling"][0]["failed"] == 0
    assert report["kill"][0]["failed"] <= report["kill"][0]["ran_there"]
    assert report["simulation"]["failed"] == 0
