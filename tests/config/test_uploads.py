"""Keys of `write`: versions, names and directories of stored files."""

import os

import pytest

from tftpd.access.policy import WritePolicy
from tftpd.config.errors import ConfigError
from tftpd.config.loader import load_settings


@pytest.fixture
def load(tmp_path):
    """Return a function that loads entries of `directories` beside some directories."""
    for name in ("srv", "srv/sub", "old", "old/sub"):
        (tmp_path / name).mkdir()

    def load(*entries):
        (tmp_path / "t.yaml").write_text("directories:\n" + "".join(f"  - {e}\n" for e in entries))
        return load_settings(tmp_path / "t.yaml")

    return load


def _problems(load, *entries):
    with pytest.raises(ConfigError) as error:
        load(*entries)
    return [problem.format("t.yaml") for problem in error.value.problems]


def _entry(keys, root="srv", path="/"):
    return f"{{path: {path}, root: {root}, write: {{overwrite: true, {keys}}}}}"


def test_the_keys_are_in_the_policy(load, tmp_path):
    settings = load(_entry("keep: 10, keep_days: 90, versions: old"))
    (mount,) = settings.build_mounts()
    assert mount.write == WritePolicy(
        overwrite=True, keep=10, keep_days=90, versions=str(tmp_path / "old")
    )
    assert os.listdir(tmp_path / "srv") == ["sub"]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("keep: 0", ".keep: expected a number from 1 to 10000, got 0"),
        ("keep: 1, keep_days: 0", ".keep_days: expected a number from 1 to 36500, got 0"),
        ("keep_days: 1", ": keep_days needs keep, the number of versions"),
        ("versions: old", ": versions needs keep, the number of versions"),
        ("keep: 1, versions: none", ".versions: {base}/none does not exist"),
        ("keep: 1, versions: t.yaml", ".versions: {base}/t.yaml is not a directory"),
        (
            "keep: 1, versions: srv/sub",
            ".versions: clients have access to it by the root {base}/srv: "
            "expected a directory outside of all roots",
        ),
        (
            "keep: 1, versions: srv",
            ".versions: clients can write to the versions by the root {base}/srv: "
            "expected an entry without write",
        ),
    ],
)
def test_bad_values_are_problems(load, tmp_path, keys, problem):
    expected = f"t.yaml:2: directories[0].write{problem.format(base=tmp_path)}"
    assert _problems(load, _entry(keys)) == [expected]


def test_keep_needs_overwrite(load):
    assert _problems(load, "{root: srv, write: {keep: 3}}") == [
        "t.yaml:2: directories[0].write: keep needs overwrite: true, no file is replaced without it"
    ]


def test_an_origin_keeps_its_versions_itself(load):
    problems = _problems(load, _entry("keep: 3", "'origin:x'"))
    assert any("turn on the versioning of the bucket" in problem for problem in problems)


def test_one_directory_has_the_versions_of_one_root(load, tmp_path):
    keys = "keep: 1, versions: old"
    assert load(_entry(keys), _entry(keys, path="/again"))
    assert _problems(load, _entry(keys), _entry(keys, "old/sub", "/b")) == [
        "t.yaml:2: directories[0].write.versions: clients can write to the versions by the root "
        f"{tmp_path}/old/sub: expected an entry without write",
        "t.yaml:3: directories[1].write.versions: directories[0].write has this directory for "
        "another root: expected a directory for each root",
    ]
    assert _problems(load, _entry(keys, "[srv, old/sub]")) == [
        "t.yaml:2: directories[0].write.versions: expected one root, or the default: "
        ".versions in each"
    ]


def test_a_directory_for_reading_may_serve_the_versions(load, tmp_path):
    keys = "keep: 1, versions: old"
    assert load(_entry(keys), "{path: /old, root: old, read: true}")
    (tmp_path / "srv/.versions").mkdir()
    assert load(
        _entry("keep: 1, versions: srv/.versions"),
        "{path: /old, root: srv/.versions, read: true}",
    )
    assert _problems(
        load, _entry("keep: 1"), "{path: /old, root: 'srv/.versions/{ip}', write: true}"
    ) == [
        "t.yaml:2: directories[0].write.keep: clients can write to the versions by the root "
        f"{tmp_path}/srv/.versions: expected an entry without write"
    ]


def test_a_link_in_place_of_the_versions_is_a_problem(load, tmp_path):
    (tmp_path / "srv" / ".versions").symlink_to("../old")
    assert _problems(load, _entry("keep: 1")) == [
        f"t.yaml:2: directories[0].write.keep: {tmp_path}/srv/.versions is not a directory"
    ]


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        ("{store_as: '{nothing}/x'}",
         ".store_as: {nothing} is not one of ip, ip_hex, mac, serial, date, time, name"),
        ("{store_as: '../{name}'}", '.store_as: expected a name such as "{ip}/{date}/{name}"'),
        ("{store_as: ''}", '.store_as: expected a name such as "{ip}/{date}/{name}", got ""'),
        ("{directories: all}", '.directories: expected one of existing, create, got "all"'),
        ("{directories: create, create: false, overwrite: true}",
         ": directories: create needs create: true"),
    ],
)  # fmt: skip
def test_bad_names_and_directories_are_problems(load, write, problem):
    expected = f"t.yaml:2: directories[0].write{problem}"
    assert _problems(load, f"{{root: srv, write: {write}}}") == [expected]


def test_store_as_has_the_serial_number_only_if_the_root_has_it(load):
    write = "write: {store_as: '{serial}/{name}', directories: create}"
    assert _problems(load, f"{{root: srv, {write}}}") == [
        "t.yaml:2: directories[0]: store_as with {serial} needs a root that contains {serial}"
    ]
    (mount,) = load(f"{{root: 'srv/{{serial}}', {write}}}").build_mounts()
    assert mount.store_as.text == "{serial}/{name}"
    assert mount.write.create_directories


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5h", 5400), ("90m", 5400), ("24h", 86_400), ("7d", 604_800)],
)
def test_devices_are_expected_after_a_time(load, tmp_path, text, seconds):
    device = f"{{name: sw1, network: 10.0.0.1, expect_every: {text}}}"
    (tmp_path / "t.yaml").write_text(
        f"status: true\ndirectories: [{{root: srv, write: true}}]\ndevices: [{device}]\n"
    )
    (section,) = load_settings(tmp_path / "t.yaml").devices
    assert section.expect_every == seconds


@pytest.mark.parametrize(
    ("devices", "problem"),
    [
        ("{name: sw1}", "[0]: expected one of network and mac"),
        ('{name: sw1, network: 10.0.0.1, mac: "52:54:00:12:34:56"}',
         "[0]: expected one of network and mac"),
        ("{name: a b, network: 10.0.0.1}",
         '[0].name: expected a name of letters, digits, dots and dashes, got "a b"'),
        ("{name: a, mac: x}",
         '[0].mac: expected a MAC address such as "52:54:00:12:34:56", got "x"'),
        ("{name: a, network: 10.0.0.1, expect_every: 1w}",
         '[0].expect_every: expected a time such as 90m, 24h or 7d, up to 366d, got "1w"'),
        ("{name: a, network: 10.0.0.1, expect_every: 0}",
         "[0].expect_every: expected a time such as 90m, 24h or 7d, up to 366d, got 0"),
        ("{name: a, network: 10.0.0.1}, {name: a, network: 10.0.0.2}",
         '[1].name: "a" is already the name of devices[0] on line 3'),
    ],
)  # fmt: skip
def test_bad_devices_are_problems(load, tmp_path, devices, problem):
    (tmp_path / "t.yaml").write_text(
        f"status: true\ndirectories: [{{root: srv, write: true}}]\ndevices: [{devices}]\n"
    )
    with pytest.raises(ConfigError) as error:
        load_settings(tmp_path / "t.yaml")
    assert [p.format("t.yaml") for p in error.value.problems] == [f"t.yaml:3: devices{problem}"]


def test_devices_need_the_status_page(load, tmp_path):
    (tmp_path / "t.yaml").write_text(
        "directories: [{root: srv, write: true}]\ndevices: [{name: a, network: 10.0.0.1}]\n"
    )
    with pytest.raises(ConfigError, match="devices needs the status page: expected status: true"):
        load_settings(tmp_path / "t.yaml")
