"""The latest upload of each configured device, and the devices that are overdue."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from twisted.logger import Logger

from tftpd.access.client import ClientIdentity, MacAddress
from tftpd.access.paths import PARENT, split_name
from tftpd.access.profiles import compile_globs, matches_globs
from tftpd.config.devices import DeviceSection
from tftpd.net.sockets import client_address
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.status.boots import short_name
from tftpd.status.uploads import DeviceState, format_time

_log = Logger()


@dataclass(frozen=True)
class Device:
    """A device of the configuration."""

    section: DeviceSection

    @cached_property
    def mac(self) -> MacAddress | None:
        """The configured MAC address."""
        text = self.section.mac
        return None if text is None else bytes.fromhex(text.replace(":", "").replace("-", ""))

    @cached_property
    def _globs(self) -> Any:
        return compile_globs(self.section.files) if self.section.files else None

    def has_sent(self, client: ClientIdentity, filename: bytes) -> bool:
        """Return True if an upload of `filename` by `client` is one of this device."""
        network, directory = self.section.network, self.section.directory
        if network is not None:
            if client.address not in network:
                return False
        elif client.mac != self.mac:
            return False
        if directory is not None and _components(filename)[: len(directory)] != directory:
            return False
        return self._globs is None or matches_globs(filename, self._globs)


class DeviceMonitor:
    """Observer of results that finds devices whose upload is overdue.

    Attributes:
        devices: The configured devices by name.
        states: Their states by name.
        changes: Number of changes of states, for those who save them.
    """

    def __init__(
        self,
        find_mac: Callable[[str], MacAddress | None],
        seconds: Callable[[], float],
        report: Callable[[str, dict[str, Any]], None] = lambda *_: None,
    ) -> None:
        """Initialize a monitor without devices.

        Args:
            find_mac: Returns the MAC address of a host.
            seconds: Returns the time in seconds since the epoch.
            report: Called with `device_overdue` or `device_recovered`, and the fields of the event.
        """
        self._find_mac = find_mac
        self._seconds = seconds
        self._report = report
        self.devices: dict[str, Device] = {}
        self.states: dict[str, DeviceState] = {}
        self.changes = 0

    def configure(self, sections: Iterable[DeviceSection]) -> None:
        """Replace the devices; those that stay keep their states."""
        now, before = self._seconds(), self.states
        self.devices = {section.name: Device(section) for section in sections}
        self.states = {name: before.get(name) or DeviceState(now) for name in self.devices}
        self.changes += self.states.keys() != before.keys()

    def restore(self, states: dict[str, DeviceState]) -> None:
        """Continue with the saved states of devices that are still configured."""
        self.states |= {name: state for name, state in states.items() if name in self.devices}

    def __call__(self, result: TransferResult) -> None:
        """Note a stored upload."""
        if result.direction is not Direction.WRITE or result.outcome is not Outcome.DONE:
            return
        host = result.peer[0]
        client = ClientIdentity(client_address(host), lambda: self._find_mac(host))
        for name, device in self.devices.items():
            if device.has_sent(client, result.filename):
                state = self.states[name]
                state.stored, state.bytes = self._seconds(), result.bytes_transferred
                state.file, state.sha256 = short_name(result.filename), result.sha256 or None
                self.changes += 1
        self.check()

    def check(self) -> None:
        """Find the devices that have become overdue, or are no longer overdue."""
        now = self._seconds()
        for name, device in self.devices.items():
            state = self.states[name]
            is_overdue = now > self.due(name)
            if is_overdue != state.is_overdue:
                state.is_overdue = is_overdue
                self.changes += 1
                name, fields = log_device(device.section, state)
                self._report(name, fields)

    def due(self, name: str) -> float:
        """Return the time at which the next upload of a device is due."""
        state = self.states[name]
        last = state.since if state.stored is None else state.stored
        return last + self.devices[name].section.expect_every

    def to_json(self) -> list[dict[str, Any]]:
        """Return the devices for `/status`."""
        return [
            {
                "name": name,
                "network": None if device.section.network is None else str(device.section.network),
                "mac": device.section.mac,
                "overdue": state.is_overdue,
                "time": None if state.stored is None else format_time(state.stored),
                "due": format_time(self.due(name)),
                "expect_every": device.section.expect_every,
                "file": state.file,
                "bytes": state.bytes,
                "sha256": state.sha256,
            }
            for name, device, state in (
                (name, device, self.states[name]) for name, device in self.devices.items()
            )
        ]


def log_device(section: DeviceSection, state: DeviceState) -> tuple[str, dict[str, Any]]:
    """Log that a device has become overdue, or that it has stored a file again.

    Returns:
        The name and the fields of the event.
    """
    fields = {
        "device": section.name,
        "file": state.file,
        "stored": None if state.stored is None else format_time(state.stored),
        "expect_every": section.expect_every,
    }
    if not state.is_overdue:
        name = "device_recovered"
        _log.info("device {device}: uploads again ({file})", event=name, **fields)
        return name, fields
    name = "device_overdue"
    last = "it has stored none yet" if state.stored is None else f"the last one: {state.file}"
    text = "device {device}: no upload for more than {expect_every:g} s ({last})"
    _log.warn(text, event=name, last=last, **fields)
    return name, fields


def _components(filename: bytes) -> tuple[bytes, ...]:
    """Return the components of a requested name, without `..`."""
    components: list[bytes] = []
    try:
        for component in split_name(filename):
            if component != PARENT:
                components.append(component)
            elif components:
                components.pop()
    except RequestRefused:
        return ()
    return tuple(components)
