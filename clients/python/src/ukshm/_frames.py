"""Frames: what crosses a channel's socket after the meeting."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, Union

from ._format import ADDRESS_BYTES_MAX, ADDRESS_BYTES_MIN

RING_FRAME: Final = b'\x01'
_FRAME_BYTES: Final = {1: 1, 2: 132, 3: 9, 4: 5}

_IMPORT: Final = struct.Struct('<BI8sII110sx')
_IMPORTED: Final = struct.Struct('<BII')
_DROP: Final = struct.Struct('<BI')


class Ring(NamedTuple):
    """RING: look at the cursors."""


class Import(NamedTuple):
    """IMPORT: please map this region."""

    number: int
    token: bytes
    uid: int
    #: `struct sockaddr_un` of the listener at which to import it.
    address: bytes


class Imported(NamedTuple):
    """IMPORTED: the answer; `status` 1: mapped, else: refused."""

    number: int
    status: int


class Drop(NamedTuple):
    """DROP: no more messages lie in this region."""

    number: int


Frame = Union[Ring, Import, Imported, Drop]


def encode_frame(frame: Import | Imported | Drop) -> bytes:
    """A frame as it travels."""
    if isinstance(frame, Import):
        length = len(frame.address)
        return _IMPORT.pack(2, frame.number, frame.token, frame.uid, length, frame.address)
    if isinstance(frame, Imported):
        return _IMPORTED.pack(3, frame.number, frame.status)
    return _DROP.pack(4, frame.number)


class FrameParser:
    """Cuts what arrives on the socket into frames; an incomplete one waits for the rest."""

    __slots__ = ('_rest', 'broken')

    def __init__(self) -> None:
        self._rest = b''
        #: Why the protocol is broken; what arrives after that is not looked at.
        self.broken = ''

    @property
    def idle(self) -> bool:
        """Whether no part of a frame is waiting."""
        return not self._rest

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now, up to the one that breaks the protocol."""
        data = self._rest + data
        frames: list[Frame] = []
        at = 0
        while at < len(data) and not self.broken:
            size = _FRAME_BYTES.get(data[at], 0)
            if size == 0:
                self.broken = f'a frame of type {data[at]}'
                break
            if at + size > len(data):
                break
            frame, why = _decode_frame(data, at)
            if why:
                self.broken = why
                break
            frames.append(frame)
            at += size
        self._rest = data[at:]
        return frames


def _decode_frame(data: bytes, at: int) -> tuple[Frame, str]:
    kind = data[at]
    if kind == 1:
        return Ring(), ''
    if kind == 2:
        _, number, token, uid, length, address = _IMPORT.unpack_from(data, at)
        bad = not ADDRESS_BYTES_MIN <= length <= ADDRESS_BYTES_MAX
        return Import(number, token, uid, address[:length]), 'a malformed IMPORT' if bad else ''
    if kind == 3:
        return Imported(*_IMPORTED.unpack_from(data, at)[1:]), ''
    return Drop(_DROP.unpack_from(data, at)[1]), ''
