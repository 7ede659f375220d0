"""The manifests of share/kubernetes: kubectl builds them, and Kubernetes would accept them."""

import subprocess

import pytest
import yaml

import tftpd
from tests.support.daemons import CHECKOUT
from tests.support.programs import program
from tftpd.config.loader import load_settings

pytestmark = pytest.mark.check

OVERLAYS = ["hostnetwork", "loadbalancer"]
VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
MAX_STOP_SECONDS = 5  # for the last steps after the drain


def build(overlay):
    """Return the objects of an overlay by kind and name, and their text."""
    directory = CHECKOUT / "share/kubernetes/overlays" / overlay
    done = subprocess.run(
        [program("kubectl"), "kustomize", str(directory)], capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    documents = yaml.safe_load_all(done.stdout)
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}, done.stdout


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request):
    return build(request.param)[0]


@pytest.fixture
def settings(objects, tmp_path):
    """Return the settings of the ConfigMap."""
    (tmp_path / "srv").mkdir()
    text = objects["ConfigMap", "tftpd"]["data"]["tftpd.yaml"]
    path = tmp_path / "tftpd.yaml"
    path.write_text(text.replace("/srv/tftp", str(tmp_path / "srv")))
    return load_settings(path)


def pod(objects):
    return objects["DaemonSet", "tftpd"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_fits_the_schemas_of_kubernetes(overlay, tmp_path):
    file = tmp_path / "manifest.yaml"
    file.write_bytes(build(overlay)[1])
    for version in VERSIONS:
        command = [program("kubernetes-validate"), "--strict", "-k", version, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"daemonset/tftpd against version {version}" in done.stdout


def test_the_check_finds_a_misspelt_key(tmp_path):
    file = tmp_path / "manifest.yaml"
    file.write_bytes(build("hostnetwork")[1].replace(b"minReadySeconds", b"minReadySecond"))
    command = [program("kubernetes-validate"), "--strict", "-k", VERSIONS[0], str(file)]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode != 0


def test_the_configuration_is_reloaded_and_not_renamed(objects, settings):
    assert settings.reload == "watch"
    (volume,) = [each for each in pod(objects)["volumes"] if each["name"] == "config"]
    assert volume["configMap"]["name"] == "tftpd"
    (mount,) = [m for m in pod(objects)["containers"][0]["volumeMounts"] if m["name"] == "config"]
    assert "subPath" not in mount


def test_a_pod_has_time_to_drain(objects, settings):
    (container,) = pod(objects)["containers"]
    probe = container["readinessProbe"]
    assert probe["httpGet"]["path"] == "/health"
    assert settings.drain_delay > 2 * probe["periodSeconds"] * probe["failureThreshold"]
    grace = pod(objects)["terminationGracePeriodSeconds"]
    assert grace >= settings.drain_delay + settings.drain_timeout + MAX_STOP_SECONDS
    assert container["livenessProbe"]["httpGet"]["path"] != "/health"  # 503 while it drains


def test_the_page_is_at_the_port_of_the_probes(objects, settings):
    ports = {each["name"]: each["containerPort"] for each in pod(objects)["containers"][0]["ports"]}
    assert settings.status.port == ports["status"]
    assert {listen.port for _, listen in settings.expand_listen()} == {ports["tftp"]}


def test_the_image_has_the_version_of_the_package(objects):
    assert pod(objects)["containers"][0]["image"].endswith(f"/tftpd:{tftpd.__version__}")


def test_hostnetwork_uses_the_network_of_the_node():
    objects, _ = build("hostnetwork")
    assert pod(objects)["hostNetwork"] is True
    assert [kind for kind, _ in objects].count("Service") == 1  # of the status pages


def test_a_service_needs_single_port_mode():
    objects, _ = build("loadbalancer")
    service = objects["Service", "tftpd"]["spec"]
    labels = objects["DaemonSet", "tftpd"]["spec"]["template"]["metadata"]["labels"]
    assert (service["type"], service["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    assert service["selector"].items() <= labels.items()
    configuration = yaml.safe_load(objects["ConfigMap", "tftpd"]["data"]["tftpd.yaml"])
    assert {listen["mode"] for listen in configuration["listen"]} == {"single-port"}
