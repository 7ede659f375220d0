"""`python -m manuals [DIRECTORY]`: write manual pages and completions beneath `share/`."""

import sys
from pathlib import Path

from manuals.built import files

CHECKOUT = Path(__file__).parent.parent


def main(arguments: list[str]) -> int:
    """Write every file beneath the directory, this checkout if none is named."""
    prefix = Path(arguments[0]) if arguments else CHECKOUT
    for name, text in files().items():
        path = prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
