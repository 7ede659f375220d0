"""Option names, ranges and values.

RFC 2347 defines the mechanism, RFC 2348 blksize, RFC 2349 timeout and tsize, RFC 7440
windowsize. The options utimeout, blksize2 and rollover come from tftp-hpa.
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

DEFAULT_BLKSIZE = 512  # bytes, RFC 1350 section 2
DEFAULT_WINDOWSIZE = 1  # blocks, RFC 7440 section 3

RANGES = {
    BLKSIZE: (8, 65464),  # bytes, RFC 2348
    BLKSIZE2: (8, 65464),
    TIMEOUT: (1, 255),  # seconds, RFC 2349
    UTIMEOUT: (10_000, 255_000_000),  # microseconds, the range of tftp-hpa
    TSIZE: (0, 2**63 - 1),  # bytes, up to the largest file offset of POSIX
    WINDOWSIZE: (1, 65535),  # blocks, RFC 7440 section 3
    ROLLOVER: (0, 1),
}
"""Smallest and largest value of each option."""

_MAX_DIGITS = 19  # digits of 2**63 - 1; int() is slow for thousands of digits


def parse_int(value: bytes, bounds: tuple[int, int], clamp: bool = False) -> int | None:
    """Parse an option value as a non-negative integer in ASCII digits.

    Args:
        value: The value of the option.
        bounds: Smallest and largest valid number, as in `RANGES`.
        clamp: True to return the largest valid number for a larger one.

    Returns:
        The number, or None if the value is empty, has a sign, a space, a fraction or other
        characters, or is out of range. The OACK leaves out such an option (RFC 2347).
    """
    low, high = bounds
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        return None
    number = min(int(value), high) if clamp else int(value)
    return number if low <= number <= high else None
