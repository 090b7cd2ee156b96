"""The payload of actors: byte i of message k is (k * 131 + i * 7 + (i >> 8)) & 255."""

from __future__ import annotations

from typing import Final

# Each 256 bytes are the 256 before them plus one, so all patterns are slices of one long one.
_ROWS: Final = [bytes((start + 7 * i) & 255 for i in range(256)) for start in range(256)]
_PERIOD: Final = b''.join(_ROWS)
_long = memoryview(_PERIOD * 2)


def pattern(number: int, length: int) -> memoryview:
    """The payload of a message: its number is taken modulo 2^32 where it is an id."""
    global _long
    start = ((number * 131) & 255) * 256
    if start + length > len(_long):
        _long = memoryview(_PERIOD * ((start + length) // len(_PERIOD) + 1))
    return _long[start : start + length]
