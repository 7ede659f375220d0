"""Every YAML block of the documents is loaded.

A block is a whole configuration, or a part of one that is loaded inside the smallest
configuration around it. A part that fits nowhere is a failure.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.blocks import BLOCKS, PAGES, TOP, Block
from tests.support.programs import library
from tftpd.access.origin_roots import is_origin
from tftpd.config.errors import ConfigError
from tftpd.config.loader import build_schema, load_settings
from tftpd.config.settings import Settings

YAML = [block for block in BLOCKS if block.language == "yaml"]

TOP_LEVEL = set(build_schema()["properties"])
# `limits: {sessions: N}` in a sentence or a table; DIR and the like stand for values.
_INLINE = re.compile(r"(?<!`)`(\{?[a-z_]+: [^`\n]+)`(?!`)")
PLACEHOLDERS = {
    "A-B": "40000-40999", "A": "192.0.2.1", "P": "6969", "S": "5", "N": "8", "SECONDS": "0.5",
    "DIR": "/srv/tftp", "DIR2": "/srv/upload", "OPTION": "blksize", "IFACE": "eth1", "FILE": "x",
}  # fmt: skip
# Where a key may be. `{}` is the text between the backticks, or what is inside its braces.
CONTEXTS = [
    "{}",
    "directories: [{{path: /, root: /srv/tftp, read: true, {}}}]",
    "directories: [{{path: /, root: /srv/tftp, {}}}]",
    "directories: [{{{}}}]",
    "directories: [{{{}, read: true}}]",
    "directories: [{{path: /, root: /srv/tftp, read: {{{}}}}}]",
    "directories: [{{path: /, root: /srv/tftp, write: {{{}}}}}]",
    "directories: [{{path: /, root: /srv/tftp, write: {{overwrite: true, {}}}}}]",
    "origins: {{x: {{url: s3://boot, {}}}}}",
    "origins: {{x: {{url: http://192.0.2.1, {}}}}}",
    "events: [{{event: read_done, exec: [/bin/true], {}}}]",
    "events: [{{event: read_done, {}}}]",
    "listen: [{{{}}}]",
    "listen: [{{address: 0.0.0.0, {}}}]",
    "profiles: [{{name: x, match: {{options: []}}, {}}}]",
    "profiles: [{{name: x, {}}}]",
    "profiles: [{{name: x, match: {{clients: [192.0.2.1]}}, {}}}]",
    "retransmit: {{{}}}",
    "names: {{{}}}",
    "rewrite: [{{match: x, to: y, {}}}]",
]

DIRECTORY = set(build_schema()["$defs"]["DirectorySection"]["properties"])


def load(text: str, directory: Path) -> Settings:
    """Load a configuration whose absolute paths are below a directory."""
    text = re.sub(r'(?<=[ \[":])/(?=(srv|var|run|etc|opt)(/|\b))', f"{directory}/", text)
    text = text.replace(":-/etc/tftpd}", f":-{directory}/etc/tftpd}}")
    document = yaml.safe_load(text)
    for mount in document.get("directories", []):
        roots = mount["root"]
        for root in roots if isinstance(roots, list) else [roots]:
            if is_origin(root):
                continue
            (directory / root.partition("{")[0]).mkdir(parents=True, exist_ok=True)
    for name in ("var/lib/tftpd", "run/tftpd", "var/cache", "etc/tftpd"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    for file in ("fleet.env", "ca.pem", "server.pem", "server.key"):
        (directory / "etc/tftpd" / file).touch()
    (directory / "etc/tftpd/webhook.secret").write_text("a secret of the user\n")
    (directory / "etc/tftpd/webhook.secret").chmod(0o600)
    (directory / "opt/tftpd-events").mkdir(parents=True, exist_ok=True)
    for file in ("notify-mail", "notify", "commit-upload"):
        (directory / "opt/tftpd-events" / file).touch(mode=0o755)
    file = directory / "tftpd.yaml"
    file.write_text(text)
    return load_settings(file)


def complete(text: str) -> str:
    """Return a whole configuration that contains the text, which may be a part of one."""
    document: Any = yaml.safe_load(text)
    if isinstance(document, list):
        text, document = f"directories:\n{text}", {"directories": document}
    elif document.keys() <= DIRECTORY - TOP_LEVEL:
        entry = "\n".join(f"    {line}" for line in text.splitlines())
        for key, value in {"path": "/", "root": "/srv/tftp", "read": "true"}.items():
            entry += "" if key in document else f"\n    {key}: {value}"
        text = f"directories:\n  -\n{entry}\n"
        document = {"directories": []}
    assert document.keys() <= TOP_LEVEL, f"part of no configuration: {sorted(document)}"
    if "directories" not in document:
        text += "\ndirectories: [{path: /, root: /srv/tftp, read: true}]\n"
    return text


def inline(page: Path) -> list[str]:
    """Return the YAML between backticks in the sentences and tables of a page."""
    return _INLINE.findall(re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.M | re.S))


def fits(code: str, directory: Path) -> bool:
    """Return True if some configuration may contain the code."""
    names = "|".join(sorted(PLACEHOLDERS, key=len, reverse=True))
    code = re.sub(rf"(?<![A-Za-z])({names})(?![A-Za-z0-9])", lambda m: PLACEHOLDERS[m[1]], code)
    code = re.sub("duplicates: [0-9]+", "duplicates: 3", code)  # the maximum
    code = code[1:-1] if code.startswith("{") else code
    for context in CONTEXTS:
        try:
            load(complete(context.format(code)), directory)
        except (ConfigError, AssertionError, KeyError, AttributeError, TypeError, yaml.YAMLError):
            continue
        return True
    return False


@pytest.mark.parametrize(
    "page", [page for page in [*TOP, *PAGES] if page.name != "CHANGELOG.md" and inline(page)],
    ids=lambda page: page.stem,
)  # fmt: skip
def test_the_yaml_in_the_text_is_part_of_a_configuration(page, tmp_path):
    # `{mac:upper}` is no YAML: the pattern wants a space.
    assert [code for code in inline(page) if not fits(code, tmp_path)] == []


def is_kubernetes(block: Block) -> bool:
    return "\nkind:" in f"\n{block.text}"


@pytest.mark.parametrize("block", [b for b in YAML if not is_kubernetes(b)], ids=str)
def test_a_configuration_in_a_document_has_no_problems(block, tmp_path, monkeypatch):
    monkeypatch.setenv("TFTP_ROOT", str(tmp_path))  # its default may not exist on this host
    if "protocol: https" in block.text:
        library("OpenSSL")
    assert load(complete(block.text), tmp_path).build_mounts()


@pytest.mark.parametrize("text", ["roots: /srv/tftp", "listen: [{adr: 192.0.2.1}]", "- {}"])
def test_a_wrong_part_is_a_failure(text, tmp_path):
    with pytest.raises((AssertionError, ConfigError, KeyError)):
        load(complete(text), tmp_path)
