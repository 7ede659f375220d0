"""The examples of docs/how-to/templates.md produce the output that it shows."""

import re
from ipaddress import ip_address

import pytest

from tests.support.daemons import CHECKOUT
from tftpd.access.client import ClientIdentity
from tftpd.config.loader import load_settings
from tftpd.templates.protocol import RenderJob
from tftpd.templates.sandbox import TemplateSandbox

TEXT = (CHECKOUT / "docs/how-to/templates.md").read_text()
REFERENCE = (CHECKOUT / "docs/reference/templates.md").read_text()
VARIABLES = re.search(r"```yaml\n(variables:.*?)```", TEXT, re.DOTALL)[1]
EXAMPLES = {
    name: (text, gives)
    for name, text, gives in re.findall(
        r"^`(\S+\.j2)`.*?```jinja\n(.*?)```\n\nThe client gets:\n\n```text\n(.*?)```",
        TEXT,
        re.DOTALL | re.MULTILINE,
    )
}
CLIENT = ClientIdentity(ip_address("192.168.1.5"), lambda: bytes.fromhex("525400123456"))


@pytest.fixture
def variables(tmp_path):
    """Variables of a template for the client in the document."""
    (tmp_path / "t.yaml").write_text(f"directories: [{{root: ., read: true}}]\n{VARIABLES}")
    return {
        "ip": "192.168.1.5",
        "ip_hex": "C0A80105",
        "mac": "52:54:00:12:34:56",
        "server": "192.168.1.1",
        "name": "pxelinux.cfg/default",
        "asked": "/pxelinux.cfg/C0A80105",
        "groups": {"host": "web1"},
        "variables": load_settings(tmp_path / "t.yaml").build_variables().values_for(CLIENT),
    }


def test_the_document_has_an_example_for_each_boot_loader():
    kinds = ["pxelinux.cfg/default.j2", "grub.cfg.j2", "boot.ipxe.j2", "autoexec.ipxe.j2"]
    kinds.append("cloud/user-data.j2")
    assert list(EXAMPLES) == kinds


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_gives_the_documented_output(template, variables, name):
    text, gives = EXAMPLES[name]
    made = TemplateSandbox().render(RenderJob(template(text, name), variables, 1 << 20, 2.0))
    assert made.decode() == gives


def test_the_document_lists_all_variables(template, variables):
    section = REFERENCE.partition("## Output")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert rows == list(variables)
    text = "".join(f"{{{{ {row} }}}}\n" for row in rows if row != "variables")
    assert TemplateSandbox().render(
        RenderJob(template(text), variables, 1 << 20, 2.0)
    ).decode() == (
        "192.168.1.5\nC0A80105\n52:54:00:12:34:56\n192.168.1.1\npxelinux.cfg/default\n"
        "/pxelinux.cfg/C0A80105\n{'host': 'web1'}\n"
    )


def test_the_first_example_renders(template, variables):
    text = re.search(r"```jinja\n(\{# pxelinux.*?)```", TEXT, re.DOTALL)[1]
    assert TemplateSandbox().render(
        RenderJob(template(text), variables, 1 << 20, 2.0)
    ).decode() == (
        "DEFAULT install\nLABEL install\n  KERNEL debian/vmlinuz\n"
        "  APPEND initrd=debian/initrd.gz ip=192.168.1.5 quiet\n"
    )


def test_a_template_per_host_is_included(template, variables):
    text = re.search(r"```jinja\n(\{% include \['hosts.*?)```", TEXT, re.DOTALL)[1]
    template("everyone", "hosts/default.j2")
    grant = template(text)
    assert TemplateSandbox().render(RenderJob(grant, variables, 1 << 20, 2.0)) == b"everyone"
    template("web1", "hosts/52-54-00-12-34-56.j2")
    assert TemplateSandbox().render(RenderJob(grant, variables, 1 << 20, 2.0)) == b"web1"
    assert (
        TemplateSandbox().render(RenderJob(grant, {**variables, "mac": None}, 1 << 20, 2.0))
        == b"everyone"
    )
