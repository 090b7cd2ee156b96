"""The numbers and byte layouts that two processes share: docs/FORMAT.md in Python.

Pure: no sockets, no memory of others. All numbers are little-endian. What comes from a peer is
checked here once and handed on as plain values.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from ._errors import RemoteError, UkshmError, cannot_forward, out_of_memory, peer_misbehaved

LAYOUT_VERSION: Final = 1
U32: Final = 0xFFFFFFFF

# Byte layout of an outbox. Each word of the first page has a pair of cache lines for itself.
#
#     0        128    256    384            512                 640               768
#     | config | tail | head | release tail | asleep for records| asleep for space| state
#     4096           4096 + ringBytes          next multiple of 65 536
#     | record ring  | release ring (32 768)   | arena
OUTBOX_MAGIC: Final = 0x48534B55
TAIL: Final = 128 // 4  # word numbers, for memoryview.cast('I')
HEAD: Final = 256 // 4
RELEASE_TAIL: Final = 384 // 4
STATE: Final = 768 // 4
STATE_CLOSING: Final = 1
RING_OFFSET: Final = 4096
RELEASE_SLOTS: Final = 4096
RELEASE_BYTES: Final = RELEASE_SLOTS * 8
ARENA_ALIGNMENT: Final = 65536
HUGE_PAGE: Final = 2 * 1024 * 1024

RING_BYTES_MIN: Final = 4096
RING_BYTES_MAX: Final = 1 << 30
ARENA_BYTES_MAX: Final = 1 << 30
AS_LISTENER_LIKES: Final = U32

RECORD: Final = struct.Struct('<HHI')  # length, type, id
DESCRIPTOR_BODY: Final = struct.Struct('<6I')  # offset, length, lease, generation, region, type
DESCRIPTOR_RECORD_BYTES: Final = 8 + 24
#: What programs may use, of messages, requests and replies alike.
TYPE_MAX: Final = 0x3FFF
TYPE_REQUEST: Final = 0x4000
TYPE_REPLY: Final = 0x8000
TYPE_FAILURE: Final = 0xC000
TYPE_DESCRIPTOR: Final = 0xFFFE
TYPE_PADDING: Final = 0xFFFF
PAYLOAD_BYTES_MAX: Final = 65520
INLINE_BYTES_MAX: Final = 8192
LEASES_MAX: Final = 4096
FAILURE_BYTES_MAX: Final = 4096

HELLO_MAGIC: Final = 0x49484B55
WELCOME_MAGIC: Final = 0x45574B55
ACK_MAGIC: Final = 0x4B4F4B55
HELLO_BYTES: Final = 256
WELCOME_BYTES: Final = 64
ACK_BYTES: Final = 16
ADDRESS_BYTES_MAX: Final = 110
ADDRESS_BYTES_MIN: Final = 3  # the family, and something
KIND_CHANNEL: Final = 0
KIND_IMPORT: Final = 1
KIND_INFO: Final = 2
FLAG_CANNOT_FENCE: Final = 1
FLAG_HUGE_PAGES: Final = 2
NO_TOKEN: Final = bytes(8)

OK: Final = 0
REFUSED_VERSION: Final = 1
REFUSED_ACCESS: Final = 2
REFUSED_LIMIT: Final = 3
REFUSED_MEMORY: Final = 4
REFUSED_TOKEN: Final = 5
REFUSED_MALFORMED: Final = 6

_HELLO: Final = struct.Struct('<8I8sI')
_WELCOME: Final = struct.Struct('<8I8s')


class Layout(NamedTuple):
    """Where the parts of an outbox lie, in bytes."""

    ring_bytes: int
    arena_bytes: int
    release_offset: int
    arena_offset: int
    #: Behind this nothing can be sent; the memfd is longer if it lies on huge pages.
    end: int

    def memfd_bytes(self, huge: bool) -> int:
        """The size of the memfd."""
        return -(-self.end // HUGE_PAGE) * HUGE_PAGE if huge else self.end

    @property
    def inline_bytes_max(self) -> int:
        """The longest payload that this side puts into the ring itself."""
        most = min(self.ring_bytes // 8, PAYLOAD_BYTES_MAX)
        return min(most, INLINE_BYTES_MAX) if self.arena_bytes else most


def layout_of(ring_bytes: int, arena_bytes: int) -> Layout:
    """The layout of an outbox of these sizes, which must be valid."""
    release = RING_OFFSET + ring_bytes
    arena = -(-(release + RELEASE_BYTES) // ARENA_ALIGNMENT) * ARENA_ALIGNMENT
    return Layout(ring_bytes, arena_bytes, release, arena, arena + arena_bytes)


def valid_ring_bytes(size: int) -> bool:
    """A power of two from 4096 to 2^30."""
    return RING_BYTES_MIN <= size <= RING_BYTES_MAX and size & (size - 1) == 0


def valid_arena_bytes(size: int) -> bool:
    """A multiple of 65 536 from 0 to 2^30."""
    return 0 <= size <= ARENA_BYTES_MAX and size % ARENA_ALIGNMENT == 0


class Hello(NamedTuple):
    """What a connector says first; `send` is its own outbox, `receive` the listener's."""

    kind: int
    flags: int
    send_ring: int
    send_arena: int
    receive_ring: int
    receive_arena: int
    token: bytes
    #: `struct sockaddr_un` of the connector's own listener; empty: it has none.
    address: bytes


class Welcome(NamedTuple):
    """The listener's answer; `back` is the connector's outbox."""

    flags: int
    ring: int
    arena: int
    back_ring: int
    back_arena: int
    token: bytes


class Refusal(Exception):
    """A greeting that is refused with `status`, the number in WELCOME."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def encode_hello(hello: Hello) -> bytes:
    """256 bytes."""
    head = _HELLO.pack(
        HELLO_MAGIC,
        LAYOUT_VERSION,
        hello.kind,
        hello.flags,
        hello.send_ring,
        hello.send_arena,
        hello.receive_ring,
        hello.receive_arena,
        hello.token,
        len(hello.address),
    )
    return (head + hello.address).ljust(HELLO_BYTES, b'\0')


def decode_hello(data: bytes) -> Hello:
    """Checks a connector's 256 bytes. Raises `Refusal`."""
    magic, version, kind, flags, *sizes, token, length = _HELLO.unpack_from(data)
    if magic != HELLO_MAGIC:
        raise Refusal(REFUSED_MALFORMED)
    if version != LAYOUT_VERSION:
        raise Refusal(REFUSED_VERSION)
    if kind > KIND_INFO or length > ADDRESS_BYTES_MAX:
        raise Refusal(REFUSED_MALFORMED)
    send_ring, send_arena, receive_ring, receive_arena = sizes
    if kind == KIND_CHANNEL:
        for ring in (send_ring, receive_ring):
            if ring != AS_LISTENER_LIKES and not valid_ring_bytes(ring):
                raise Refusal(REFUSED_MALFORMED)
        for arena in (send_arena, receive_arena):
            if arena != AS_LISTENER_LIKES and not valid_arena_bytes(arena):
                raise Refusal(REFUSED_MALFORMED)
    address = bytes(data[_HELLO.size : _HELLO.size + length])
    return Hello(kind, flags, send_ring, send_arena, receive_ring, receive_arena, token, address)


def encode_welcome(welcome: Welcome, status: int = OK) -> bytes:
    """64 bytes."""
    return _WELCOME.pack(
        WELCOME_MAGIC,
        LAYOUT_VERSION,
        status,
        welcome.flags,
        welcome.ring,
        welcome.arena,
        welcome.back_ring,
        welcome.back_arena,
        welcome.token,
    ).ljust(WELCOME_BYTES, b'\0')


def encode_refusal(status: int) -> bytes:
    """A WELCOME that refuses."""
    return encode_welcome(Welcome(FLAG_CANNOT_FENCE, 0, 0, 0, 0, NO_TOKEN), status)


def decode_welcome(data: bytes, kind: int = KIND_CHANNEL) -> Welcome:
    """Checks a listener's 64 bytes. Raises `UkshmError`: why it refused, or PEER_MISBEHAVED."""
    magic, version, status, flags, *sizes, token = _WELCOME.unpack_from(data)
    if magic != WELCOME_MAGIC:
        raise peer_misbehaved('no ukshm listener answered (wrong magic)')
    if version != LAYOUT_VERSION:
        raise _refused(REFUSED_VERSION)
    if status != OK:
        raise _refused(status)
    ring, arena, back_ring, back_arena = sizes
    if kind != KIND_INFO and not (valid_ring_bytes(ring) and valid_arena_bytes(arena)):
        raise peer_misbehaved(f'it offered a ring of {ring} and an arena of {arena} bytes')
    if kind == KIND_CHANNEL:
        if not (valid_ring_bytes(back_ring) and valid_arena_bytes(back_arena)):
            raise peer_misbehaved(f'it asked for {back_ring} and {back_arena} bytes of ours')
    return Welcome(flags, ring, arena, back_ring, back_arena, token)


def _refused(status: int) -> UkshmError:
    if status == REFUSED_VERSION:
        return UkshmError(
            'ERR_UKSHM_VERSION',
            f'the listener speaks another layout version than {LAYOUT_VERSION}: update one side',
        )
    if status == REFUSED_ACCESS:
        return UkshmError(
            'ERR_UKSHM_ACCESS_DENIED', "the listener's access does not admit this user"
        )
    if status == REFUSED_LIMIT:
        return UkshmError(
            'ERR_UKSHM_LIMIT',
            'the listener does not allow so much: ask for less, or raise its limits',
        )
    if status == REFUSED_MEMORY:
        return out_of_memory("the channel (at the listener's)")
    if status == REFUSED_TOKEN:
        return cannot_forward('its owner does not know that memory (any more)')
    return peer_misbehaved(f'it refused with status {status}')


def encode_ack() -> bytes:
    """16 bytes."""
    return struct.pack('<II8x', ACK_MAGIC, LAYOUT_VERSION)


def valid_ack(data: bytes) -> bool:
    """Whether a connector's 16 bytes are an ACK."""
    return struct.unpack_from('<II', data) == (ACK_MAGIC, LAYOUT_VERSION)


def encode_failure(error: BaseException) -> bytes:
    """The payload of a failure: the error's name, its code, its message."""
    code = getattr(error, 'code', '')
    name = type(error).__name__.replace('\n', ' ')
    text = f'{name}\n{code.splitlines()[0] if isinstance(code, str) and code else ""}\n{error}'
    # Cut, it may end within a character; that is dropped.
    return text.encode('utf-8', 'replace')[:FAILURE_BYTES_MAX].decode('utf-8', 'ignore').encode()


def decode_failure(data: bytes) -> RemoteError:
    """The error in a failure. It may say anything."""
    name, _, rest = data.decode('utf-8', 'replace').partition('\n')
    code, _, message = rest.partition('\n')
    return RemoteError(name, code, message)
