"""Whether the kernel knows the way to a file without asking a disk.

Linux tells by openat2(2) with RESOLVE_CACHED (since 5.12), which goes the way
only as far as it is in memory. That costs some 3 us, a disk thousands, and a
server of files that is down for ever. It says nothing of leave: whoever then
opens the file goes every step with care.
"""

import ctypes
import errno
import os
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from tftpd.access.paths import Name

_OPENAT2 = 437  # on all processors but Alpha
_AT_FDCWD = -100
_RESOLVE_CACHED, _RESOLVE_BENEATH = 0x20, 0x08

_KNOWN_FOR = 1.0  # seconds; memory that short of room has other worries
_MOST_KNOWN = 4096
_DEEPEST_KNOWN = 32  # steps of a name: a hostile one has thousands, of 40 octets each


class _How(ctypes.Structure):
    """struct open_how of <linux/openat2.h>."""

    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


class WouldBlock(Exception):
    """It would take its time; the arguments are a root, and perhaps a name, that it hangs on."""

    @property
    def needs_render(self) -> bool:
        """Whether it is one file that takes long, since it is to be made first."""
        return len(self.args) > 1


def _syscall() -> Any:
    # It keeps the interpreter's lock: the call never waits, and giving the
    # lock away would have us wait for whoever takes it.
    call = ctypes.PyDLL(None, use_errno=True).syscall
    call.argtypes = (
        ctypes.c_long,
        ctypes.c_long,
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
    )
    call.restype = ctypes.c_long
    return call


class DentryCache:
    """The kernel's memory of names, where there is one that can be asked."""

    def __init__(self) -> None:
        linux = sys.platform.startswith("linux") and os.uname().machine != "alpha"
        self._call = _syscall() if linux else None
        self._anywhere = _how(_RESOLVE_CACHED)
        self._beneath = _how(_RESOLVE_CACHED | _RESOLVE_BENEATH)
        self._known: set[tuple[Path, Name, bool]] = set()
        self._until = 0.0  # when that is to be asked again

    def is_cached(self, root: Path, name: Name, follows: bool = True) -> bool:
        """Whether it is known at once what is at `name` beneath `root`, or that nothing is.

        False where the kernel cannot be asked: then nothing is known at once.
        What it knew a moment ago it is not asked again. Unless it `follows` links
        out of the root, nothing is known over one: how soon the refusal comes must
        not tell what is in memory there.
        """
        if self._call is None:
            return False
        now = monotonic()
        if now > self._until or len(self._known) > _MOST_KNOWN:
            self._known.clear()
            self._until = now + _KNOWN_FOR
        way = root, name, follows
        if way in self._known:
            return True
        if not self._ask(root, name, follows):
            return False
        if len(name) <= _DEEPEST_KNOWN:
            self._known.add(way)
        return True

    def _ask(self, root: Path, name: Name, follows: bool) -> bool:
        path = b"/".join((os.fsencode(root), *name))
        if b"\0" in path:
            return True  # nothing can be there
        if follows or not name:
            return self._has(self._open(_AT_FDCWD, path, self._anywhere))
        top = self._open(_AT_FDCWD, os.fsencode(root), self._anywhere)
        if top < 0:
            return self._has(top)
        try:
            return self._has(self._open(top, b"/".join(name), self._beneath))
        finally:
            os.close(top)

    def _open(self, where: int, path: bytes, how: _How) -> int:
        """A descriptor, or what is wrong as a negative number."""
        call = self._call
        if call is None:  # another thread has just learnt it
            return -errno.EAGAIN
        fd: int = call(_OPENAT2, where, path, ctypes.byref(how), ctypes.sizeof(how))
        return fd if fd >= 0 else -ctypes.get_errno()

    def _has(self, fd: int) -> bool:
        if fd >= 0:
            os.close(fd)
            return True
        if -fd in (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG):
            # An old kernel, or a filter of system calls, as old container
            # runtimes have: neither learns meanwhile.
            self._call = None
            return False
        return -fd not in (errno.EAGAIN, errno.EXDEV)


def _how(resolve: int) -> _How:
    return _How(getattr(os, "O_PATH", 0) | os.O_CLOEXEC, 0, resolve)
