"""Ways out that are in the name alone: nothing is on disk for them."""

import unicodedata
from collections.abc import Callable

AIM = "outside/secret"

PARENTS = [
    *("..", "...", "....", "../..", "..;", "..,"),
    *("..%00", "..\x01", "..\x7f", "..\r", "..\n", "..\t"),
    *(".. ", " ..", ". .", ".\t.", ".\x08.", "..\udcff", "\udcff..", "..~", "~", "~root", "$HOME"),
    *("%2e%2e", "%2E%2E", "%252e%252e", ".%2e"),
    *("%2e.", "%c0%ae%c0%ae", "%u002e%u002e", "&#46;&#46;"),
    *("\\x2e\\x2e", "\\056\\056", "0x2e0x2e", "..::$INDEX_ALLOCATION", "..:stream", "..::$DATA"),
    # Octets that a careless reader of UTF-8 takes for dots
    *("\udcc0\udcae\udcc0\udcae"),
    *("\udce0\udc80\udcae\udce0\udc80\udcae", "\udcf0\udc80\udc80\udcae"),
    # Characters that look like dots, or become them by NFKC
    *("\u2025", "\uff0e\uff0e", "\u2024\u2024"),
    *("\ufe52\ufe52", "\u2026", "\u00b7\u00b7", "\u0701\u0701"),
    # Characters that nobody sees
    *(".\u200b.", "\u200b..", "..\u200d", "\u202e.."),
    *("..\u202c", "\ufeff..", ".\u00ad.", "\u2066..\u2069"),
    *(".\u0307.", "..\u0338", "..\u2400", "..\u00a0", "..\u3000"),
]  # fmt: skip
"""Spellings that might be taken for the parent directory."""

SLASHES = [
    *("/", "//", "///", "/./", "\\", "\\\\", "/\\", "\\/", "/.//", "\\.\\"),
    *("%2f", "%2F", "%5c", "%252f", "%c0%af", "%c1%9c", "&#47;", "\\x2f", ":", "|", "\x1a"),
    *("\udcc0\udcaf", "\udce0\udc80\udcaf", "\udcf0\udc80\udc80\udcaf", "\udcc1\udc9c"),
    *("\u2215", "\u2044", "\uff0f", "\uff3c", "\u29f8"),
    *("\u29f5", "\u2571", "\u0338", "\u00a5", "\u20a9"),
    # Second octets of GBK, Big5 and Shift-JIS that are a backslash
    *("\udc81\\", "\udc83\\", "\udca4\\", "\udca1\udcfe"),
]  # fmt: skip
"""Characters that might be taken for a separator."""

PREFIXES = [
    *("", "/", "//", "\\", "./", "inner/", "inner/deep/../", "file/", "missing/", "inner\\"),
    *("C:", "C:\\", "c:/", "/C:/"),
    *("\\\\?\\", "\\\\.\\", "\\\\localhost\\c$\\", "file://", "tftp://h/"),
    *("boot/", "/tftpboot/", "\u202e", "\ufeff", "\udcff", "\x01", " ", "-", "@"),
]  # fmt: skip
"""Prefixes of the parent directory."""

SUFFIXES = [
    *("", " ", ".", "...", "/", "//", "/."),
    *("\\", "\udcff", "\udcff\x12\udcff", "\r\n", "\x1a", ";1", "~"),
    *("::$DATA", ":secret", "%00", "%00.0", "?"),
    *("#", "\u200b", "\u202e", "\x7f", "/../secret", ".bak"),
]  # fmt: skip
"""Suffixes of the parent directory."""

ABSOLUTE = [
    *("{outside}/secret", "/{outside}/secret", "\\{outside}\\secret", "{base}/rootx/secret"),
    *(
        "{root}/../outside/secret",
        "{root}/file/../../outside/secret",
        "/proc/self/root{outside}/secret",
    ),
    *("/proc/self/cwd/secret", "/proc/self/environ", "/proc/self/fd/0", "/dev/fd/0", "/dev/stdin"),
    *(
        "/etc/passwd",
        "etc/passwd",
        "/dev/zero",
        "/dev/null",
        "CON",
        "NUL",
        "aux.txt",
        "COM1",
        "PRN:",
    ),
    *(
        "root/file",
        "../root/file",
        "..\\root\\file",
        "/../root/inner/file",
        "inner/../../root/file",
    ),
]
"""Names of things that are there, elsewhere."""

LENGTHS = [
    *("x" * size for size in (255, 256, 4095, 4096, 4097, 8000)),
    *("../" * 1000 + AIM, "a/" * 1000 + "../" * 1001 + AIM, "a/" * 400 + "../" * 401 + AIM),
    *("/" * 4000 + "../" + AIM, "./" * 1500 + "../" + AIM, "inner/../" * 300 + "../" + AIM),
    *("x" * 255 + "/../../" + AIM, "x" * 256 + "/../../" + AIM, "inner/" * 600 + "secret"),
]
"""Names as long as a file system knows, and longer."""


def out(filled: Callable[[str], str]) -> dict[str, list[bytes]]:
    """Names that lead out if one thing of them is misread, by what that is.

    `filled` knows the places of a world.
    """
    octets = [bytes([at]) for at in range(1, 256)]
    everywhere = {
        "what may be the directory above": [f"{up}/{AIM}" for up in PARENTS],
        "what may be the directory above, twice": [f"inner/{up}/{up}/{AIM}" for up in PARENTS],
        "what may be a slash": [by.join(("..", "outside", "secret")) for by in SLASHES],
        "what may be a slash, from below": [
            by.join(("inner", "..", "..", "outside", "secret")) for by in SLASHES
        ],
        "what may stand before": [f"{before}../{AIM}" for before in PREFIXES],
        "what may stand behind": [f"../{AIM}{behind}" for behind in SUFFIXES],
        "composed and decomposed": [
            unicodedata.normalize(form, f"../\u00e9/\uff0e\uff0e\uff0f{AIM}")
            for form in ("NFC", "NFD", "NFKC", "NFKD")
        ],
        "things that are elsewhere": list(map(filled, ABSOLUTE)),
        "lengths": LENGTHS,
    }
    found = {
        kind: [name.encode("utf-8", "surrogateescape") for name in names]
        for kind, names in everywhere.items()
    }
    found["each octet in a parent"] = [b"." + octet + b"./" + AIM.encode() for octet in octets]
    found["each octet behind a parent"] = [b".." + octet + b"/" + AIM.encode() for octet in octets]
    found["each octet for a slash"] = [
        octet.join((b"..", b"outside", b"secret")) for octet in octets
    ]
    found["UTF-16"] = [text.encode("utf-16-le") for text in (f"../{AIM}", "..\\outside\\secret")]
    found["UTF-7"] = [b"+AC4ALgAv-" + AIM.encode(), b"+AC4-+AC4-/" + AIM.encode()]
    return found


KINDS = list(out(str))
"""Test ids of the names."""

NULS = [
    b"\0\1../outside/secret",
    b"\0\1../outside/secret\0",
    b"\0\1\0../outside/secret\0octet\0",
    b"\0\1file\0../outside/secret\0octet\0",
    b"\0\1..\0/outside/secret\0octet\0",
    b"\0\1inner\0/../../outside/secret\0octet\0",
    b"\0\1../outside/secret\0\0octet\0",
    b"\0\1../outside/secret\0OcTeT\0\0\0\0",
    b"\0\1../outside/secret\0octet\0tsize\0",
    b"\0\1../outside/secret\0octet\0tsize\x000\0blksize\x001428\0windowsize\x0016\0",
    b"\0\1../outside/secret\0netascii\0",
    b"\0\1../outside/secret\0mail\0",
    b"\0\1../outside/secret\0octet\0root\0/\0",
    b"\0\1../outside/secret\0octet\0/../outside/secret\0/\0",
    b"\0\2../outside/secret\0octet\0",
    b"\0\2\0../outside/secret\0octet\0",
    b"\0\2..\0/outside/secret\0octet\0",
    b"\0\2../outside/new\0octet\0tsize\x0016\0",
    b"\0\2{outside}/secret\0netascii\0",
    b"\1\0../outside/secret\0octet\0",
    b"\0\1../outside/secret\xc0\x80octet\0",
    b"\0\1" + b"\0../outside/secret" * 400 + b"\0",
]
"""Datagrams in which the name ends elsewhere than one reader thinks."""
