"""How many may be served at once: by the configuration, and by what this process may hold.

What templates are told: of the request, and of the client whose it is.

What a reload may change, and what needs a restart.
"""

import os
import resource
from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger

from tftpd.access.policy import Grant, ReadPolicy
from tftpd.access.variables import VariableTable
from tftpd.config.sections import LimitsSection
from tftpd.config.settings import Settings
from tftpd.server.admission import AdmissionLimits
from tftpd.server.request import Render, RenderContext
from tftpd.templates.renderer import TemplateRenderer

_SPARE_DESCRIPTORS = 64  # for the daemon itself: listeners, log, libraries
_SESSION_DESCRIPTORS = 4  # its port twice, its file, and the directory of an upload
_WORTH_TELLING = 0.99  # share of the sessions; many hosts allow 20000 descriptors, for 4984 of 5000

_log = Logger()


def admission_limits(limits: LimitsSection) -> AdmissionLimits:
    """What `limits` allows, as far as there are descriptors; a warning tells where there are few.

    Asks for the descriptors that the sessions may need; the default is often 1024.
    """
    return AdmissionLimits(
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


def template_renderer(renderer: TemplateRenderer, facts: VariableTable) -> Render:
    """Has `renderer` make files, for clients of whom `facts` are known."""

    def render(template: Grant[ReadPolicy], wanted: RenderContext) -> bytes:
        return renderer.render(template, template_variables(wanted, facts))

    return render


def template_variables(wanted: RenderContext, facts: VariableTable) -> Mapping[str, Any]:
    """The names that a template knows (docs/templates.md), as JSON has them."""
    client = wanted.client
    return {
        "ip": str(client.address),
        "ip_hex": client.address.packed.hex().upper(),
        "mac": None if client.mac is None else client.mac.hex(":"),
        "server": client.server,
        "name": os.fsdecode(wanted.named.name),
        "asked": os.fsdecode(wanted.asked),
        "groups": {key: os.fsdecode(said) for key, said in wanted.named.groups.items()},
        "facts": facts.values_for(client),
    }


_FIXED = ("workers", "log", "status")  # what the daemon is built of, rather than what it serves


def keep_fixed_settings(old: Settings, new: Settings, log: Logger) -> Settings:
    """`new`, but for the keys that need a restart; those that differ are named in the log."""
    differ = [key for key in _FIXED if getattr(old, key) != getattr(new, key)]
    for key in differ:
        log.warn("{key} has changed, which needs a restart", key=key)
    return new.model_copy(update={key: getattr(old, key) for key in differ})
