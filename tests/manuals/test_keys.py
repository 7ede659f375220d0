"""A schema of pydantic models, read into keys."""

from pydantic import BaseModel, Field

from manuals.keys import Key, Mappings, mappings
from tftpd.config.loader import schema


class Inner(BaseModel):
    """What is inside."""

    size: float = Field(default=1.0, description="How large.", gt=0, le=9)


class Outer(BaseModel):
    """What is outside."""

    name: str = Field(description="A name.")
    entries: list[Inner] = Field(default=[], min_length=1, description="Entries.")
    switch: Inner | bool = Field(default=False, description="Whether.")


def test_keys_come_with_what_may_be_written_and_defaults():
    inner = (Key("size", "How large.", "seconds above 0, at most 9", False, "1"),)
    assert list(mappings(Outer.model_json_schema())) == [
        Mappings(
            "",
            "What is outside.",
            (
                Key("name", "A name.", "", True, None),
                Key("entries", "Entries.", "a list of mappings, at least one", False, None),
                Key("switch", "Whether.", "a mapping, or `true` or `false`", False, "false"),
            ),
        ),
        Mappings("entries[]", "What is inside.", inner),
        Mappings("switch", "What is inside.", inner),
    ]


def test_the_keys_of_the_daemon_are_found_where_they_are():
    found = {
        mapping.path: {key.name: key for key in mapping.keys} for mapping in mappings(schema())
    }
    assert {"", "listen[]", "directories[]", "directories[].write", "limits"} <= set(found)
    write = found["directories[].write"]
    assert (write["mode"].values, write["mode"].default) == ("an octal number", "0644")
    assert found["limits"]["window_octets"].default == "2MiB"
    assert found["log"]["format"].values == "`text` or `json`"
    assert found["listen[]"]["port"].values == "a number from 1 to 65535"
    assert found["directories[]"]["root"].required
