"""The Containerfile, packaging/image, and the image that they build."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.daemons import CHECKOUT
from tests.support.programs import program

TEXT = (CHECKOUT / "Containerfile").read_text().replace("\\\n", "")


@pytest.mark.parametrize(("status", "is_healthy"), [(0, True), (3, True), (4, True), (5, False)])
def test_any_answer_of_the_server_is_healthy(tmp_path, status, is_healthy):
    """`tftpc` exits with 5 if the server does not answer."""
    command = re.search(r"^HEALTHCHECK .* CMD (.*)$", TEXT, re.MULTILINE)[1]
    client = tmp_path / "tftpc"
    client.write_text(f"#!/bin/sh\nexit {status}\n")
    client.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = subprocess.run(["/bin/sh", "-c", command], env=environment, timeout=60, check=False)
    assert (ended.returncode == 0) is is_healthy


def test_the_image_has_the_extension_and_no_compiler():
    """TFTPD_DATAPLANE=C: an extension that cannot be compiled is an error."""
    _, built, image = TEXT.split("\nFROM ")
    assert re.search(r"apt-get install .* gcc .* python3-dev ", built)
    assert re.search(r"TFTPD_DATAPLANE=C \S+ -m pip install ", built)
    assert not re.search(r"gcc|-dev", image)


def test_the_labels_agree_with_the_package():
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', TEXT))
    metadata = dict(re.findall(r"(?m)^(\w+) = (.+)$", (CHECKOUT / "setup.cfg").read_text()))
    for label, key in (
        ("title", "name"),
        ("authors", "author"),
        ("licenses", "license"),
    ):
        assert labels[label] == metadata[key]
    assert metadata["description"].endswith(labels["description"].removeprefix("TFTP server"))


def _build_with(tmp_path, engines, **variables):
    """Run packaging/image with programs that print their arguments; return what it prints."""
    for name, status in engines.items():
        file = tmp_path / name
        file.write_text(
            f'#!/bin/sh\nif [ "$1" = info ]; then exit {status}; fi\necho "${{0##*/}} $*"'
        )
        file.chmod(0o755)
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [tmp_path / "bash", CHECKOUT / "packaging/image", "name"],
        env={"PATH": str(tmp_path), **variables}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("engines", "expected"),
    [
        ({"podman": 0, "docker": 0}, "podman build {} --format docker ."),
        ({"docker": 0, "buildah": 0}, "docker build {} ."),
        ({"docker": 1, "buildah": 0}, "buildah build {} --format docker ."),
        ({"docker": 1}, "install podman, docker or buildah"),
    ],
)  # fmt: skip
def test_an_installed_engine_builds_the_image_with_its_health_check(tmp_path, engines, expected):
    """The format of OCI, which podman and buildah use by default, has none."""
    named = expected.format("--tag name --file Containerfile")
    assert _build_with(tmp_path, engines) == f"{named}\n"


def test_variables_name_the_engine_the_base_and_options(tmp_path):
    engine = str(tmp_path / "buildah")
    given = _build_with(
        tmp_path, {"podman": 0, "buildah": 0}, ENGINE=engine, BASE="b", IMAGE_OPTIONS="--pull-never"
    )
    assert given.endswith(" --format docker --build-arg BASE=b --pull-never .\n")


# There is no registry: the base is a new Debian. It has the authorities and the settings of apt
# and pip of the host, whose network may need them.
BASE = """\
debootstrap --variant=minbase --include=ca-certificates trixie $1/base
for file in /etc/ssl/certs/ca-certificates.crt /etc/apt/apt.conf.d/99* /etc/pip.conf; do
    [ ! -e $file ] || cp $file $1/base$file
done
container=$(buildah from scratch)
cp -a $1/base/. $(buildah mount $container)
rm -rf $1/base
buildah commit --quiet --rm $container localhost/base
"""

# The image has its health check in `health`.
SERVE = """\
ip link set lo up
container=$(buildah from --pull-never localhost/tftpd)
root=$(buildah mount $container)
echo content > $root/srv/tftp/file
buildah run $container -- sh -c "$health" && echo healthy without a server
buildah run $container -- tftpd run >$1/log 2>&1 &
server=$!
for attempt in $(seq 200); do
    grep -q 'serving on .*:69$' $1/log && break
    sleep 0.1
done
ss -Hulne 'sport = :69' | grep -o 'uid:[0-9]*' | sort -u
buildah run $container -- tftpc get -q -o - tftp://127.0.0.1/file
buildah run $container -- sh -c "$health" && echo healthy
find $root -path '*/bin/gcc*' -o -path '*/bin/pip*' -o -name '*.whl'
kill $server
wait $server
buildah rm $container >/dev/null
"""


@pytest.mark.nightly
def test_the_image_serves_without_being_root():
    """Takes 5 minutes on 2 processors: debootstrap, two installations, copies of layers."""
    for name in ("buildah", "debootstrap"):
        program(name)
    if os.getuid() != 0:
        pytest.skip("only root can create namespaces")
    with tempfile.TemporaryDirectory() as directory:
        storage = Path(directory, "storage.conf")
        # Overlays on the overlay of a container fail.
        places = f'graphroot = "{directory}/graph"\nrunroot = "{directory}/run"\n'
        storage.write_text(f'[storage]\ndriver = "vfs"\n{places}')
        environment = {
            **os.environ, "CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot",
            "BASE": "localhost/base", "ENGINE": "buildah", "IMAGE_OPTIONS": "--pull-never",
        }  # fmt: skip

        def run(*command):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=600, env=environment
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        run("bash", "-e", "-c", BASE, "-", directory)
        run(str(CHECKOUT / "packaging/image"), "localhost/tftpd")
        description = json.loads(run("buildah", "inspect", "--type", "image", "localhost/tftpd"))
        test, command = description["Docker"]["config"]["Healthcheck"]["Test"]
        assert test == "CMD-SHELL"
        environment["health"] = command
        output = run("unshare", "--net", "bash", "-c", SERVE, "-", directory)
        assert output == "uid:969\ncontent\nhealthy\n"
