"""Configurations and the schema in conf/."""

import json

import pydantic
import pytest

from tests.support.daemons import CHECKOUT
from tftpd.config import origin_checks
from tftpd.config.loader import build_schema, load_settings

SHIPPED = [CHECKOUT / "conf/tftpd.yaml", *sorted((CHECKOUT / "conf/examples").glob("*.yaml"))]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_is_valid(path, tmp_path, monkeypatch):
    # A build of the package has no libraries for origins.
    monkeypatch.setattr(origin_checks, "find_spec", lambda name: object())
    text = path.read_text()
    for line in text.splitlines():
        if line.strip().startswith("root: /"):
            root = line.split()[1]
            (tmp_path / root[1:]).mkdir(parents=True, exist_ok=True)
            text = text.replace(line, line.replace(root, str(tmp_path / root[1:])))
    copy = tmp_path / "copy.yaml"
    text = text.replace("/var/cache", str(tmp_path))
    copy.write_text(text.replace("../srv", str(CHECKOUT / "srv")))
    assert load_settings(copy).build_mounts()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_names_its_schema(path):
    first = path.read_text().splitlines()[0]
    prefix, _, name = first.partition("$schema=")
    assert prefix == "# yaml-language-server: "
    assert (path.parent / name).resolve() == CHECKOUT / "conf/tftpd.schema.json"


# Older versions of pydantic write the same schema in another form.
@pytest.mark.skipif(pydantic.VERSION.startswith(("2.9.", "2.10.")), reason="needs pydantic 2.11")
def test_the_exported_schema_is_current():
    exported = (CHECKOUT / "conf/tftpd.schema.json").read_text()
    assert exported == json.dumps(build_schema(), indent=2) + "\n"


def test_the_schema_has_ranges_choices_and_defaults():
    kinds = build_schema()["$defs"]
    port = kinds["ListenSection"]["properties"]["port"]
    assert (port["minimum"], port["maximum"]) == (1, 65535)
    dally = kinds["RetransmitSection"]["properties"]["dally"]
    assert (dally["exclusiveMinimum"], dally["maximum"]) == (0, 3600)
    assert kinds["LogSection"]["properties"]["format"]["enum"] == ["text", "json"]
    assert kinds["DirectorySection"]["properties"]["path"]["default"] == "/"
    assert kinds["WriteSection"]["properties"]["mode"]["default"] == "0644"
