"""The options of a request: their names, their ranges, their texts.

RFC 2347 (the mechanism), RFC 2348 (blksize), RFC 2349 (timeout, tsize),
RFC 7440 (windowsize); utimeout, blksize2 and rollover are tftp-hpa's.
"""

Option = tuple[bytes, bytes]
Options = tuple[Option, ...]

BLKSIZE = b"blksize"
BLKSIZE2 = b"blksize2"
TIMEOUT = b"timeout"
UTIMEOUT = b"utimeout"
TSIZE = b"tsize"
WINDOWSIZE = b"windowsize"
ROLLOVER = b"rollover"

NAMES = (BLKSIZE, BLKSIZE2, TIMEOUT, UTIMEOUT, TSIZE, WINDOWSIZE, ROLLOVER)

DEFAULT_BLKSIZE = 512  # RFC 1350 s2
DEFAULT_WINDOWSIZE = 1  # RFC 7440 s3

BLKSIZE_RANGE = (8, 65464)  # RFC 2348
TIMEOUT_RANGE = (1, 255)  # seconds, RFC 2349
UTIMEOUT_RANGE = (10_000, 255_000_000)  # microseconds, as tftp-hpa takes them
TSIZE_RANGE = (0, 2**63 - 1)  # octets; the largest file offset of POSIX
WINDOWSIZE_RANGE = (1, 65535)  # RFC 7440 s3
ROLLOVER_RANGE = (0, 1)

_LONGEST = 19  # digits of 2**63 - 1; int() of thousands of digits is slow


def parse_int(value: bytes, bounds: tuple[int, int]) -> int | None:
    """The whole number that `value` spells in ASCII digits, if within `bounds`.

    None for anything else: an empty text, a sign, a blank, a fraction, a
    number out of range. RFC 2347 leaves such options out of the OACK.
    """
    if not value.isdigit() or len(value) > _LONGEST:
        return None
    spelled = int(value)
    low, high = bounds
    return spelled if low <= spelled <= high else None
