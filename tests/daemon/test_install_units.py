"""`tftpd install-units` installs below a temporary directory."""

import os
import sys
from pathlib import Path

import pytest

import tftpd
from tests.support.daemons import CHECKOUT
from tftpd.config import events as event_config
from tftpd.config import origin_checks
from tftpd.daemon.cli import main

UNITS = Path("usr/local/lib/systemd/system")
DROP_IN = UNITS / "tftpd.service.d/socket.conf"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return the target directory of an installation in /opt."""
    program = tmp_path / "bin/tftpd"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setattr(sys, "prefix", "/opt/tftpd 1%")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(tftpd, "__file__", f"{sys.prefix}/lib/python3.11/site-packages/tftpd/x.py")
    return tmp_path / "root"


def _install(root, *options):
    return main(["install-units", "--root", str(root), *options])


def _files(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_the_units_and_a_configuration_are_installed_and_listed(root, capsys):
    assert _install(root) == 0
    names = ["tftpd.service", "tftpd@.service", "tftpd.socket", "tftpd@.socket"]
    files = [*(str(UNITS / name) for name in names), "etc/tftpd/tftpd.yaml"]
    assert _files(root) == set(files)
    assert (root / "srv/tftp").is_dir()
    assert capsys.readouterr().out.splitlines() == [
        *(f"write  {root}/{file}" for file in files),
        f"make   {root}/srv/tftp",
        "",
        "Next:",
        "    tftpd check /etc/tftpd/tftpd.yaml",
        "    systemctl daemon-reload",
        "    systemctl enable --now tftpd.service",
    ]


def test_the_units_run_the_program_of_this_installation(root, tmp_path):
    _install(root)
    for name, config in (("tftpd", "tftpd"), ("tftpd@", "%i")):
        lines = (root / UNITS / f"{name}.service").read_text().splitlines()
        program = tmp_path / "bin/tftpd"
        assert f"ExecStart={program} run --config /etc/tftpd/{config}.yaml" in lines
        assert f"ExecReload={program} check --no-templates /etc/tftpd/{config}.yaml" in lines
        assert 'ExecPaths=/usr -/lib -/lib64 "-/opt/tftpd 1%%"' in lines


def test_the_service_can_load_the_extension_of_an_editable_installation(root, monkeypatch):
    monkeypatch.setattr(tftpd, "__file__", "/opt/checkout/tftpd/__init__.py")
    _install(root)
    lines = (root / UNITS / "tftpd.service").read_text().splitlines()
    assert 'ExecPaths=/usr -/lib -/lib64 -/opt/checkout/tftpd "-/opt/tftpd 1%%"' in lines


def test_each_unit_names_its_manual_pages(root):
    _install(root)
    for unit in (root / UNITS).iterdir():
        assert "Documentation=man:tftpd(8) man:tftpd.yaml(5)" in unit.read_text().splitlines()


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (["--networks", "2001:db8::/32", "203.0.113.0/24"],
         ["IPAddressAllow=2001:db8::/32 203.0.113.0/24"]),
        (["--mac"], ["RestrictAddressFamilies=AF_NETLINK"]),
        (["--mac", "--networks", "0.0.0.0/0"],
         ["IPAddressAllow=0.0.0.0/0", "RestrictAddressFamilies=AF_NETLINK"]),
    ],
)  # fmt: skip
def test_a_drop_in_extends_the_sandbox_and_stays(root, options, lines):
    assert _install(root, *options) == 0
    assert _install(root) == 0
    for unit in ("tftpd.service.d", "tftpd@.service.d"):
        text = (root / UNITS / unit / "network.conf").read_text()
        assert text.splitlines() == ["[Service]", *lines]


def test_a_wrong_network_is_bad_usage(root):
    with pytest.raises(SystemExit) as ended:
        _install(root, "--networks", "192.0.2.1/24")
    assert ended.value.code == 2


def test_without_a_script_the_interpreter_runs_the_module(root, tmp_path):
    (tmp_path / "bin/tftpd").unlink()
    _install(root)
    text = (root / UNITS / "tftpd.service").read_text()
    assert f"ExecStart={tmp_path}/bin/python -P -m tftpd.daemon.cli run --config /etc" in text


def test_a_second_installation_writes_nothing(root, capsys):
    _install(root)
    capsys.readouterr()
    assert _install(root) == 0
    verbs = {line.split()[0] for line in capsys.readouterr().out.splitlines()[:6]}
    assert verbs == {"keep"}


def test_a_configuration_is_replaced_only_with_force(root, capsys):
    config = root / "etc/tftpd/tftpd.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("mine")
    assert _install(root) == 0
    assert config.read_text() == "mine"
    assert f"keep   {config}" in capsys.readouterr().out
    assert _install(root, "--force") == 0
    assert config.read_text() == (CHECKOUT / "conf/systemd/tftpd.yaml").read_text()


def test_a_changed_unit_is_replaced(root):
    _install(root)
    unit = root / UNITS / "tftpd.service"
    text = unit.read_text()
    unit.write_text("old")
    _install(root)
    assert unit.read_text() == text


def test_the_drop_in_for_the_socket_is_installed_and_removed(root, capsys):
    assert _install(root, "--socket") == 0
    assert (root / DROP_IN).exists()
    assert "    systemctl enable --now tftpd.socket" in capsys.readouterr().out
    assert _install(root) == 0
    assert not (root / DROP_IN).exists()
    assert f"remove {root / DROP_IN}" in capsys.readouterr().out


def test_a_dry_run_changes_nothing(root, capsys):
    assert _install(root, "--dry-run", "--socket") == 0
    assert not root.exists()
    assert f"write  {root / DROP_IN}" in capsys.readouterr().out


def test_units_are_installed_below_the_prefix(root):
    assert _install(root, "--prefix", "/usr") == 0
    assert "usr/lib/systemd/system/tftpd.service" in _files(root)


def test_files_are_readable_for_all_regardless_of_the_umask(root):
    before = os.umask(0o077)
    try:
        _install(root)
    finally:
        os.umask(before)
    assert (root / "etc/tftpd").stat().st_mode & 0o777 == 0o755
    assert (root / "etc/tftpd/tftpd.yaml").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("where", ["prefix", "base_prefix"])
def test_an_installation_that_services_cannot_access_is_an_error(root, monkeypatch, capsys, where):
    monkeypatch.setattr(sys, where, "/home/me/venv")
    assert _install(root) == 1
    assert not root.exists()
    errors = capsys.readouterr().err
    assert "needs /home/me/venv, which services cannot access" in errors
    assert errors.count("\n") == 1


def test_a_file_that_cannot_be_written_is_an_error(root, capsys):
    root.write_text("a file where a directory should be")
    assert _install(root) == 1
    assert capsys.readouterr().err.startswith(f"tftpd: {root}")


def test_a_link_in_the_place_of_a_new_file_is_not_followed(root):
    """Another user may have created it in the directory of a package that root builds."""
    victim = root.parent / "victim"
    victim.write_text("old")
    (root / UNITS).mkdir(parents=True)
    (root / UNITS / ".tftpd.service.new").symlink_to(victim)
    assert _install(root) == 0
    assert victim.read_text() == "old"
    assert not (root / UNITS / "tftpd.service").is_symlink()


ORIGINS = """
origins:
  fleet: {{url: s3://boot, endpoint: "http://10.0.0.5:8333"}}
  web: {{url: "https://[2001:db8::1]:8443/boot"}}
cache: {{path: {cache}}}
directories: [{{root: "origin:fleet", read: true}}]
"""


@pytest.fixture
def configure(root, monkeypatch):
    """Return a function that writes a configuration with origins below the root."""
    monkeypatch.setattr(origin_checks, "find_spec", lambda name: object())
    monkeypatch.setattr(os.path, "isdir", lambda path: True)  # /var/cache, which may be absent

    def write(name="tftpd", cache="/var/cache/tftpd", text=ORIGINS):
        config = root / f"etc/tftpd/{name}.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(text.format(cache=cache))

    return write


def _origins(root, name="tftpd"):
    return (root / UNITS / f"{name}.service.d/origins.conf").read_text().splitlines()


def test_a_drop_in_allows_the_origins_and_the_cache(root, configure, capsys):
    configure()
    assert _install(root) == 0
    assert _origins(root) == [
        "# For the origins of the configuration. Run `tftpd install-units` after a change.",
        "[Service]",
        "# The process that fetches lowers its own priority.",
        "SystemCallFilter=setpriority",
        "# fleet: http://10.0.0.5:8333",
        "IPAddressAllow=10.0.0.5",
        "# web: https://[2001:db8::1]:8443/boot",
        "IPAddressAllow=2001:db8::1",
        "CacheDirectory=tftpd",
        "CacheDirectoryMode=0700",
    ]
    assert f"write  {root / UNITS}/tftpd.service.d/origins.conf" in capsys.readouterr().out


@pytest.mark.parametrize("endpoint", ["http://store.example.org:8333", None])
def test_an_origin_without_a_fixed_address_opens_the_network(root, configure, endpoint):
    text = ORIGINS.replace(', endpoint: "http://10.0.0.5:8333"', "")
    if endpoint:
        text = text.replace("s3://boot", f's3://boot, endpoint: "{endpoint}"')
    configure(text=text)
    assert _install(root) == 0
    assert _origins(root)[4:7] == [
        f"# fleet: {endpoint or 's3://boot'} has no fixed address.",
        "# Replace `any` by the networks of the origin and of the clients, if known.",
        "IPAddressAllow=any",
    ]


def test_a_cache_in_another_directory_becomes_writable(root, configure):
    configure(cache="/data/tftp 100%")
    assert _install(root) == 0
    assert _origins(root)[-2:] == [
        "# The directory must exist and belong to the user of the service: set User=.",
        'ReadWritePaths="/data/tftp 100%%"',
    ]


def test_each_instance_has_the_drop_in_of_its_configuration(root, configure):
    configure()
    configure("lab", "/var/cache/tftpd@lab")
    configure("map", text="- not a configuration")
    assert _install(root) == 0
    assert "CacheDirectory=tftpd@lab" in _origins(root, "tftpd@lab")
    assert not (root / UNITS / "tftpd@map.service.d").exists()


def test_the_drop_in_disappears_with_the_origins(root, configure, capsys):
    configure()
    _install(root)
    configure(text="directories: [{{root: /usr/share, read: true}}]")
    assert _install(root) == 0
    path = root / UNITS / "tftpd.service.d/origins.conf"
    assert not path.exists()
    assert f"remove {path}" in capsys.readouterr().out


def test_a_configuration_with_problems_is_kept_and_reported(root, configure, capsys):
    configure(text="origins: 1")
    assert _install(root) == 0
    config = root / "etc/tftpd/tftpd.yaml"
    assert capsys.readouterr().err == (
        f"tftpd: {config} has problems: no drop-in is written for it\n"
    )


def test_without_origins_the_network_stays_closed(root, capsys):
    assert _install(root) == 0
    assert _install(root) == 0
    assert not list((root / UNITS).glob("*/origins.conf"))
    assert capsys.readouterr().err == ""


EVENTS = """
events:
  - {{event: read_done, exec: [/opt/hooks/notify, -x]}}
  - {{event: read_done, exec: [/usr/local/bin/notify]}}
  - {{event: read_done, webhook: "https://hooks.example.org/secret", secret_file: hook.secret}}
  - {{event: read_done, webhook: "http://10.0.0.9:8080/"}}
directories: [{{root: /usr/share, read: true}}]
"""


def _events(root):
    return (root / UNITS / "tftpd.service.d/events.conf").read_text().splitlines()


@pytest.fixture
def hooks(root, configure, monkeypatch):
    """Write a configuration with events, whose programs seem to exist."""
    monkeypatch.setattr(event_config, "_describe_program_fault", lambda path: None)
    configure(text=EVENTS)
    secret = root / "etc/tftpd/hook.secret"
    secret.write_text("0123456789abcdef")
    secret.chmod(0o600)


def test_a_drop_in_allows_programs_and_webhooks(root, hooks):
    assert _install(root) == 0
    assert _events(root) == [
        "# For the events of the configuration. Run `tftpd install-units` after a change.",
        "[Service]",
        "ExecPaths=/opt/hooks/notify",
        "# https://hooks.example.org: https://hooks.example.org (webhook) has no fixed address.",
        "# Replace `any` by the networks of the webhook and of the clients, if known.",
        "IPAddressAllow=any",
        "# The configuration finds it as ${CREDENTIALS_DIRECTORY}/hook.secret.",
        f"LoadCredential=hook.secret:{root}/etc/tftpd/hook.secret",
        "# http://10.0.0.9:8080: http://10.0.0.9:8080 (webhook)",
        "IPAddressAllow=10.0.0.9",
    ]


def test_a_queue_outside_of_the_state_directory_becomes_writable(root, hooks, configure):
    configure(text=f"{EVENTS}event_queue: {{{{file: /data/q.sqlite3}}}}\n")
    assert _install(root) == 0
    assert _events(root)[-1] == "ReadWritePaths=/data"


def test_the_drop_in_disappears_with_the_events(root, hooks, configure):
    _install(root)
    configure(text="directories: [{{root: /usr/share, read: true}}]")
    assert _install(root) == 0
    assert not (root / UNITS / "tftpd.service.d/events.conf").exists()


def test_a_drop_in_allows_the_tcp_ports_of_http_and_of_the_status_page(root, configure):
    directories = "directories: [{{root: /usr/share, read: true}}]\n"
    ports = ("69}}", "80, protocol: http}}", "8080, protocol: http}}")
    listen = "".join(f"  - {{{{address: 0.0.0.0, port: {port}\n" for port in ports)
    configure(text="listen:\n" + listen + "status: {{port: 9200}}\n" + directories)
    drop_in = root / UNITS / "tftpd.service.d/listen.conf"
    assert _install(root) == 0
    assert drop_in.read_text().splitlines() == [
        "# For the TCP ports of the configuration. Run `tftpd install-units` after a change.",
        "[Service]",
        *(f"SocketBindAllow=tcp:{port}" for port in (80, 8080, 9200)),
    ]
    configure(text="status: true\n" + directories)
    assert _install(root) == 0
    assert not drop_in.exists()
    configure(text="status: {{socket: /run/tftpd/status.sock}}\n" + directories)
    assert _install(root) == 0
    assert not drop_in.exists()
