"""One run of atheris: `python -m fuzz.guided TARGET ARGUMENTS...`, those of libFuzzer.

A process of its own, since libFuzzer ends it at the first finding.
"""

import logging
import sys


def main(arguments: list[str]) -> None:
    """Fuzz until it ends the process."""
    import atheris

    name, *rest = arguments
    with atheris.instrument_imports(include=["tftpd", "yaml", "jinja2"]):
        from fuzz.targets import LONGEST, check_of

        check = check_of(name)
    logging.disable()
    # A merge has a shell run this once more, without quotes.
    again = f"{sys.executable} -m fuzz.guided {name}"
    atheris.Setup([again, f"-max_len={LONGEST[name]}", *rest], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
