"""Probes tell the time of a part without the parts it calls."""

import subprocess
import sys

import pytest

from bench import probes
from bench.load import PROJECT
from bench.probes import Probes

now = 0.0


class Worker:
    def outer(self, seconds: float) -> str:
        self.work(seconds)
        return self.inner(seconds=2 * seconds)

    def inner(self, seconds: float) -> str:
        self.work(seconds)
        return "done"

    def work(self, seconds: float) -> None:
        global now
        now += seconds


def test_a_part_does_not_count_what_it_calls(monkeypatch):
    monkeypatch.setattr(probes, "perf_counter", lambda: now)
    made = Probes()
    with made.installed([(Worker, "outer", "outer"), (Worker, "inner", "inner")]):
        assert Worker().outer(1.0) == "done"
        assert Worker().inner(4.0) == "done"
    assert made.seconds() == pytest.approx({"outer": 1.0, "inner": 6.0})


def test_afterwards_all_is_as_it_was():
    before = dict(vars(Worker))
    with Probes().installed([(Worker, "inner", "inner")]):
        assert vars(Worker)["inner"] is not before["inner"]
    assert vars(Worker)["inner"] is before["inner"]


def test_every_place_of_the_profile_is_there():
    look = "from bench.profile import PLACES\nfor owner, name, _ in PLACES: vars(owner)[name]"
    subprocess.run([sys.executable, "-c", look], cwd=PROJECT, check=True, timeout=30)
