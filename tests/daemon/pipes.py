"""Transport of a process of the daemon, for tests without processes."""


class Pipe:
    """Pipes to a process. They record messages and signals."""

    pid = 4711

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.signals: list[str] = []

    def write(self, data: bytes) -> None:
        """Twisted: send a part of a message."""
        self.messages.append(data)

    def signalProcess(self, name: str) -> None:
        """Twisted: send a signal."""
        self.signals.append(name)

    def closeStdin(self) -> None:
        """Twisted: close the pipe to the process."""

    def loseConnection(self) -> None:
        """Twisted: close all pipes."""
        self.signals.append("CLOSE")
