"""Patterns in URLs, as curl has them: `{a,b}`, `[1-5]`, `[01-10]`, `[a-f]` and `[0-100:10]`.

A pattern stands for several URLs. It is no pattern of names on the server, which TFTP cannot list.
"""

import re
from itertools import product
from math import prod

from tftpd.client.errors import UsageError

MAX_URLS = 100_000

# The scheme and the host; an IPv6 address has brackets of its own.
_HOST = re.compile(r"[a-z]+://(?:\[[^\]]*\])?[^/]*/", re.IGNORECASE)
_PART = re.compile(r"\{(?P<names>[^{}]*)\}|\[(?P<range>[^\[\]]*)\]|(?P<stray>[{}\[\]])")
_NUMBERS = re.compile(r"(\d{1,18})-(\d{1,18})(?::(\d{1,18}))?", re.ASCII)
_LETTERS = re.compile(r"(?:([a-z])-([a-z])|([A-Z])-([A-Z]))(?::(\d{1,18}))?", re.ASCII)


def expand_url(url: str) -> list[str]:
    """Return the URLs for which a URL with patterns stands, in the order of curl.

    Raises:
        UsageError: A pattern is invalid, or stands for more than `MAX_URLS` URLs.
    """
    match = _HOST.match(url)
    position = match.end() if match else 0
    texts, choices = [url[:position]], []
    for part in _PART.finditer(url, position):
        texts[-1] += url[position : part.start()]
        choices.append(_choices(part, url))
        texts.append("")
        position = part.end()
    texts[-1] += url[position:]
    if prod(map(len, choices)) > MAX_URLS:
        raise UsageError(f'"{url}" stands for more than {MAX_URLS} URLs')
    first, *rest = texts
    return [
        first + "".join(choice + text for choice, text in zip(chosen, rest, strict=True))
        for chosen in product(*choices)
    ]


def _choices(part: re.Match[str], url: str) -> list[str]:
    if part["names"]:
        return part["names"].split(",")
    text = part["range"] or ""
    if match := _NUMBERS.fullmatch(text):
        first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
        width = len(match[1]) if match[1].startswith("0") else 0
    elif match := _LETTERS.fullmatch(text):
        first, last = ord(match[1] or match[3]), ord(match[2] or match[4])
        step = int(match[5] or 1)
        width = -1
    else:
        raise UsageError(
            f'invalid pattern "{part[0]}" in "{url}": use {{a,b}}, [1-5] or [a-f]; '
            "with -g these characters have no special meaning"
        )
    if step < 1 or first > last:
        raise UsageError(f'empty range "{part[0]}" in "{url}"')
    numbers = range(first, last + 1, step)
    if len(numbers) > MAX_URLS:
        raise UsageError(f'"{url}" stands for more than {MAX_URLS} URLs')
    return [chr(number) if width < 0 else f"{number:0{width}}" for number in numbers]
