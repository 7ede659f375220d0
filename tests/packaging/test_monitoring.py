"""The dashboard and the alert rules of share/monitoring."""

import json
import re
import subprocess

import pytest
import yaml

from tests.status.pages import web
from tests.support.daemons import CHECKOUT
from tests.support.programs import program

MONITORING = CHECKOUT / "share/monitoring"
RULES = MONITORING / "rules.yaml"
DASHBOARD = MONITORING / "dashboard.json"
METRIC = re.compile(r"\b(?:tftpd|process)_\w+")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("", "_total"), "info": ("",)}

RULE_TESTS = """\
rule_files: [{rules}]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - {{series: 'tftpd_build_info{{node="a"}}', values: '1x60'}}
      - {{series: 'tftpd_config_last_reload_successful{{node="a"}}', values: '1x10 0x20 1x20'}}
      - {{series: 'tftpd_config_last_reload_successful{{node="b"}}', values: '1x60'}}
      - {{series: 'tftpd_transfers_total{{node="a",outcome="done"}}', values: '0+90x60'}}
      - {{series: 'tftpd_transfers_total{{node="a",outcome="timed_out"}}', values: '0+10x60'}}
      - {{series: 'tftpd_transfers_total{{node="b",outcome="done"}}', values: '0+99x60'}}
      - {{series: 'tftpd_transfers_total{{node="b",outcome="failed"}}', values: '0+1x60'}}
    alert_rule_test:
      - {{eval_time: 4m, alertname: TftpdReloadFailed, exp_alerts: []}}
      - {{eval_time: 20m, alertname: TftpdReloadFailed, exp_alerts: []}}
      - {{eval_time: 20m, alertname: TftpdAbsent, exp_alerts: []}}
      - eval_time: 8m
        alertname: TftpdReloadFailed
        exp_alerts:
          - exp_labels: {{severity: warning, node: a}}
            exp_annotations:
              summary: "a: the configuration has a problem; the older one is in use."
              description: The log has an event reload_failed for each problem.
      - eval_time: 25m
        alertname: TftpdTransfersFail
        exp_alerts:
          - exp_labels: {{severity: warning, node: a}}
            exp_annotations: {{summary: "a: 10% of the transfers break."}}
"""


def read_rules():
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return group["rules"]


def read_queries():
    """Return the expressions of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """Return the names of all samples that /metrics can have."""
    with web(tmp_path_factory.mktemp("daemon")) as page:
        text = page.request("/metrics")[2].decode()
    families = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    return {name + suffix for name, kind in families for suffix in SUFFIXES.get(kind, ("",))}


def test_every_metric_of_the_rules_and_the_dashboard_exists(metrics):
    for source in (RULES.read_text(), "\n".join(read_queries())):
        named = set(METRIC.findall(source))
        assert len(named) > 10
        assert named <= metrics


def test_the_panels_have_a_query_and_a_place_of_their_own():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["targets"] for panel in panels if panel["type"] != "row")


def test_a_failed_reload_is_an_alert():
    expressions = {rule["alert"]: rule["expr"] for rule in read_rules()}
    assert expressions["TftpdReloadFailed"] == "tftpd_config_last_reload_successful == 0"


@pytest.mark.check
def test_prometheus_accepts_the_rules(tmp_path):
    check("check", "rules", str(RULES))
    file = tmp_path / "tests.yaml"
    file.write_text(RULE_TESTS.format(rules=RULES))
    check("test", "rules", str(file))


@pytest.mark.check
def test_prometheus_accepts_the_queries_of_the_dashboard(tmp_path):
    rules = [
        {"record": f"query:{n}", "expr": query.replace("$__rate_interval", "1m")}
        for n, query in enumerate(read_queries())
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    check("check", "rules", str(file))


def check(*arguments):
    """Let promtool check a file."""
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
