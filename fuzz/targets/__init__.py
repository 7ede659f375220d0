"""One module for each target: `check(octets)` raises where an invariant does not hold."""

from collections.abc import Callable
from importlib import import_module

Check = Callable[[bytes], None]

# The longest input that each is given, in octets: what is longer tells
# nothing new, and takes its time.
LONGEST = {
    "client": 512,
    "codec": 2048,
    "config": 4096,
    "importing": 2048,
    "messages": 512,
    "names": 300,
    "netascii": 2048,
    "options": 512,
    "pcap": 512,
    "profiles": 2048,
    "rewriting": 1024,
    "server": 512,
    "status": 1024,
    "templates": 1024,
}

NAMES = tuple(LONGEST)


def check_of(name: str) -> Check:
    """The function of the target `name`. Imports what it asks, and no other target."""
    check: Check = import_module(f"fuzz.targets.{name}").check
    return check
