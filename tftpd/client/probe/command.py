"""The `tftpc probe` command: runs a probe and prints the report.

Exit statuses: 0 nothing found that prevents boots, 1 such a problem was found, 3 file not found,
4 refused, 5 no answer.
"""

import sys
from argparse import Namespace
from functools import partial
from typing import Any

from twisted.internet.threads import deferToThreadPool

from tftpd.client.blocking import BlockingDriver
from tftpd.client.endpoint import resolve_server
from tftpd.client.errors import ExitStatus, LocalError, exit_status_after
from tftpd.client.jobs import RemoteFile
from tftpd.client.probe import observations as obs
from tftpd.client.probe.exchange import ProbeTarget
from tftpd.client.probe.findings import Finding, Level, derive_findings
from tftpd.client.probe.report import format_json, format_report
from tftpd.client.probe.runner import Probe
from tftpd.net.interfaces import MonotonicClock, SessionRuntime
from tftpd.net.udp import open_session_port
from tftpd.protocol.errors import server_error_class

_CLEAR_LINE = "\r\x1b[K"


def create_runtime(reactor: Any) -> SessionRuntime:
    """Return the clock, UDP ports and thread pool of a reactor."""
    in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    return SessionRuntime(MonotonicClock(reactor), partial(open_session_port, reactor), in_thread)


async def run_probe(reactor: Any, arguments: Namespace, remote: RemoteFile) -> int:
    """Probe a server, print the report, and return the exit status.

    Args:
        reactor: The Twisted reactor.
        arguments: The parsed command line.
        remote: The file to request.
    """
    runtime = create_runtime(reactor)
    port = remote.port or arguments.port
    show_steps = sys.stderr.isatty() and not arguments.json

    def print_step(step: str) -> None:
        if show_steps:
            print(f"{_CLEAR_LINE}testing: {step}", end="", file=sys.stderr, flush=True)

    try:
        server = await runtime.in_thread(lambda: resolve_server(remote.host, port, arguments.local))
        if server.broadcast:
            raise LocalError(f"{remote.host} is a broadcast or multicast address: probe one server")
        target = ProbeTarget(
            runtime,
            server,
            remote.name,
            lambda transfer: runtime.in_thread(lambda: BlockingDriver(transfer).run()),
        )
        observed = await Probe(target, remote.host, arguments.idle_timeout, print_step).run()
    except LocalError as error:
        print(f"tftpc: {error}", file=sys.stderr)
        return ExitStatus.FAILED
    finally:
        if show_steps:
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)
    findings = derive_findings(observed)
    status = exit_status(observed, findings)
    report = format_json(observed, findings, status)
    print(report if arguments.json else format_report(observed, findings))
    return status


def exit_status(observed: obs.Observations, findings: tuple[Finding, ...]) -> ExitStatus:
    """Return the exit status of a probe."""
    answer = observed.answer
    if answer.kind is obs.AnswerKind.NOTHING and not answer.malformed:
        return ExitStatus.TIMED_OUT
    if answer.kind is obs.AnswerKind.ERROR:
        return exit_status_after(server_error_class(answer.code))
    is_broken = any(finding.level is Level.BREAKS for finding in findings)
    return ExitStatus.FAILED if is_broken else ExitStatus.DONE
