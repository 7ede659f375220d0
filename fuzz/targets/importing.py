"""`tftpd import-map`: a map becomes rules that a configuration takes, or problems with lines."""

from fuzz.bounds import bounded
from fuzz.choices import Choices
from fuzz.places import place
from fuzz.targets.config import loaded
from tftpd.daemon.import_map import format_rules, translate

_MOST = 15.0  # seconds
_PIECES = (
    *("r ", "rg ", "ri ", "re ", "rs ", "~ ", "a ", "G", "P", "4", "6", "e ", "s ", "\n", "#"),
    *("^/", "[^/]*$", "([a-z]+)", "\\(", "\\)", "\\.", "\\1", "\\U\\0\\E", "\\x", "\\i", "{2}"),
    *("[[:alpha:]]", "[]-a]", "(a|b)*", "a\\{2\\}", "''", '"', ": ", " ", "\t", "{", "}", "\\"),
)


def check(octets: bytes) -> None:
    """A map of pieces of maps, or of plain text."""
    choices = Choices(octets)
    text = ""
    if choices.flag():
        while choices:
            text += choices.one(_PIECES)
    else:
        text = choices.rest().decode("utf-8", "replace")
    with bounded(_MOST):
        rules, problems = translate(text)
        lines = text.count("\n") + 1
        assert all(1 <= line <= lines and why.isprintable() for line, why in problems)
        if problems:
            return
        assert all(1 <= rule.line <= lines for rule in rules)
        served = ["directories:", f"  - root: {place()}", "    read: {}"]
        section = "\n".join([*format_rules(rules), *served])
        path = place() / "imported.yaml"
        path.write_text(section + "\n")
        settings = loaded(path, section.encode())
    assert settings is not None, f"a configuration does not take {section}"
    assert len(settings.naming().rules) == sum(rule.rule is not None for rule in rules)
