"""What templates are told: of the request, and of the client whose it is."""

import os
from collections.abc import Mapping
from typing import Any

from tftpd.access.facts import Facts
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.net.answering import Render, Wanted
from tftpd.templates.renderer import Renderer


def rendering(renderer: Renderer, facts: Facts) -> Render:
    """Has `renderer` make files, for clients of whom `facts` are known."""

    def render(template: Grant[ReadPolicy], wanted: Wanted) -> bytes:
        return renderer.render(template, told(wanted, facts))

    return render


def told(wanted: Wanted, facts: Facts) -> Mapping[str, Any]:
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
        "facts": facts.of(client),
    }
