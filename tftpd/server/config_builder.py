"""Build server objects from the settings: admission limits, template renderer, reload."""

import os
import resource
import time
from collections.abc import Callable
from dataclasses import fields

from twisted.logger import Logger

from tftpd.access.policy import Grant, ReadPolicy
from tftpd.access.variables import ClientVariables, VariableTable
from tftpd.config.settings import Settings
from tftpd.server.admission import AdmissionLimits
from tftpd.server.memory import MemoryBudget
from tftpd.server.request import Render, RenderContext
from tftpd.storage.source import FileLike
from tftpd.templates.renderer import TemplateRenderer

_SPARE_DESCRIPTORS = 64  # for the daemon itself: listeners, log, libraries
_DESCRIPTORS_PER_SESSION = 4  # two sockets, the file, and the directory of an upload
_DESCRIPTORS_PER_CONNECTION = 3  # the socket, its copy for sendfile, and the file
# Warn below this share of the sessions. Many hosts allow 20,000 descriptors, which are
# enough for 4,984 of 5,000 sessions.
_WARN_SHARE = 0.99

_log = Logger()


def admission_limits(settings: Settings) -> AdmissionLimits:
    """Return the configured limits, reduced if there are too few file descriptors.

    Raises the soft limit of descriptors, whose default is often 1,024, up to the hard
    limit. Logs a warning if the hard limit is too low.
    """
    limits = settings.limits
    values = {field.name: getattr(limits, field.name) for field in fields(AdmissionLimits)}
    has_http = any(listen.protocol != "tftp" for listen in settings.listen)
    spare = _SPARE_DESCRIPTORS + has_http * limits.connections * _DESCRIPTORS_PER_CONNECTION
    sessions = _raise_descriptor_limit(limits.sessions, spare)
    return AdmissionLimits(**values | {"sessions": sessions})


def _raise_descriptor_limit(sessions: int, spare: int) -> int:
    """Return the number of sessions that the descriptors of this process allow.

    Args:
        sessions: The configured number.
        spare: Descriptors for everything else.
    """
    needed = sessions * _DESCRIPTORS_PER_SESSION + spare
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return sessions
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    spare = min(spare, allowed // 2)
    possible = min(sessions, max(1, (allowed - spare) // _DESCRIPTORS_PER_SESSION))
    if possible < sessions * _WARN_SHARE:
        _log.warn(
            "session limit reduced from {sessions} to {possible}: "
            "this process may open only {allowed} file descriptors",
            event="session_limit_reduced",
            sessions=sessions,
            possible=possible,
            allowed=allowed,
        )
    return possible


def template_renderer(
    renderer: TemplateRenderer,
    variables: VariableTable,
    memory: MemoryBudget,
    client_variables: ClientVariables,
    report_use: Callable[[str], None] = lambda _: None,
) -> Render:
    """Return a function that renders templates with the variables of each client.

    Args:
        renderer: Renders the templates.
        variables: The variables of the configuration.
        memory: Counts the rendered files.
        client_variables: The values that an administrator has set for single clients.
        report_use: Called, in the thread of the rendering, with each client whose values for one
            boot were used.
    """

    def render(template: Grant[ReadPolicy], context: RenderContext) -> FileLike:
        client, now = context.client, time.time()
        template_variables = {  # see docs/reference/templates.md
            "ip": str(client.address),
            "ip_hex": client.address.packed.hex().upper(),
            "mac": None if client.mac is None else client.mac.hex(":"),
            "server": client.server,
            "name": os.fsdecode(context.name.name),
            "asked": os.fsdecode(context.requested),
            "groups": {key: os.fsdecode(value) for key, value in context.name.groups.items()},
            "variables": {
                **variables.values_for(client),
                **client_variables.values_for(client, now),
            },
        }
        file = memory.share(renderer.render(template, template_variables, context.source))
        for key in client_variables.find_single_use(client, now):
            report_use(key)
        return file

    return render


_FIXED_KEYS = ("workers", "log", "status", "event_queue", "control")  # a change needs a restart


def keep_fixed_settings(old: Settings, new: Settings, log: Logger) -> Settings:
    """Return `new` with the old values of the keys that need a restart.

    Logs a warning for each of these keys that has changed.
    """
    changed = [key for key in _FIXED_KEYS if getattr(old, key) != getattr(new, key)]
    if old.cache is not None and new.cache is not None and old.cache.path != new.cache.path:
        changed.append("cache")  # the rest of it may change
    for key in changed:
        log.warn(
            "{key} has changed: restart the daemon to apply it", event="restart_needed", key=key
        )
    return new.model_copy(update={key: getattr(old, key) for key in changed})
