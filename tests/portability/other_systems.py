"""Emulation of macOS and of Windows on Linux: a program runs without the names that they lack.

    python -m tests.portability.other_systems darwin pytest tests/net
    python -m tests.portability.other_systems win32 tftpd.client.cli get tftp://192.0.2.1/f

Modules of the standard library and of Twisted that decide by the system when they are imported
are imported first. Then names are deleted, and `sys.platform` is changed. System calls that exist
with other rules raise the errors of the other system.
"""

import asyncio  # noqa: F401
import builtins
import ctypes
import errno
import functools
import importlib
import io
import multiprocessing.util  # noqa: F401
import os
import runpy
import select
import selectors
import shutil  # noqa: F401
import signal
import socket
import subprocess  # noqa: F401
import sys
import sysconfig
import tempfile
import time
import types
import zoneinfo  # noqa: F401

import twisted.internet._signals
import twisted.internet.fdesc
import twisted.internet.process
import twisted.internet.selectreactor
import twisted.internet.threads
import twisted.internet.unix

LINUX_NAMES = {
    os: (
        *("sched_getaffinity", "sched_setaffinity", "memfd_create", "pidfd_open", "getrandom"),
        *("posix_fallocate", "fdatasync", "copy_file_range", "splice", "eventfd", "accept4"),
        *("getxattr", "setxattr", "listxattr", "removexattr", "O_PATH", "O_TMPFILE", "O_NOATIME"),
        *("O_DIRECT", "RWF_NOWAIT", "RWF_HIPRI", "RWF_DSYNC", "RWF_SYNC", "setresuid", "setns"),
        *("getresuid", "unshare", "posix_fadvise", "waitid_pidfd", "P_PIDFD"),
    ),
    select: ("epoll", "EPOLLIN", "EPOLLOUT", "EPOLLERR", "EPOLLHUP", "EPOLLET", "EPOLLEXCLUSIVE"),
    socket: (
        *("SOCK_NONBLOCK", "SOCK_CLOEXEC", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "MSG_ERRQUEUE"),
        *("SO_PEERCRED", "SO_BINDTODEVICE", "SO_MARK", "SO_RXQ_OVFL", "IP_PKTINFO", "AF_ALG"),
        *("SO_INCOMING_CPU", "SO_PEERSEC", "IP_BIND_ADDRESS_NO_PORT", "NETLINK_ROUTE"),
    ),
    signal: ("sigwaitinfo", "sigtimedwait", "SIGPWR", "SIGSTKFLT", "pidfd_send_signal"),
    time: ("CLOCK_BOOTTIME", "CLOCK_TAI", "pthread_getcpuclockid"),
}
"""Names of the standard library that macOS lacks."""

POSIX_NAMES = {
    os: (
        *(
            "O_NOFOLLOW",
            "O_DIRECTORY",
            "O_NONBLOCK",
            "O_NOCTTY",
            "O_CLOEXEC",
            "O_SYNC",
            "O_ACCMODE",
        ),
        *(
            "geteuid",
            "getuid",
            "getegid",
            "getgid",
            "getgroups",
            "fork",
            "fchmod",
            "fchown",
            "chown",
        ),
        *("lchown", "mkfifo", "preadv", "pwritev", "readv", "writev", "pread", "pwrite", "statvfs"),
        *("fstatvfs", "uname", "setsid", "killpg", "getpgid", "register_at_fork", "sendfile"),
        *("sync", "fchdir", "ttyname", "openpty", "nice", "wait3", "WNOHANG"),
    ),
    select: ("poll", "POLLIN", "POLLOUT", "POLLERR"),
    socket: (
        *("AF_UNIX", "SO_REUSEPORT", "CMSG_SPACE", "CMSG_LEN", "MSG_DONTWAIT", "MSG_NOSIGNAL"),
        *("socketpair_unix", "send_fds", "recv_fds", "SCM_RIGHTS", "IPV6_RECVPKTINFO"),
    ),
    signal: ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGQUIT", "alarm"),
    time: ("clock_gettime", "clock_gettime_ns", "CLOCK_MONOTONIC", "tzset"),
}
"""Names of the standard library that Windows lacks, besides those of `LINUX_NAMES`."""

POSIX_MODULES = {"fcntl", "grp", "pwd", "resource", "readline", "syslog", "termios", "tty"}

# IP_PKTINFO, IP_MTU_DISCOVER, IP_RECVERR, IP_MTU; the last three of IPv6; UDP_SEGMENT, UDP_GRO.
_LINUX_OPTIONS = {
    socket.IPPROTO_IP: {8, 10, 11, 14},
    socket.IPPROTO_IPV6: {23, 24, 25},
    socket.IPPROTO_UDP: {103, 104},
}
_DIR_FD_FUNCTIONS = (
    *("open", "stat", "access", "unlink", "rename", "replace", "mkdir", "readlink", "link"),
    *("chmod", "utime", "rmdir", "symlink"),
)


def emulate_macos() -> None:
    """Let this process run as on macOS."""
    _delete(LINUX_NAMES)
    tempfile._O_TMPFILE_WORKS = False
    selectors.DefaultSelector = selectors.PollSelector
    _hide_proc()
    _hide_linux_sockets()
    _report_destinations()
    for name in ("renameat2", "syscall", "prctl"):
        _hide_symbol(name)
    sys.platform = "darwin"


def emulate_windows() -> None:
    """Let this process run as on Windows, as far as the client can notice."""
    posix_socket = socket.socket
    # The reactor remains that of Linux.
    twisted.internet.fdesc.os = types.SimpleNamespace(**vars(os))
    twisted.internet._signals.signal = types.SimpleNamespace(**vars(signal))
    for names in POSIX_NAMES[socket], LINUX_NAMES[socket]:
        for name in names:
            vars(socket).pop(name, None)
    _hide_proc()
    _hide_linux_sockets()
    for name in ("recvmsg", "recvmsg_into", "sendmsg"):
        setattr(posix_socket, name, property(_raise_attribute_error))
    _report_icmp_errors()
    _hide_modules()
    for function in _DIR_FD_FUNCTIONS:
        _forbid_directory_descriptors(function)
    os.supports_dir_fd.clear()
    for function in ("replace", "rename", "unlink", "remove"):
        _forbid_open_files(function)
    _delete(LINUX_NAMES)
    _delete(POSIX_NAMES)
    tempfile.TemporaryFile = tempfile.NamedTemporaryFile
    sys.platform = "win32"


def _delete(names: dict) -> None:
    for module, absent in names.items():
        for name in absent:
            vars(module).pop(name, None)


def _hide_proc() -> None:
    """Make all files below /proc absent for Python code."""

    def hide(module: object, name: str) -> None:
        original = getattr(module, name)

        @functools.wraps(original)
        def absent(path, *arguments, **options):
            text = path if isinstance(path, str) else None
            if isinstance(path, (bytes, os.PathLike)):
                text = os.fsdecode(path)
            if text is not None and text.split("/")[:2] == ["", "proc"]:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)
            return original(path, *arguments, **options)

        setattr(module, name, absent)
        for functions in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            if original in functions:
                functions.add(absent)

    for name in ("open", "readlink", "stat", "listdir", "scandir"):
        hide(os, name)
    for module in (builtins, io):
        hide(module, "open")


def _hide_symbol(name: str) -> None:
    """Make a function of the C library absent for ctypes."""
    original = ctypes.CDLL.__getattr__

    def find(library, symbol):
        if symbol == name:
            raise AttributeError(symbol)
        return original(library, symbol)

    ctypes.CDLL.__getattr__ = find


def _hide_linux_sockets() -> None:
    """Refuse the socket options of Linux, and a second socket on a UDP port."""
    set_option, bind = socket.socket.setsockopt, socket.socket.bind

    def setsockopt(self, level, option, *value):
        if option in _LINUX_OPTIONS.get(level, ()):
            raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
        return set_option(self, level, option, *value)

    def bind_alone(self, address):
        if self.type == socket.SOCK_DGRAM:
            _refuse_second_socket(self, address)
        return bind(self, address)

    socket.socket.setsockopt = setsockopt
    socket.socket.bind = bind_alone


def _refuse_second_socket(sock: socket.socket, address: tuple) -> None:
    """Raise EADDRINUSE if the same address is bound: there SO_REUSEADDR does not allow it."""
    if address[1]:
        with socket.socket(sock.family, socket.SOCK_DGRAM) as other:
            type(other).__bases__[0].bind(other, address)


def _report_destinations() -> None:
    """Emulate IP_RECVDSTADDR by IP_PKTINFO."""
    socket.IP_RECVDSTADDR = 7
    set_option, base = socket.socket.setsockopt, socket.socket.__bases__[0]

    def setsockopt(self, level, option, *value):
        if (level, option) == (socket.IPPROTO_IP, socket.IP_RECVDSTADDR):
            return base.setsockopt(self, level, 8, *value)
        return set_option(self, level, option, *value)

    def recvmsg(self, *arguments):
        data, ancillary, flags, peer = base.recvmsg(self, *arguments)
        ancillary = [
            (level, 7, value[8:])
            if (level, kind) == (socket.IPPROTO_IP, 8)
            else (level, kind, value)
            for level, kind, value in ancillary
        ]
        return data, ancillary, flags, peer

    socket.socket.setsockopt, socket.socket.recvmsg = setsockopt, recvmsg


def _raise_attribute_error(sock: socket.socket) -> None:
    raise AttributeError


def _report_icmp_errors() -> None:
    """Make reads raise `ConnectionResetError` after any ICMP error: Linux does with IP_RECVERR."""
    base = socket.socket.__bases__[0]
    create = socket.socket.__init__

    def initialize(self, *arguments, **options):
        create(self, *arguments, **options)
        if self.type == socket.SOCK_DGRAM and self.family == socket.AF_INET:
            base.setsockopt(self, socket.IPPROTO_IP, 11, 1)

    def reset(name):
        original = getattr(base, name)

        def read(self, *arguments):
            try:
                return original(self, *arguments)
            except ConnectionRefusedError as error:
                raise ConnectionResetError(errno.ECONNRESET, "WSAECONNRESET") from error

        setattr(socket.socket, name, read)

    socket.socket.__init__ = initialize
    for name in ("recvfrom", "recv"):
        reset(name)


def _hide_modules() -> None:
    """Make modules absent for imports by our code."""
    original = builtins.__import__

    def find(name, variables=None, *arguments, **options):
        if name in POSIX_MODULES and (variables or {}).get("__name__", "").startswith("tftpd"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, variables, *arguments, **options)

    builtins.__import__ = find


def _forbid_directory_descriptors(name: str) -> None:
    original = getattr(os, name)

    @functools.wraps(original)
    def call(*arguments, **options):
        for option in ("dir_fd", "src_dir_fd", "dst_dir_fd", "effective_ids"):
            if options.get(option) not in (None, False):
                raise NotImplementedError(f"{option} unavailable on this platform")
        return original(*arguments, **options)

    setattr(os, name, call)


def _forbid_open_files(name: str) -> None:
    """Raise `PermissionError` for a file that this process has open."""
    original = getattr(os, name)
    list_files, read_link = _real_listdir, _real_readlink

    @functools.wraps(original)
    def call(path, *arguments, **options):
        real = os.path.realpath(os.fsdecode(path))
        for fd in list_files("/proc/self/fd"):
            try:
                is_open = read_link(f"/proc/self/fd/{fd}") == real
            except OSError:
                continue
            if is_open:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return original(path, *arguments, **options)

    setattr(os, name, call)


_real_listdir, _real_readlink = os.listdir, os.readlink


def main() -> None:
    """Emulate a system, and run a module as `python -m` does."""
    _, system, module, *arguments = sys.argv
    twisted.internet.selectreactor.install()
    sysconfig.get_config_vars()
    if "pytest" in module:
        importlib.import_module("pytest")
        importlib.import_module("hypothesis")
    {"darwin": emulate_macos, "win32": emulate_windows}[system]()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
