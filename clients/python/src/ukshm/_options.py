"""What `listen` and `connect` of both interfaces are asked for, checked."""

from __future__ import annotations

import os
import socket

from ._errors import NoListener, invalid_argument
from ._exports import Exports, ListenOptions
from ._format import AS_LISTENER_LIKES, valid_arena_bytes, valid_ring_bytes
from ._meeting import ConnectOptions
from ._names import Access, Address, address_of, check_access, check_platform, open_socket

RING_BYTES = 256 * 1024
ARENA_BYTES = 4 * 1024 * 1024
MAX_ARENA_BYTES = 64 * 1024 * 1024
MAX_BYTES_PER_USER = 1 << 30
MAX_CHANNELS = 1024


def listen_options(
    access: Access,
    ring_bytes: int,
    arena_bytes: int,
    max_arena_bytes: int | None,
    max_bytes_per_user: int,
    max_channels: int,
    handshake_timeout: float,
) -> ListenOptions:
    """Raises UNSUPPORTED, INVALID_ARGUMENT."""
    check_platform()
    check_ring('ring_bytes', ring_bytes)
    check_arena('arena_bytes', arena_bytes)
    if max_arena_bytes is None:
        max_arena_bytes = max(MAX_ARENA_BYTES, arena_bytes)
    check_arena('max_arena_bytes', max_arena_bytes)
    return ListenOptions(
        check_access('access', access),
        ring_bytes,
        arena_bytes,
        max_arena_bytes,
        max_bytes_per_user,
        max_channels,
        handshake_timeout,
    )


def connect_options(
    owner: Access,
    send_ring_bytes: int | None,
    send_arena_bytes: int | None,
    receive_ring_bytes: int | None,
    receive_arena_bytes: int | None,
    via: Exports | None,
    handshake_timeout: float,
) -> ConnectOptions:
    """Raises UNSUPPORTED, INVALID_ARGUMENT."""
    check_platform()
    return ConnectOptions(
        check_access('owner', owner),
        check_ring('send_ring_bytes', send_ring_bytes),
        check_arena('send_arena_bytes', send_arena_bytes),
        check_ring('receive_ring_bytes', receive_ring_bytes),
        check_arena('receive_arena_bytes', receive_arena_bytes),
        via,
        handshake_timeout,
    )


def check_ring(name: str, size: int | None) -> int:
    if size is None:
        return AS_LISTENER_LIKES
    if not valid_ring_bytes(size):
        raise invalid_argument(name, size, 'a power of two from 4096 to 2**30')
    return size


def check_arena(name: str, size: int | None) -> int:
    if size is None:
        return AS_LISTENER_LIKES
    if not valid_arena_bytes(size):
        raise invalid_argument(name, size, 'a multiple of 65536 from 0 to 2**30')
    return size


def addresses_of(name: str, owner: Access) -> list[Address]:
    """Where a listener of that name may be: an abstract name belongs to a user."""
    if isinstance(owner, str) or callable(owner) or '/' in name:
        return [address_of(name)]
    own = os.geteuid()
    uids = sorted(owner, key=lambda uid: (uid != own, uid))
    return [address_of(name, uid) for uid in uids]


def find_listener(
    addresses: list[Address], owner: Access
) -> tuple[socket.socket, Address] | None:
    """Connects to the first listener there is; None while its queue is full. Never blocks.

    Raises NO_LISTENER, WRONG_OWNER, ACCESS_DENIED.
    """
    nobody: NoListener | None = None
    for address in addresses:
        try:
            sock = open_socket(address, owner)
            return None if sock is None else (sock, address)
        except NoListener as error:
            nobody = error
    raise nobody or invalid_argument('owner', owner, 'at least one user id')


def retry_pause(attempt: int) -> float:
    """Seconds until the next look for a listener: 2 ms at first, 50 ms at most."""
    return min(0.05, 0.002 * (attempt + 1))
