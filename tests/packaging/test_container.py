"""The Containerfile: its health check and its labels."""

import os
import re
import subprocess

import pytest

from tests.support.daemons import CHECKOUT

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
