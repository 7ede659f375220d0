"""How many may be served at once: by the configuration, and by what this process may hold."""

import resource

from twisted.logger import Logger

from tftpd.config.limits import Limit
from tftpd.net.admission import Crowd

_SPARE_DESCRIPTORS = 64  # for the daemon itself: listeners, log, libraries
_SESSION_DESCRIPTORS = 4  # its port twice, its file, and the directory of an upload
_WORTH_TELLING = 0.99  # share of the sessions; many hosts allow 20000 descriptors, for 4984 of 5000

_log = Logger()


def crowd(limits: Limit) -> Crowd:
    """What `limits` allows, as far as there are descriptors; a warning tells where there are few.

    Asks for the descriptors that the sessions may need; the default is often 1024.
    """
    return Crowd(
        sessions=_room(limits.sessions),
        sessions_per_client=limits.sessions_per_client,
        sessions_per_network=limits.sessions_per_network,
        half_open=limits.half_open,
        requests_per_second=limits.requests_per_second,
    )


def _room(sessions: int) -> int:
    """How many of `sessions` there may be by the descriptors of this process."""
    wanted = sessions * _SESSION_DESCRIPTORS + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return sessions
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    spare = min(_SPARE_DESCRIPTORS, allowed // 2)
    room = min(sessions, max(1, (allowed - spare) // _SESSION_DESCRIPTORS))
    if room < sessions * _WORTH_TELLING:
        _log.warn(
            "{allowed} descriptors allow {room} sessions, not {sessions}",
            allowed=allowed,
            room=room,
            sessions=sessions,
        )
    return room
