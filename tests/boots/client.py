"""One request of a simulated client, from its port: reads or writes with the habits of its family.

    asking --OACK, DATA 1 or ACK 0--> moving --last block--> over
       |                                |
       +-- silence, an ERROR, an OACK that it refuses: over, and `failed` says why

It shares no code with the machines under test: it keeps the faults of its
family instead of mending them.
"""

from collections.abc import Callable
from typing import Any

from tests.boots import packets
from tests.boots.trace import Habits, Step

SILENCE = "silence"  # its own repeats are at an end
CONFUSED = "confused"  # by what came twice, as its family is
MISLED = "misled"  # by a late packet that was for the request before, from the same port
Say = Callable[[bytes, int | None], None]  # a datagram to a port of the server; None: the known one


class Transfer:
    """Says its request at once; `ended` is called when it is over.

    `content` is what goes over the wire, either way, and `octets` what has come
    of it. `failed` is None where all went as the trace has it.
    """

    def __init__(
        self,
        step: Step,
        habits: Habits,
        clock: Any,
        say: Say,
        ended: Callable[["Transfer"], None],
        content: bytes,
    ) -> None:
        self.step, self.habits = step, habits
        self.octets = b""
        self.began = clock.seconds()
        self.over = False
        self.failed: str | None = None
        self.quiet = 0.0  # seconds of silence at its end
        self.patience = sum(habits.request)  # how long it bears silence
        self._clock, self._say, self._ended = clock, say, ended
        self._content = content
        self._offset = 0  # octets of it that were sent
        self._misled = self._skipped = False
        self._tid: int | None = None
        self._moving = False
        self._blksize, self._window = 512, 1
        self._block = 0  # the last one in order, or of an upload the one that is sent
        self._acked = 0
        self._told: int | None = None  # the gap that was told, once
        self._waits: list[float] = list(habits.request)
        self._last = step.request
        self._timer: Any = None
        self._progress_at = clock.seconds()
        self._send(step.request)
        self._wait()

    def hears(self, datagram: bytes, port: int, since: float) -> None:
        """A datagram came from this port of the server, in use since then."""
        if self.over:
            return  # its port is closed
        if self._tid is not None and port != self._tid and self.habits.tid == "first":
            return
        self._tid = port
        self._misled = self._misled or since < self.began
        kind = packets.opcode(datagram)
        if kind == "ERROR":
            wanted = self.step.misses
            self._end(None if wanted else CONFUSED if self._skipped else packets.written(datagram))
        elif self._stops_at(datagram):
            self._say(self.step.abort or b"", self._tid)
            self._end(None)
        elif kind == "OACK":
            self._take_oack(datagram)
        elif self.step.writes and kind == "ACK":
            self._take_ack(packets.number(datagram))
        elif kind == "DATA" and not self.step.writes:
            self._take_data(packets.number(datagram), datagram[4:])

    def _stops_at(self, datagram: bytes) -> bool:
        if self.step.abort is None:
            return False
        return packets.written(datagram).split(" ")[: self.step.abort_at.count(" ") + 1] == (
            self.step.abort_at.split(" ")
        )

    def _take_oack(self, datagram: bytes) -> None:
        if self._moving and (self._block or self.habits.oack_again == "confused"):
            self._take_late_oack()
            return
        fault = self._fault(packets.options(datagram))
        if fault is not None:
            error = packets.octets(self.habits.refuses[fault])
            self._say(error, self._tid)
            self._end(f"refuses the OACK: {fault}")
            return
        agreed = packets.options(datagram)
        self._blksize = int(agreed.get("blksize", 512))
        self._window = int(agreed.get("windowsize", 1))
        self._move()
        if self.step.writes:
            self._write()
        else:
            self._ack()

    def _fault(self, agreed: dict[str, str]) -> str | None:
        asked = packets.options(self.step.request)
        faults = {
            "unasked": not set(agreed) <= set(asked),
            "larger": any(
                int(agreed[name]) > int(asked[name])
                for name in ("blksize", "windowsize")
                if name in agreed and name in asked
            ),
            "timeout": agreed.get("timeout", asked.get("timeout")) != asked.get("timeout"),
            "empty": agreed.get("tsize") == "0" and not self.step.writes,
        }
        return next((fault for fault in self.habits.refuses if faults[fault]), None)

    def _take_late_oack(self) -> None:
        match self.habits.oack_again:
            case "acks" if not self.step.writes:
                self._send(packets.block("ACK", 0))
            case "restarts" if self.step.writes:
                self._block, self._skipped = 0, True
                self._write()  # from where it is in its file
            case "restarts":
                self._block = self._acked = 0
                self.octets = b""
                self._ack()
            case "fails" | "confused":
                self._end(CONFUSED)

    def _take_data(self, number: int, payload: bytes) -> None:
        if not self._moving:
            if self.habits.needs_oack:
                return
            self._move()
        expected = (self._block + 1) & 0xFFFF
        if number == expected:
            self._block += 1
            self.octets += payload
            self._progress()
            if len(payload) < self._blksize:
                self._ack()
                self._end(None)
            elif self._block - self._acked >= self._window:
                self._ack()
        elif number < expected:
            self._take_again(number)
        else:
            self._take_beyond()

    def _take_again(self, number: int) -> None:
        match self.habits.duplicate:
            case "acks":
                self._send(self._padded(packets.block("ACK", number)))
            case "last" if number == self._block:
                self._ack()
            case "always-last":
                self._ack()
            case "once":
                self._take_beyond()
            case "confused":
                self._say(packets.block("ACK", self._block + 1), self._tid)
                self._end(CONFUSED)

    def _take_beyond(self) -> None:
        match self.habits.beyond:
            case "last":
                self._ack()
            case "once" if self._told != self._block:
                self._told = self._block
                self._ack()
            case "fails":
                self._end(CONFUSED)

    def _take_ack(self, number: int) -> None:
        if number != self._block & 0xFFFF:
            if self._block and self.habits.ack_again == "sends":
                self._send(self._last)
            return
        if number == 0 and self.habits.needs_oack:
            return
        self._move()
        self._progress()
        if self._block and len(self._last) < 4 + self._blksize:
            self._end(None)
        else:
            self._write()

    def _write(self) -> None:
        """The next block of an upload."""
        self._block += 1
        payload = self._content[self._offset : self._offset + self._blksize]
        self._offset += len(payload)
        self._send(packets.block("DATA", self._block & 0xFFFF, payload))

    def _ack(self) -> None:
        self._acked = self._block
        self._send(self._padded(packets.block("ACK", self._block & 0xFFFF)))

    def _padded(self, ack: bytes) -> bytes:
        return ack.ljust(self.habits.pads, b"\0")

    def _send(self, datagram: bytes) -> None:
        self._last = datagram
        self._say(datagram, self._tid)

    def _move(self) -> None:
        if not self._moving:
            self._moving = True
            self._waits = list(self.habits.block)
            self.patience = sum(self._waits)
            self._progress_at = self._clock.seconds()
            self._wait()

    def _progress(self) -> None:
        self._progress_at = self._clock.seconds()
        if self.habits.counts == "each":
            self._waits = list(self.habits.block)
        self._wait()

    def _wait(self) -> None:
        self._stop()
        if not self._waits:
            self._silent()
            return
        self._timer = self._clock.callLater(self._waits[0], self._expired)

    def _expired(self) -> None:
        self._timer = None
        del self._waits[0]
        if self._waits and not (self._moving and self._holds()):
            self._say(self._last, self._tid)
        self._wait()

    def _holds(self) -> bool:
        """Return True if the block may still be repeated by this habit."""
        gone = len(self.habits.block) - len(self._waits)
        return not self.habits.repeats_blocks or gone <= self.habits.holds

    def _silent(self) -> None:
        self.quiet = self._clock.seconds() - self._progress_at
        self._end(SILENCE)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, failed: str | None) -> None:
        self._stop()
        self.over = True
        reads = not (self.step.writes or self.step.misses or self.step.abort)
        wrong = failed is not None or (reads and self.octets != self._content)
        self.failed = MISLED if self._misled and wrong else failed
        self._ended(self)
