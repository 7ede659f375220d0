"""Short runs of the measurements of origins."""

import pytest

from bench import origins
from tests.bench.test_generator import needs_compiler
from tests.support.programs import library, program

library("obstore")
library("urllib3")

pytestmark = [pytest.mark.check, pytest.mark.xdist_group("origin engines"), needs_compiler]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    program("weed"), program("nginx")
    monkeypatch.setattr(origins, "_SIZES", dict.fromkeys(origins._SIZES, 200_000))
    monkeypatch.setattr(origins, "_START_CLIENTS", 20)
    monkeypatch.setattr(origins, "_FILL_CLIENTS", 5)
    monkeypatch.setattr(origins, "_WORKERS", (2,))


@pytest.mark.parametrize("name", origins.MEASUREMENTS)
def test_a_measurement_returns_a_table(name):
    table = origins.measure_origins([name], 1, lambda line: None)
    (row,) = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| 2")]
    if "GETs" in table:
        assert row[1].strip() == "1 of 1"
    assert float(row[-1]) > 0
