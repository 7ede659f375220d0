"""The trees and the settings that the clients of a soak ask of."""

import json
from dataclasses import dataclass
from pathlib import Path

from bench.measure import provide
from bench.servers import HOST

SIZES = (0, 1, 511, 512, 513, 1468, 20_000, 150_000, 1_000_000, 5_000_000)
ROLLS_OVER = 600_000  # octets: in blocks of 8 more than 65,536 of them
LARGE = 150_000  # octets; what is larger takes its time
OWN = 10  # clients that have directories of their own

PASSING = "127.0.2.1"  # where nobody else is, while the listener is not

_QUOTA = 3 << 20


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the daemon is asked: directly, in single-port mode, through a bad line, and at a
    listener that comes and goes."""

    direct: int
    single: int
    relay: int
    passing: int


@dataclass(frozen=True, slots=True)
class Trees:
    """What is served, beneath one directory."""

    base: Path

    def make(self) -> None:
        """Make it: files for reading, and room for uploads."""
        for name in ("files", "boot", "incoming", "bounded", "own/default"):
            (self.base / name).mkdir(parents=True)
        for size in (*SIZES, ROLLS_OVER):
            provide(self.base / f"files/{size}", size)
        provide(self.base / "boot/Kernel.IMG", LARGE)
        provide(self.base / "own/default/config", 1468)
        for number in range(OWN):
            own = self.base / "own" / source(number)
            own.mkdir()
            provide(own / "config", 2000 + number)

    def settings(
        self, ports: Ports, status: Path, patience: float, workers: int, passing: bool
    ) -> str:
        """The configuration; JSON is YAML. With `passing` one more address is listened on."""
        listen = [
            {"address": HOST, "port": ports.direct},
            {"address": HOST, "port": ports.single, "mode": "single-port"},
        ]
        if passing:
            listen.append({"address": PASSING, "port": ports.passing})
        put = {"create": True, "overwrite": True}
        bounds = {"quota": _QUOTA, "max_files": 40, "min_free": 1 << 20}
        directories = [
            {"path": "/", "root": str(self.base / "files"), "read": True},
            {"path": "/boot", "root": str(self.base / "boot"), "read": True},
            {"path": "/own", "root": self._own_roots(), "read": True},
            {"path": "/in", "root": str(self.base / "incoming"), "read": True, "write": put},
            {"path": "/bounded", "root": str(self.base / "bounded"), "write": put | bounds},
        ]
        document = {
            "listen": listen,
            "directories": directories,
            "names": {"ladder": ["drive", "trailing", "encoding", "prefix", "case"]},
            "rewrite": [{"match": "^once/upon/", "to": ""}],
            "limits": {"requests_per_second": 5000, "sessions_per_client": 2000},
            "retransmit": {"patience": patience, "dally": min(12.0, patience)},
            "workers": workers,
            "status": {"socket": str(status)},
        }
        return json.dumps(document, indent=1)

    def _own_roots(self) -> list[str]:
        return [str(self.base / "own/{ip}"), str(self.base / "own/default")]


def source(number: int) -> str:
    """The address of a client."""
    return f"127.0.1.{number + 1}"
