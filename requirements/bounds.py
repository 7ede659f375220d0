"""Prints the lowest versions that setup.cfg admits, of what runs and of what tests."""

from configparser import ConfigParser
from pathlib import Path

SETUP = Path(__file__).resolve().parent.parent / "setup.cfg"


def required(*extras: str) -> dict[str, str]:
    """What setup.cfg asks for, by name, each as `name>=version` or `name`."""
    setup = ConfigParser()
    setup.read(SETUP)
    sections = [setup["options"]["install_requires"]]
    sections += [setup["options.extras_require"][extra] for extra in extras]
    lines = [line.strip() for section in sections for line in section.splitlines()]
    return {line.partition(">=")[0]: line for line in lines if line and line[0] != "#"}


if __name__ == "__main__":
    for line in required("test", "origins").values():
        print(line.partition(",")[0].replace(">=", "=="))
