"""The sections `origins` and `cache`, and roots at an origin."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemons import CHECKOUT
from tftpd.access.origin_roots import OriginRoot
from tftpd.config import origin_checks
from tftpd.config.errors import ConfigError
from tftpd.config.loader import load_settings
from tftpd.config.origins import CredentialsFile, OriginSection, TimeoutSection


@pytest.fixture(autouse=True)
def libraries(monkeypatch):
    """Make the libraries seem to be installed; return the set of those that are not."""
    missing = set()
    monkeypatch.setattr(
        origin_checks, "find_spec", lambda name: None if name in missing else object()
    )
    return missing


@pytest.fixture
def load(tmp_path):
    """Return a function that loads a configuration beside the directories `srv` and `c`."""
    for name in ("srv", "c"):
        (tmp_path / name).mkdir()

    def load(text):
        (tmp_path / "t.yaml").write_text(text)
        return load_settings(tmp_path / "t.yaml")

    return load


ORIGINS = """origins:
  fleet: {url: s3://boot/tree}
  web: {url: "http://192.0.2.1:8080/files"}
cache: {path: c}
"""
DIRECTORY = 'directories: [{root: "origin:fleet", read: true}]\n'
MINIMAL = ORIGINS + DIRECTORY


def _problems(load, text):
    with pytest.raises(ConfigError) as error:
        load(text)
    name = Path(error.value.file).name
    return [problem.format(name) for problem in error.value.problems]


def test_a_minimal_origin_has_defaults(load, tmp_path):
    settings = load(MINIMAL)
    assert settings.origins["fleet"] == OriginSection(
        url="s3://boot/tree",
        credentials="none",
        max_age=30.0,
        stale=604800.0,
        negative=2.0,
        revalidate_timeout=0.1,
        timeout=TimeoutSection(connect=2.0, read=10.0),
        redirects="same-host",
    )
    assert settings.cache.path == str(tmp_path / "c")
    assert (settings.cache.max_size, settings.cache.min_free) == (20 << 30, 2 << 30)
    (mount,) = settings.build_mounts()
    assert mount.origin_roots == (OriginRoot("fleet"),)


def test_every_key_of_an_origin_can_be_set(load, tmp_path):
    (tmp_path / "fleet.env").touch()
    settings = load(
        """
origins:
  fleet:
    url: s3://boot/tree/
    endpoint: http://10.0.0.5:8333/
    credentials: {file: fleet.env}
    max_age: 1
    stale: 0
    negative: 0
    revalidate_timeout: 0
    timeout: {connect: 0.5, read: 5}
  web: {url: https://example.org/boot/, redirects: any}
  plain: {url: "gs://boot", credentials: environment}
cache: {path: c, max_size: 1MiB, min_free: 0}
directories:
  - {path: /, root: [srv, "origin:web/x86/"], read: {templates: true}}
  - {path: /backup, root: "origin:fleet/backup/{mac}", write: {max_size: 1MiB}}
"""
    )
    fleet, web, plain = settings.origins.values()
    assert fleet.credentials == CredentialsFile(str(tmp_path / "fleet.env"))
    assert (fleet.endpoint, fleet.server) == ("http://10.0.0.5:8333", "10.0.0.5")
    assert (fleet.url, fleet.scheme) == ("s3://boot/tree", "s3")
    assert (fleet.stale, fleet.revalidate_timeout, fleet.timeout.read) == (0.0, 0.0, 5.0)
    assert (web.url, web.server, web.redirects) == (
        "https://example.org/boot",
        "example.org",
        "any",
    )
    assert (plain.server, plain.credentials) == (None, "environment")
    first, second = settings.build_mounts()
    assert first.local_roots == (tmp_path / "srv",)
    assert first.origin_roots == (OriginRoot("web", (b"x86",)),)
    assert second.roots[0].placeholders == {"mac"}


URL = "expected a URL such as s3://BUCKET/PREFIX or https://HOST/PATH"
ENDPOINT = "expected the URL of a server such as http://192.0.2.1:8333"
CREDENTIALS = "expected none, environment or {file: PATH}"
OWN_ENTRY = "remove it, or give the origin an entry of its own"


@pytest.mark.parametrize(
    "url",
    [
        *("s3", "s3:/boot", "s3://", "s3://a", "s3://-boot", "s3://boot:80/x", "ftp://host/x"),
        *("s3://boot//x", "s3://boot/../x", "s3://boot/a\\b", "s3://user@boot/x", "file:///srv"),
        *("http://", "http://host/?x", "http://host/#x", "http://a:b@host/", "http://host:x/"),
        *("http://host/a b", "http://host/../x", "http://h\u00f6st/"),
    ],
)
def test_a_wrong_url_is_a_problem(load, url):
    text = f"origins:\n  x: {{url: '{url}'}}\n" + "directories: [{root: srv, read: true}]"
    assert _problems(load, text) == [f't.yaml:2: origins.x.url: {URL}, got "{url}"']


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("", 'origins.x: missing key "url"'),
        ("url: 1", f"origins.x.url: {URL}, got 1"),
        ("url: s3://boot, endpoint: h", f'origins.x.endpoint: {ENDPOINT}, got "h"'),
        ("url: s3://boot, endpoint: s3://h", f'origins.x.endpoint: {ENDPOINT}, got "s3://h"'),
        ("url: s3://boot, credentials: env", f'origins.x.credentials: {CREDENTIALS}, got "env"'),
        ("url: s3://boot, credentials: {f: x}",
         f"origins.x.credentials: {CREDENTIALS}, got a mapping"),
        ("url: s3://boot, max_age: 0",
         "origins.x.max_age: expected seconds, from 1 up to 31536000, got 0"),
        ("url: s3://boot, max_age: 7d",
         'origins.x.max_age: expected seconds, from 1 up to 31536000, got "7d"'),
        ("url: s3://boot, stale: -1",
         "origins.x.stale: expected seconds, from 0 up to 31536000, got -1"),
        ("url: s3://boot, timeout: 3", "origins.x.timeout: expected a mapping, got 3"),
        ("url: s3://boot, timeout: {connect: 0}",
         "origins.x.timeout.connect: expected seconds, from 0.1 up to 60, got 0"),
        ("url: s3://boot, timeout: {conn: 1}",
         'origins.x.timeout.conn: unknown key, did you mean "connect"?'),
        ("url: s3://boot, max_ages: 1", 'origins.x.max_ages: unknown key, did you mean "max_age"?'),
        ("url: http://h, redirects: all",
         'origins.x.redirects: expected one of same-host, any, got "all"'),
        ("url: s3://boot, redirects: any", 'origins.x: "redirects" is for http and https'),
        ("url: http://h, credentials: environment",
         'origins.x: "credentials" is for s3, gs and az'),
        ("url: http://h, ca_file: srv", 'origins.x: "ca_file" is for https'),
        ("url: s3://boot, endpoint: http://h, ca_file: srv", 'origins.x: "ca_file" is for https'),
        ("url: http://h, endpoint: http://i",
         'origins.x: "endpoint" is for s3, gs and az: url has the server'),
    ],
)  # fmt: skip
def test_a_wrong_key_of_an_origin_is_a_problem(load, keys, problem):
    text = f"origins:\n  x: {{{keys}}}\n" + "directories: [{root: srv, read: true}]"
    assert _problems(load, text) == [f"t.yaml:2: {problem}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("origins: 1", "1: origins: expected a mapping, got 1"),
        ("origins: [{url: s3://boot}]", "1: origins: expected a mapping, got a list"),
        ("origins: {a.b: {url: s3://boot}}",
         '1: origins."a.b": expected a name of letters, digits, hyphens and underscores, '
         'got "a.b"'),
        ("origins: {timeout: {urls: x, url: s3://boot}}",
         '1: origins.timeout.urls: unknown key, did you mean "url"?'),
        ("origins: {x: s3://boot}",
         '1: origins.x: expected a mapping, got "s3://boot", did you mean {url: s3://boot}?'),
        ("cache: c", '1: cache: expected a mapping, got "c", did you mean {path: c}?'),
        ("cache: {path: c, max_size: 1k}",
         '1: cache.max_size: expected at least 1MiB, got "1k"'),
        ("cache: {path: c, min_free: x}",
         '1: cache.min_free: expected a size such as 64MiB, got "x"'),
        ("cache: {path: }", "1: cache.path: expected the path of a directory, got nothing"),
    ],
)  # fmt: skip
def test_a_wrong_section_is_a_problem(load, text, problem):
    text += "\ndirectories: [{root: srv, read: true}]"
    assert _problems(load, text) == [f"t.yaml:{problem}"]


def test_the_directory_of_the_cache_must_fit(load, tmp_path):
    absent = tmp_path / "absent"
    text = "cache: {path: absent/c}\ndirectories: [{root: srv, read: true}]"
    assert _problems(load, text) == [
        f"t.yaml:1: cache.path: {absent}/c is not in an existing directory"
    ]
    (problem,) = _problems(load, text.replace("absent/", "c" * 107))
    assert "cache.path: expected a path of at most 94 bytes, got" in problem


@pytest.mark.parametrize(("root", "cache"), [("srv", "srv/c"), ("srv", "srv"), ("srv/x", "srv")])
def test_clients_cannot_get_at_the_cache(load, tmp_path, root, cache):
    (tmp_path / "srv/x").mkdir()
    text = f"cache: {{path: {cache}}}\ndirectories: [{{root: {root}, read: true}}]"
    assert _problems(load, text) == [
        f"t.yaml:1: cache.path: clients have access to it by the root {tmp_path / root}: "
        "expected a directory outside of all roots"
    ]


def test_a_file_with_certificates_must_exist(load, tmp_path):
    text = MINIMAL.replace("boot/tree}", "boot/tree, ca_file: f}")
    problem = f"t.yaml:2: origins.fleet.ca_file: {tmp_path}/f does not exist"
    assert _problems(load, text) == [problem]
    (tmp_path / "f").touch()
    assert load(text).origins["fleet"].ca_file == f"{tmp_path}/f"


def test_a_file_with_credentials_must_exist(load, tmp_path):
    text = MINIMAL.replace("boot/tree}", "boot/tree, credentials: {file: f}}")
    assert _problems(load, text) == [
        f"t.yaml:2: origins.fleet.credentials.file: {tmp_path}/f does not exist"
    ]


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        ('"origin:flet"', 'root: unknown origin "flet", did you mean "fleet"?'),
        ('"origin:x/y"', 'root: unknown origin "x", expected one of fleet, web'),
        ('[srv, "origin:x"]', 'root[1]: unknown origin "x", expected one of fleet, web'),
        ('"origin:"', 'root: expected origin:NAME or origin:NAME/PREFIX, got "origin:"'),
        ('"origin:fleet/{macs}"',
         "root: {macs} is not one of ip, ip_hex, mac, serial"),
    ],
)  # fmt: skip
def test_a_wrong_origin_in_a_root_is_a_problem(load, root, problem):
    text = f"{ORIGINS}directories:\n  - {{root: {root}, read: true}}\n"
    assert _problems(load, text) == [f"t.yaml:6: directories[0].{problem}"]


def test_an_origin_needs_the_section_origins_and_a_cache(load):
    assert _problems(load, DIRECTORY) == [
        't.yaml:1: directories[0].root: unknown origin "fleet", '
        "expected origins: {fleet: {url: ...}}"
    ]
    assert _problems(load, MINIMAL.replace("cache: {path: c}\n", "")) == [
        't.yaml:1: origins: missing key "cache", '
        "expected cache: {path: /var/cache/tftpd} at the top level"
    ]


def test_an_origin_that_no_root_names_needs_no_cache(load):
    assert load("origins: {x: {url: s3://boot}}\ndirectories: [{root: srv, read: true}]")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("symlinks: deny, read: true", f"symlinks: an origin has no symbolic links: {OWN_ENTRY}"),
        ("read: {world_readable: true}",
         f"read.world_readable: an origin has no permission bits: {OWN_ENTRY}"),
        ("write: {world_writable: true}",
         f"write.world_writable: an origin has no permission bits: {OWN_ENTRY}"),
        ("write: {mode: 0600}", f"write.mode: an origin has no permission bits: {OWN_ENTRY}"),
        ("write: {quota: 1MiB}",
         f"write.quota: the files of an origin are not counted; limit the bucket: {OWN_ENTRY}"),
        ("write: {max_files: 9}",
         f"write.max_files: the files of an origin are not counted; limit the bucket: {OWN_ENTRY}"),
        ("write: {min_free: 1}",
         f"write.min_free: the free space of an origin is unknown: {OWN_ENTRY}"),
        ("write: {create: false, overwrite: true}",
         "write.create: an upload to an origin cannot be limited to existing files: expected true"),
        ("fallbacks: [drive, case], read: true",
         f'fallbacks: the fallback "case" needs listings: {OWN_ENTRY}'),
    ],
)  # fmt: skip
def test_what_an_origin_does_not_have_is_a_problem(load, keys, problem):
    text = f'{ORIGINS}directories:\n  - {{root: "origin:fleet", {keys}}}\n'
    assert _problems(load, text) == [f"t.yaml:6: directories[0].{problem}"]


def test_settings_with_their_default_are_no_problem(load):
    keys = "symlinks: inside, read: {world_readable: false}, write: {mode: 0644}"
    assert load(f'{ORIGINS}directories: [{{root: "origin:fleet", {keys}}}]')


def test_the_fallback_case_of_all_directories_is_a_problem_for_an_origin(load):
    text = f"names: {{fallbacks: [case]}}\n{MINIMAL}"
    assert _problems(load, text) == [
        't.yaml:6: directories[0]: the fallback "case" of names.fallbacks needs listings: '
        "expected fallbacks without it in this entry"
    ]
    assert load(text.replace("read: true", "read: true, fallbacks: [drive]"))


@pytest.mark.parametrize("roots", ['[srv, "origin:fleet"]', '["origin:fleet", "origin:web"]'])
def test_uploads_need_the_origin_as_the_only_root(load, roots):
    text = f"{ORIGINS}directories:\n  - {{root: {roots}, read: true, write: true}}\n"
    assert _problems(load, text) == [
        "t.yaml:6: directories[0].write: uploads to an origin need it as the only root: "
        "give it an entry of its own"
    ]


@pytest.mark.parametrize(
    ("library", "problem"),
    [
        ("obstore", "2: origins.fleet.url: s3 needs obstore"),
        ("urllib3", "3: origins.web.url: http needs urllib3"),
    ],
)
def test_a_missing_library_is_a_problem_that_names_its_installation(
    load, libraries, library, problem
):
    libraries.add(library)
    assert _problems(load, MINIMAL) == [f"t.yaml:{problem}: pip install 'tftpd[origins]'"]


def test_without_origins_no_library_is_needed(load, libraries):
    libraries |= {"obstore", "urllib3"}
    assert load("directories: [{root: srv, read: true}]")


def test_a_configuration_with_origins_imports_no_library(load, tmp_path):
    """Only the process that fetches imports them, not those that parse datagrams."""
    (tmp_path / "t.yaml").write_text(MINIMAL)
    program = (
        "import sys; from pathlib import Path; from tftpd.config.loader import load_settings;"
        "from tftpd.config import origin_checks; origin_checks.find_spec = lambda name: True;"
        f"load_settings(Path({str(tmp_path / 't.yaml')!r}));"
        "print(sorted({'obstore', 'urllib3'} & set(sys.modules)))"
    )
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"
