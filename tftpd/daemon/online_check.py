"""`tftpd check --online`: ask each origin once."""

import os
from collections.abc import Iterator, Mapping

from tftpd.config.origins import OriginSection
from tftpd.config.settings import Settings
from tftpd.origins.factory import open_store, take_variables
from tftpd.origins.stores import OriginError

_BLOCKED = "; under systemd, IPAddressAllow= permits it: run `tftpd install-units` again"


def ask_origins(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the name of each origin, and the reason why it cannot be used; empty if it can.

    If a directory of the origin has `overwrite: false`, the origin must refuse a second
    conditional create. Variables with credentials are removed from the environment.
    """
    variables = take_variables(os.environ)
    create_only = settings.find_create_only_origins()
    for name, section in settings.origins.items():
        yield name, _ask(section, name in create_only, variables)


def _ask(section: OriginSection, writes: bool, variables: Mapping[str, str]) -> str:
    try:
        store = open_store(section, variables)
        try:
            store.probe(writes)
        finally:
            store.close()
    except OriginError as error:
        return f"{error}{_BLOCKED if error.blocked else ''}"
    return ""
