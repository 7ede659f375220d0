"""The workflows of GitHub, and the shell steps of the release."""

import os
import re
import subprocess
import sys

import pytest
import yaml

from tests.support.daemons import CHECKOUT, free_port
from tests.support.programs import library
from tftpd import __version__

WORKFLOWS = CHECKOUT / ".github/workflows"
RELEASE = yaml.safe_load((WORKFLOWS / "release.yml").read_text())
JOBS = RELEASE["jobs"]
PUBLISHING = {"index", "files", "registry"}
TAG_ONLY = "github.event_name == 'push' && github.ref_type == 'tag'"


def _steps(jobs):
    return [step for name in jobs for step in JOBS[name]["steps"]]


def _scripts(jobs):
    return "\n".join(step["run"] for step in _steps(jobs) if "run" in step)


def _script(job, name):
    (script,) = [step["run"] for step in JOBS[job]["steps"] if step.get("name") == name]
    return script


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_actions_are_pinned_by_hash_and_name_their_version(name):
    used = re.findall(r"uses: (.*)", (WORKFLOWS / name).read_text())
    assert len(used) >= 5
    for action in used:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_an_action_has_one_version():
    text = "".join(path.read_text() for path in WORKFLOWS.glob("*.yml"))
    versions = dict(re.findall(r"uses: (.*?)@(.*)", text))
    assert {f"{name}@{pin}" for name, pin in versions.items()} == set(
        re.findall(r"uses: (.*)", text)
    )


def test_only_a_tag_publishes():
    """`permissions` of a job replace those of the workflow."""
    assert RELEASE[True].keys() == {"push", "pull_request", "workflow_dispatch"}
    assert RELEASE[True]["push"] == {"tags": ["v*"]}
    assert RELEASE["permissions"] == {"contents": "read"}
    for name, job in JOBS.items():
        assert (job.get("if") == TAG_ONLY) is (name in PUBLISHING), name
        assert ("permissions" in job) is (name in PUBLISHING), name
        assert ("environment" in job) is (name in PUBLISHING), name
    dry = _steps(JOBS.keys() - PUBLISHING)
    assert not [step for step in dry if re.search("publish|attest", step.get("uses", ""))]
    assert not re.search(r"docker (push|login)|\bgh ", _scripts(JOBS.keys() - PUBLISHING))
    assert "secrets." not in str(JOBS)


def test_a_publishing_job_may_write_only_what_it_publishes():
    assert {name: set(JOBS[name]["permissions"]) for name in PUBLISHING} == {
        "index": {"id-token"},
        "files": {"attestations", "contents", "id-token"},
        "registry": {"attestations", "id-token", "packages"},
    }


def test_publishing_jobs_take_the_files_of_the_dry_run():
    """They build nothing: all files have passed the checks."""
    for name in PUBLISHING:
        assert JOBS[name]["needs"] == "collect"
        assert "actions/checkout" not in str(JOBS[name])
        assert "make" not in _scripts([name])
    assert set(JOBS["collect"]["needs"]) == JOBS.keys() - PUBLISHING - {"collect"}
    uploads = [s["with"]["name"] for s in _steps(JOBS) if "upload-artifact" in s.get("uses", "")]
    expected = ("index-", "packages-", "image", "release")
    assert [name for name in uploads if not name.startswith(expected)] == []


def test_targets_and_scripts_of_the_workflow_exist(tmp_path):
    scripts = _scripts(JOBS)
    targets = re.findall(r"(?:^|\s)make ([a-z ]+)$", scripts, re.MULTILINE)
    assert {word for line in targets for word in line.split()} == {
        "locked", "dist", "deb", "rpm", "image",
    }  # fmt: skip
    for line in targets:
        command = ["make", "--dry-run", f"VENV={tmp_path}", *line.split()]
        subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, timeout=60)
    for path in re.findall(r"packaging/[\w-]+$", scripts, re.MULTILINE):
        assert os.access(CHECKOUT / path, os.X_OK), path
    assert "packaging/smoke-test" in scripts


@pytest.mark.parametrize("step", [s for s in _steps(JOBS) if "run" in s], ids=lambda s: s["name"])
def test_a_script_of_the_workflow_has_valid_syntax(step):
    subprocess.run(["bash", "-n", "-c", step["run"]], check=True, timeout=60)
    # A value from GitHub in a script would be code.
    assert "${{" not in step["run"]


def test_tools_have_the_versions_of_ci():
    lock = (CHECKOUT / "requirements/ci.txt").read_text()
    (twine,) = re.findall(r"^twine==\S+", lock, re.MULTILINE)
    (wheels,) = re.findall(r"cibuildwheel==\S+", (WORKFLOWS / "ci.yml").read_text())
    assert re.findall(r"pipx run (\S+)", _scripts(JOBS)) == [wheels, twine]


def test_the_debian_job_installs_the_build_dependencies_of_the_documents():
    page = (CHECKOUT / "docs/how-to/debian-package.md").read_text()
    block = page.partition("apt install ")[2].partition("```")[0]
    needed = set(block.replace("\\", "").split())
    installed = set(_scripts(["deb"]).replace("\\", "").split())
    assert len(needed) > 10
    assert needed <= installed


def test_every_package_has_the_address_of_the_project():
    """There is none yet: `url` in setup.cfg is the one that the others must have."""
    places = {
        "setup.cfg": r"^url = (.*)",
        "packaging/tftpd.spec": r"^URL: *(.*)",
        "debian/control": r"^Homepage: *(.*)",
        "Containerfile": r'image\.url="(.*)"',
    }
    found = {
        name: re.findall(pattern, (CHECKOUT / name).read_text(), re.MULTILINE)
        for name, pattern in places.items()
    }
    assert {name: url for name, url in found.items() if url != found["setup.cfg"]} == {}


def _run(script, directory, **variables):
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=directory, env={**os.environ, **variables},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(("tag", "status"), [(f"v{__version__}", 0), ("v0.0.7", 1), ("v", 1)])
def test_the_release_stops_if_the_tag_is_not_the_version(tag, status):
    script = _script("sdist", "The tag names the version of the package")
    assert _run(script, CHECKOUT, GITHUB_REF_NAME=tag).returncode == status


def test_the_release_has_checksums_of_all_files(tmp_path):
    release = tmp_path / "release"
    release.mkdir()
    for name in ("a.whl", "b_0.1.0~debian12_amd64.deb"):
        (release / name).write_text(name)
    done = _run(_script("collect", "List the files with their checksums"), tmp_path)
    assert done.returncode == 0, done.stderr
    checked = _run("sha256sum --check SHA256SUMS", release)
    assert checked.stdout == "a.whl: OK\nb_0.1.0~debian12_amd64.deb: OK\n"


DOCKER = """\
#!/bin/sh
echo "$*" >> calls
case "$1 $*" in
"inspect "*State*) cat health ;;
"inspect "*Digest*) echo ghcr.io/owner/tftpd@sha256:abc ;;
"exec "*) cat "${SERVED:-/dev/null}" ;;
"load "*|"login "*) cat >/dev/null ;;
esac
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """Put a program `docker` into PATH that writes its arguments to the file `calls`."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_the_image_is_pushed_with_the_version_and_its_digest_is_signed(docker):
    _run("echo | gzip > tftpd-image.tar.gz", docker)
    done = _run(
        _script("registry", "Push the image"), docker,
        GITHUB_REPOSITORY="Owner/tftpd", GITHUB_REF_NAME="v1.2.3", GITHUB_ACTOR="a", TOKEN="t",
        GITHUB_OUTPUT=str(docker / "output"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "push ghcr.io/owner/tftpd:1.2.3\n" in (docker / "calls").read_text()
    assert (docker / "output").read_text() == "name=ghcr.io/owner/tftpd\ndigest=sha256:abc\n"


@pytest.mark.parametrize(
    ("health", "file", "status"),
    [("healthy", "hello.txt", 0), ("unhealthy", "hello.txt", 1), ("healthy", "other", 1)],
)
def test_an_image_that_is_not_healthy_fails_the_dry_run(docker, health, file, status):
    (docker / "health").write_text(f"{health}\n")
    (docker / "srv/tftp").mkdir(parents=True)
    (docker / "srv/tftp/hello.txt").write_text("hello")
    (docker / "srv/tftp/other").write_text("other")
    script = _script("image", "Serve a file, and wait for the health check")
    done = _run(script, docker, SERVED=f"srv/tftp/{file}")
    assert done.returncode == status, done.stderr


@pytest.mark.check
@pytest.mark.parametrize(("plane", "status"), [("C", 0), ("python", 1)])
def test_the_smoke_test_reads_a_file_through_the_extension(tmp_path, plane, status):
    if plane == "C":
        library("tftpd.dataplane._native")
    for name, module in (("tftpd", "tftpd.daemon.cli"), ("tftpc", "tftpd.client.cli")):
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (tmp_path / name).chmod(0o755)
    done = _run(
        f"{CHECKOUT}/packaging/smoke-test {free_port()}", CHECKOUT,
        PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHONPATH=str(CHECKOUT), TFTPD_DATAPLANE=plane,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert "serving on 127.0.0.1" in done.stdout
