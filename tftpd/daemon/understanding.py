"""How a name is understood, step by step, for `tftpd explain`."""

from collections.abc import Callable
from dataclasses import dataclass

from tftpd.access.client import Client
from tftpd.access.names import Named, show
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.access.rewriting import Rule, rewritten
from tftpd.protocol.errors import Refused
from tftpd.protocol.packets import Request, Wrq
from tftpd.storage.resolver import Finder


@dataclass(frozen=True, slots=True)
class Applied:
    """A rule that applied, the name after it, and what else it does."""

    rule: str
    at: str  # where it is said
    name: bytes
    does: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """A name that the ladder tried, or the one before it, and why it is not served."""

    named: Named
    why: str


@dataclass(frozen=True, slots=True)
class Understood:
    """The rules that applied, what the ladder tried then, and the name at the end.

    `grant` is that of the file that was found, if one was.
    """

    rules: tuple[Applied, ...]
    tried: tuple[Tried, ...]
    named: Named
    grant: Grant[ReadPolicy] | None = None

    def names(self) -> list[dict[str, object]]:
        """What was tried, for `--json`."""
        return [
            {"name": show(one.named.name), "by": one.named.by, "why": one.why} for one in self.tried
        ]

    def facts(self) -> list[dict[str, object]]:
        """The rules, for `--json`."""
        return [
            {"rule": one.rule, "at": one.at, "name": show(one.name), "does": one.does}
            for one in self.rules
        ]


def understand(
    request: Request, client: Client, finder: Finder, at: Callable[..., str]
) -> Understood:
    """How the name of `request` is understood; `at` tells where a key is said.

    Never raises `Refused`.
    """
    mounts = finder.mounts
    applied: list[Applied] = []
    said = {rule.label: at("rewrite", n) for n, rule in enumerate(mounts.naming.rules)}

    def note(rule: Rule, name: bytes) -> None:
        applied.append(Applied(rule.label, said[rule.label], name, _does(rule)))

    writes = isinstance(request, Wrq)
    try:
        named = rewritten(mounts.naming.rules, request.filename, writes, client, note)
    except Refused:
        named = Named(applied[-1].name if applied else request.filename)
        return Understood(tuple(applied), (), named)
    tried: list[Tried] = []
    grant = None
    if not writes:
        try:
            found = finder.find(
                named, client, _nothing, wait=True, note=lambda *told: tried.append(Tried(*told))
            )
        except Refused:
            pass
        else:
            found.source.close()
            named, grant = found.named, found.grant
    return Understood(tuple(applied), tuple(tried), named, grant)


def _nothing(template: Grant[ReadPolicy], named: Named) -> bytes:
    """What is made of the template does not matter to its name."""
    return b""


def _does(rule: Rule) -> str:
    """What else it does."""
    for name in ("refuse", "last", "restart", "every"):
        if getattr(rule, name):
            return name
    return ""
