"""Meeting, in the synchronous interface: `listen` and `connect`."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from functools import partial

from ._channel import Channel
from ._errors import Closed, NoListener, PeerGone, closed_error, timeout_error
from ._link import warn_of
from ._meeting import HANDSHAKE_SECONDS, Meeting, meet
from ._names import Access, address_of
from ._options import (
    ARENA_BYTES,
    MAX_BYTES_PER_USER,
    MAX_CHANNELS,
    RING_BYTES,
    addresses_of,
    connect_options,
    find_listener,
    listen_options,
    retry_pause,
)
from ._server import Server
from ._task import Task


class Listener:
    """A name at which others connect; made by `listen`. A thread of its own admits them, and serves
    imports of what was sent through its channels.

    A context manager, and an iterator over channels until it is closed.
    """

    #: As it was given to `listen`.
    name: str

    def __init__(self, server: Server, arrivals: queue.SimpleQueue[Meeting | None]) -> None:
        self._server = server
        self._arrivals = arrivals
        self.name = server.address.name

    def accept(self, timeout: float | None = None) -> Channel:
        """The next channel; blocks until somebody has connected.

        `timeout` in seconds, None: without end. Raises `Timeout`, `Closed`.
        """
        if self._server.closed:
            raise closed_error('the listener')
        try:
            meeting = self._arrivals.get(timeout=timeout)
        except queue.Empty:
            raise timeout_error('a connection', timeout or 0) from None
        if meeting is None:
            self._arrivals.put(None)  # for other threads that wait
            raise closed_error('the listener')
        return Channel(meeting)

    def __iter__(self) -> Iterator[Channel]:
        return self

    def __next__(self) -> Channel:
        try:
            return self.accept()
        except Closed:
            raise StopIteration from None

    def info(self) -> dict[str, object]:
        """What `ukshm ls` shows."""
        return self._server.exports.info()

    def close(self) -> None:
        """Frees the name. Channels that were handed out live on; others are closed. Idempotent."""
        self._server.close()
        while not self._arrivals.empty():
            meeting = self._arrivals.get()
            if meeting is not None:
                meeting.discard()
        self._arrivals.put(None)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, '_server') and not self._server.closed:
            warn_of(f"the listener at '{self.name}' was never closed")
            try:
                self.close()
            except Exception:  # the interpreter may be going down
                pass


def listen(
    name: str,
    *,
    access: Access = 'same-user',
    ring_bytes: int = RING_BYTES,
    arena_bytes: int = ARENA_BYTES,
    max_arena_bytes: int | None = None,
    max_bytes_per_user: int = MAX_BYTES_PER_USER,
    max_channels: int = MAX_CHANNELS,
    handshake_timeout: float = HANDSHAKE_SECONDS,
) -> Listener:
    """Listens at `name`: an abstract name (letters, digits, '.', '_', '-'), which vanishes with
    this process, or a path (with '/'), for containers that share a folder. Does not block.

    `access`: who may connect (and import what is forwarded): 'same-user', a collection of user
    ids, or a function of `Credentials`. `ring_bytes`, `arena_bytes`: of each direction unless the
    connector asks otherwise. `max_arena_bytes`: what it may ask for (default: the greater of 64 MiB
    and `arena_bytes`). `max_bytes_per_user`: shared memory of one user's channels together.
    `max_channels`: at a time. `handshake_timeout`: seconds that a meeting may last.

    Raises `UkshmError` ERR_UKSHM_NAME_IN_USE (and who has it), ERR_UKSHM_INVALID_ARGUMENT,
    ERR_UKSHM_UNSUPPORTED.
    """
    options = listen_options(
        access,
        ring_bytes,
        arena_bytes,
        max_arena_bytes,
        max_bytes_per_user,
        max_channels,
        handshake_timeout,
    )
    arrivals: queue.SimpleQueue[Meeting | None] = queue.SimpleQueue()
    return Listener(Server(address_of(name), options, arrivals.put), arrivals)


def connect(
    name: str,
    wait: bool = False,
    timeout: float | None = None,
    *,
    owner: Access = 'same-user',
    send_ring_bytes: int | None = None,
    send_arena_bytes: int | None = None,
    receive_ring_bytes: int | None = None,
    receive_arena_bytes: int | None = None,
    forward_via: Listener | None = None,
    handshake_timeout: float = HANDSHAKE_SECONDS,
) -> Channel:
    """Meets the listener at `name`. Blocks.

    `wait`: until there is a listener, instead of ERR_UKSHM_NO_LISTENER; `timeout`: how many seconds
    at most (None: without end). `owner`: to whom the listener must belong, as `access` of `listen`;
    checked before anything is sent. `…_bytes`: sizes by direction, the listener's if left out.
    `forward_via`: a listener of this process through which others may map what the peer forwards of
    ours. `handshake_timeout`: seconds that the listener may take to answer.

    Raises `UkshmError` ERR_UKSHM_NO_LISTENER, ERR_UKSHM_WRONG_OWNER (and who has the name),
    ERR_UKSHM_ACCESS_DENIED, ERR_UKSHM_LIMIT, ERR_UKSHM_VERSION, ERR_UKSHM_NO_MEMORY, `Timeout`,
    `PeerGone`, `PeerMisbehaved`, ERR_UKSHM_INVALID_ARGUMENT, ERR_UKSHM_UNSUPPORTED.
    """
    options = connect_options(
        owner,
        send_ring_bytes,
        send_arena_bytes,
        receive_ring_bytes,
        receive_arena_bytes,
        forward_via._server.exports if forward_via is not None else None,
        handshake_timeout,
    )
    addresses = addresses_of(name, options.owner)
    seconds = timeout if wait else handshake_timeout
    deadline = None if seconds is None else time.monotonic() + seconds
    attempt = 0
    while True:
        try:
            found = find_listener(addresses, options.owner)
            if found is not None:
                task = Task(partial(meet, *found, options), Meeting.discard)
                return Channel(task.wait(handshake_timeout + 1, 'an answer of the listener'))
        except (NoListener, PeerGone):
            if not wait or (deadline is not None and time.monotonic() > deadline):
                raise
        if deadline is not None and time.monotonic() > deadline:
            raise timeout_error(f"a place in the queue of '{name}'", seconds or 0)
        time.sleep(retry_pause(attempt))
        attempt += 1
