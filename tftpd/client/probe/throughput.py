"""How fast a file comes on given terms, by the beginning of it and the client's own machines."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.errors import LocalError
from tftpd.client.handshake import DownloadSession
from tftpd.client.probe.observations import ThroughputSample
from tftpd.net.interfaces import Clock, PortRequirements, SessionRuntime
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.negotiation import Direction, TransferOptions
from tftpd.protocol.packets import HEADER_BYTES
from tftpd.protocol.request import TransferRequest
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy

OCTETS = 8 << 20
SECONDS = 1.0

_LONGEST_ANSWER = 1024
_DALLY = 0.25  # seconds; a server that missed the last ACK of a sample may give it up


class CountingSink:
    """Counts the octets that come and keeps none; has enough at `most` of them."""

    def __init__(self, clock: Clock, most: int) -> None:
        self.octets = 0
        self.seconds = 0.0  # from the terms to the last block
        self._now = clock.seconds
        self._began = clock.seconds()
        self._most = most

    def append(self, payloads: Sequence[bytes]) -> None:
        """Count them; raises `Refused` when it has enough."""
        self.octets += sum(map(len, payloads))
        self.seconds = self._now() - self._began
        if self.octets >= self._most:
            raise RequestRefused(ErrorCode.NOT_DEFINED, text=ErrorText.CLIENT_DONE)

    def flush_if_full(self) -> None:
        """There is nothing to write."""

    def commit(self) -> None:
        """There is nothing to keep."""

    def discard(self) -> None:
        """There is nothing to remove."""


class _Sampling:
    """One transfer that is ended when enough of it has come, or enough time has passed."""

    def __init__(
        self,
        runtime: SessionRuntime,
        server: ServerEndpoint,
        wish: TransferRequest,
        timing: RetransmitPolicy,
    ) -> None:
        self._clock = runtime.clock
        self._wish = wish
        self._counter = CountingSink(runtime.clock, OCTETS)
        self.session = DownloadSession(runtime, wish, timing, server, self._on_report)
        self.session.attach(self._open)
        self.done: Deferred[TransferResult] = Deferred(self._cancel)

    def sample(self, report: TransferResult) -> ThroughputSample:
        """What came of it."""
        enough = report.code == ErrorCode.NOT_DEFINED and report.outcome in _ENDED_BY_US
        broke = report.outcome is not Outcome.DONE and not enough
        # What never began was on no terms: it is told by what was asked.
        terms = self._wish if broke else report
        return ThroughputSample(
            blksize=terms.blksize,
            windowsize=terms.windowsize,
            octets=self._counter.octets,
            seconds=self._counter.seconds,
            retransmits=report.retransmits,
            whole=report.outcome is Outcome.DONE,
            problem=(report.detail or report.outcome.value) if broke else "",
        )

    def enough(self) -> None:
        """The time is over."""
        self.session.stop(Outcome.STOPPED, ErrorText.CLIENT_DONE)

    def _open(self, terms: TransferOptions) -> CountingSink:
        self._counter = CountingSink(self._clock, OCTETS)
        return self._counter

    def _on_report(self, report: TransferResult) -> None:
        # Not at once: a session reports before it has given up its port.
        self._clock.callLater(0, partial(self._finish, report))

    def _finish(self, report: TransferResult) -> None:
        if not self.done.called:
            self.done.callback(report)

    def _cancel(self, _: Any) -> None:
        self.session.stop(Outcome.STOPPED, ErrorText.CANCELLED)


async def sample(
    runtime: SessionRuntime,
    server: ServerEndpoint,
    name: bytes,
    blksize: int,
    windowsize: int,
    patience: float,
) -> ThroughputSample:
    """How the file comes on these terms. Raises `LocalError`."""
    wish = TransferRequest(Direction.READ, name, blksize=blksize, windowsize=windowsize)
    sampling = _Sampling(
        runtime, server, wish, RetransmitPolicy(idle_timeout=patience, dally=_DALLY)
    )
    session = sampling.session
    longest = max(_LONGEST_ANSWER, blksize + HEADER_BYTES + 1)  # one more shows an overlong one
    try:
        runtime.open_port(
            session, server.local, PortRequirements(longest, windowsize * longest, True)
        )
    except OSError as error:
        session.abandon()
        raise LocalError(f"no port: {error.strerror}") from error
    alarm = runtime.clock.callLater(SECONDS, sampling.enough)
    try:
        session.begin()
        return sampling.sample(await sampling.done)
    finally:
        if alarm.active():
            alarm.cancel()


_ENDED_BY_US = (Outcome.STOPPED, Outcome.FAILED)
