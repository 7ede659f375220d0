"""Hostile names that need no prepared files."""

import unicodedata
from collections.abc import Callable

TARGET = "outside/secret"

PARENTS = [
    *("..", "...", "....", "../..", "..;", "..,"),
    *("..%00", "..\x01", "..\x7f", "..\r", "..\n", "..\t"),
    *(".. ", " ..", ". .", ".\t.", ".\x08.", "..\udcff", "\udcff..", "..~", "~", "~root", "$HOME"),
    *("%2e%2e", "%2E%2E", "%252e%252e", ".%2e"),
    *("%2e.", "%c0%ae%c0%ae", "%u002e%u002e", "&#46;&#46;"),
    *("\\x2e\\x2e", "\\056\\056", "0x2e0x2e", "..::$INDEX_ALLOCATION", "..:stream", "..::$DATA"),
    # Overlong UTF-8 encodings of dots
    *("\udcc0\udcae\udcc0\udcae"),
    *("\udce0\udc80\udcae\udce0\udc80\udcae", "\udcf0\udc80\udc80\udcae"),
    # Characters that look like dots, or become them by NFKC
    *("\u2025", "\uff0e\uff0e", "\u2024\u2024"),
    *("\ufe52\ufe52", "\u2026", "\u00b7\u00b7", "\u0701\u0701"),
    # Invisible characters
    *(".\u200b.", "\u200b..", "..\u200d", "\u202e.."),
    *("..\u202c", "\ufeff..", ".\u00ad.", "\u2066..\u2069"),
    *(".\u0307.", "..\u0338", "..\u2400", "..\u00a0", "..\u3000"),
]  # fmt: skip
"""Spellings that could be mistaken for the parent directory."""

SEPARATORS = [
    *("/", "//", "///", "/./", "\\", "\\\\", "/\\", "\\/", "/.//", "\\.\\"),
    *("%2f", "%2F", "%5c", "%252f", "%c0%af", "%c1%9c", "&#47;", "\\x2f", ":", "|", "\x1a"),
    *("\udcc0\udcaf", "\udce0\udc80\udcaf", "\udcf0\udc80\udc80\udcaf", "\udcc1\udc9c"),
    *("\u2215", "\u2044", "\uff0f", "\uff3c", "\u29f8"),
    *("\u29f5", "\u2571", "\u0338", "\u00a5", "\u20a9"),
    # Second bytes of GBK, Big5 and Shift-JIS that are a backslash
    *("\udc81\\", "\udc83\\", "\udca4\\", "\udca1\udcfe"),
]  # fmt: skip
"""Characters that could be mistaken for a separator."""

PREFIXES = [
    *("", "/", "//", "\\", "./", "inner/", "inner/deep/../", "file/", "missing/", "inner\\"),
    *("C:", "C:\\", "c:/", "/C:/"),
    *("\\\\?\\", "\\\\.\\", "\\\\localhost\\c$\\", "file://", "tftp://h/"),
    *("boot/", "/tftpboot/", "\u202e", "\ufeff", "\udcff", "\x01", " ", "-", "@"),
]  # fmt: skip
"""Prefixes of a name with the parent directory."""

SUFFIXES = [
    *("", " ", ".", "...", "/", "//", "/."),
    *("\\", "\udcff", "\udcff\x12\udcff", "\r\n", "\x1a", ";1", "~"),
    *("::$DATA", ":secret", "%00", "%00.0", "?"),
    *("#", "\u200b", "\u202e", "\x7f", "/../secret", ".bak"),
]  # fmt: skip
"""Suffixes of a name with the parent directory."""

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
"""Names of existing files outside the root."""

LONG_NAMES = [
    *("x" * size for size in (255, 256, 4095, 4096, 4097, 8000)),
    *(
        "../" * 1000 + TARGET,
        "a/" * 1000 + "../" * 1001 + TARGET,
        "a/" * 400 + "../" * 401 + TARGET,
    ),
    *(
        "/" * 4000 + "../" + TARGET,
        "./" * 1500 + "../" + TARGET,
        "inner/../" * 300 + "../" + TARGET,
    ),
    *("x" * 255 + "/../../" + TARGET, "x" * 256 + "/../../" + TARGET, "inner/" * 600 + "secret"),
]
"""Names up to the limit of the file system, and longer."""


def hostile_names(expand: Callable[[str], str]) -> dict[str, list[bytes]]:
    """Return names that lead outside if one part of them is misread, by the kind of that part.

    Args:
        expand: Function that inserts the paths of a tree.
    """
    single_bytes = [bytes([value]) for value in range(1, 256)]
    names_by_kind = {
        "a spelling of the parent": [f"{parent}/{TARGET}" for parent in PARENTS],
        "a spelling of the parent, twice": [
            f"inner/{parent}/{parent}/{TARGET}" for parent in PARENTS
        ],
        "a spelling of the separator": [
            separator.join(("..", "outside", "secret")) for separator in SEPARATORS
        ],
        "a spelling of the separator, from below": [
            separator.join(("inner", "..", "..", "outside", "secret")) for separator in SEPARATORS
        ],
        "a prefix": [f"{prefix}../{TARGET}" for prefix in PREFIXES],
        "a suffix": [f"../{TARGET}{suffix}" for suffix in SUFFIXES],
        "composed and decomposed": [
            unicodedata.normalize(form, f"../\u00e9/\uff0e\uff0e\uff0f{TARGET}")
            for form in ("NFC", "NFD", "NFKC", "NFKD")
        ],
        "existing files elsewhere": list(map(expand, ABSOLUTE)),
        "long names": LONG_NAMES,
    }
    encoded = {
        kind: [name.encode("utf-8", "surrogateescape") for name in names]
        for kind, names in names_by_kind.items()
    }
    encoded["each byte in a parent"] = [
        b"." + byte + b"./" + TARGET.encode() for byte in single_bytes
    ]
    encoded["each byte after a parent"] = [
        b".." + byte + b"/" + TARGET.encode() for byte in single_bytes
    ]
    encoded["each byte as the separator"] = [
        byte.join((b"..", b"outside", b"secret")) for byte in single_bytes
    ]
    encoded["UTF-16"] = [
        text.encode("utf-16-le") for text in (f"../{TARGET}", "..\\outside\\secret")
    ]
    encoded["UTF-7"] = [b"+AC4ALgAv-" + TARGET.encode(), b"+AC4-+AC4-/" + TARGET.encode()]
    return encoded


KINDS = list(hostile_names(str))
"""Test ids of the names."""

DATAGRAMS_WITH_NULS = [
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
"""Datagrams with NUL bytes at unusual positions of the name."""
