"""Write the pictures of the README: the status page, and a terminal with real output.

    python docs/pictures.py docs/images

It needs Chromium and ChromeDriver.
"""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.status.pages import SlowReader, web
from tests.support.daemons import CHECKOUT, until

_WIDTH, _HEIGHT = 1200, 760
_BIN = Path(sys.executable).parent
_BLOCK_BYTES = 1000  # of `SlowReader`

_FILES = {"pxelinux.0": 42_864, "grubx64.efi": 90_000, "vmlinuz": 600_000, "initrd.gz": 900_000}
# Address of a client, the files that it reads, and the blocks of the last one; None: all.
_BOOTS: Sequence[tuple[str, str, Sequence[str], int | None]] = (
    ("127.0.0.21", "web1", ("pxelinux.0", "pxelinux.cfg/default", "vmlinuz", "initrd.gz"), None),
    ("127.0.0.22", "web2", ("pxelinux.0", "pxelinux.cfg/default", "vmlinuz"), 380),
    ("127.0.0.23", "db1", ("grubx64.efi", "grub/grub.cfg", "vmlinuz", "initrd.gz"), 250),
    ("127.0.0.24", "lab7", ("bootx64.efi", "bootx64.efi"), None),
    ("127.0.0.25", "lab8", ("grubx64.efi",), 12),
)

_CHAR_WIDTH, _LINE_HEIGHT = 8.4, 19
_COLUMNS = 112
_LINE_SECONDS = 0.25  # between two lines of output
_COMMAND_SECONDS = 1.4  # before a command


def take_screenshot(path: Path) -> None:
    """Write a picture of the status page while machines boot."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    variables = [{"clients": [host], "set": {"hostname": name}} for host, name, _, _ in _BOOTS]
    with TemporaryDirectory() as directory, ExitStack() as stack:
        settings = {"variables": variables, "node": "boot1"}
        served = stack.enter_context(web(Path(directory), **settings))
        root = served.running.root
        for name, size in _FILES.items():
            (root / name).write_bytes(bytes(size))
        for name in ("pxelinux.cfg/default", "grub/grub.cfg"):
            (root / name).parent.mkdir()
            (root / name).write_text("menu\n" * 30)
        for host, _, names, n_blocks in _BOOTS:
            for name in names:
                reader = SlowReader(served.running.port, name.encode(), host=host)
                stack.enter_context(reader)
                is_last = name == names[-1] and n_blocks is not None
                if not reader.refused:
                    reader.read(n_blocks if is_last and n_blocks else 1 + _size(root / name))
        driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        stack.callback(driver.quit)
        metrics = {"width": _WIDTH, "height": _HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(f"http://127.0.0.1:{served.port}/")
        until(lambda: len(driver.find_elements("css selector", "#running progress")) == 3)
        driver.save_screenshot(str(path))


def _size(path: Path) -> int:
    """Return the number of full blocks of a file."""
    return path.stat().st_size // _BLOCK_BYTES


def record_terminal(path: Path) -> None:
    """Write a picture that shows commands and their output one after the other."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "srv").mkdir()
        (directory / "srv/hello.txt").write_text("Hello from tftpd\n")
        server: subprocess.Popen[bytes] | None = None
        lines: list[tuple[float, str, bool]] = []
        seconds = 0.5
        try:
            for command in (
                "tftpd init boot --root srv --address 127.0.0.1 --port 6969 -y -o tftpd.yaml",
                "tftpd run tftpd.yaml &",
                "curl -s tftp://127.0.0.1:6969/hello.txt",
                "tftpc get -v -o /dev/null tftp://127.0.0.1:6969/hello.txt",
                "tftpd explain --client 10.0.0.7 tftpd.yaml grub.cfg",
            ):
                lines.append((seconds, f"$ {command}", True))
                seconds += _COMMAND_SECONDS
                environment = {"PATH": f"{_BIN}:/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT)}
                if command.endswith("&"):
                    log = directory / "log"
                    with log.open("wb") as out:
                        server = subprocess.Popen(
                            command[:-2].split(), cwd=name, env=environment, stderr=out, stdout=out
                        )
                    until(lambda log=log: b"serving on" in log.read_bytes())
                    output = ""
                else:
                    done = subprocess.run(
                        command.split(), cwd=name, env=environment, capture_output=True, text=True
                    )
                    output = (done.stderr + done.stdout).replace(f"{name}/", "")
                for line in output.rstrip().splitlines():
                    if line:
                        lines.append((seconds, line[:_COLUMNS], False))
                        seconds += _LINE_SECONDS
                seconds += _COMMAND_SECONDS
        finally:
            if server is not None:
                server.terminate()
                server.wait()
    path.write_text(_to_svg(lines))


def _to_svg(lines: Sequence[tuple[float, str, bool]]) -> str:
    """Return a picture in which each line appears at its time; without animation all are there."""
    width, height = int(_COLUMNS * _CHAR_WIDTH) + 32, (len(lines) + 1) * _LINE_HEIGHT + 24
    rows = [
        f'<text class="{"command" if is_command else "output"}" x="16" '
        f'y="{16 + (n + 1) * _LINE_HEIGHT}" style="animation-delay:{at:.2f}s">{escape(text)}</text>'
        for n, (at, text, is_command) in enumerate(lines)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="tftpd in a terminal">\n'
        "<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;"
        "white-space:pre;animation:appear .01s both}"
        ".command{fill:#8fd6a0}.output{fill:#d5dad7}@keyframes appear{from{opacity:0}}"
        "@media(prefers-reduced-motion:reduce){text{animation:none}}</style>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#151a18"/>\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    target = Path(sys.argv[1])
    record_terminal(target / "terminal.svg")
    take_screenshot(target / "status.png")
