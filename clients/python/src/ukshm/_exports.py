"""What of this process others may import at a listener, and how much its channels take."""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

from ._format import NO_TOKEN, REFUSED_LIMIT, Layout, Refusal
from ._names import Access, Address, Credentials


class ListenOptions(NamedTuple):
    """What a listener allows and prefers; sizes in bytes."""

    access: Access
    ring_bytes: int
    arena_bytes: int
    max_arena_bytes: int
    max_bytes_per_user: int
    max_channels: int
    handshake_seconds: float


class _Export:
    __slots__ = ('fd', 'huge', 'layout', 'peer', 'shared_bytes')

    def __init__(self, peer: Credentials | None, shared_bytes: int) -> None:
        self.fd = -1
        self.layout: Layout | None = None
        self.huge = False
        #: Of a channel that was made here, for the limits.
        self.peer = peer
        self.shared_bytes = shared_bytes


class Exports:
    """Outboxes by token. Used by the listener's thread and by those of the channels."""

    def __init__(self, address: Address, options: ListenOptions) -> None:
        self.address = address
        self._options = options
        self._lock = threading.Lock()
        self._closed = False
        self._table: dict[bytes, _Export] = {}
        self._bytes_by_user: dict[int, int] = {}

    def reserve(self, token: bytes, peer: Credentials, shared_bytes: int) -> None:
        """Counts a channel that is being made here. Raises `Refusal` beyond a limit."""
        options = self._options
        with self._lock:
            total = self._bytes_by_user.get(peer.uid, 0) + shared_bytes
            channels = sum(export.peer is not None for export in self._table.values())
            if total > options.max_bytes_per_user or channels >= options.max_channels:
                raise Refusal(REFUSED_LIMIT)
            self._bytes_by_user[peer.uid] = total
            self._table[token] = _Export(peer, shared_bytes)

    def add(self, token: bytes, fd: int, layout: Layout, huge: bool) -> None:
        """Lets others map this outbox of ours; `fd` is duplicated."""
        with self._lock:
            export = self._table.get(token)
            if export is None:
                export = self._table[token] = _Export(None, 0)
            if not self._closed:
                export.fd, export.layout, export.huge = os.dup(fd), layout, huge

    def take(self, token: bytes) -> tuple[int, Layout, bool] | None:
        """A descriptor (the caller's) of the outbox of this token, its layout, huge pages."""
        with self._lock:
            export = self._table.get(token)
            if export is None or export.layout is None or token == NO_TOKEN:
                return None
            return os.dup(export.fd), export.layout, export.huge

    def ended(self, token: bytes) -> None:
        """The channel of this token has ended, or never came to be."""
        with self._lock:
            export = self._table.pop(token, None)
            if export is None:
                return
            if export.peer is not None:
                self._bytes_by_user[export.peer.uid] -= export.shared_bytes
            if export.fd >= 0:
                os.close(export.fd)

    def close(self) -> None:
        """Nothing can be imported any more."""
        with self._lock:
            self._closed = True
            for export in self._table.values():
                if export.fd >= 0:
                    os.close(export.fd)
                export.fd, export.layout = -1, None

    def forked(self) -> None:
        """In a child: closes its copies, without a lock that another thread may have held."""
        self._lock = threading.Lock()
        self.close()

    def info(self) -> dict[str, object]:
        """What is told to whoever asks at the listener."""
        with self._lock:
            exports = list(self._table.values())
        return {
            'name': self.address.name,
            'kind': 'path' if self.address.is_path else 'abstract',
            'pid': os.getpid(),
            'uid': os.geteuid(),
            'channels': [
                {'peerPid': export.peer.pid, 'sharedBytes': export.shared_bytes}
                for export in exports
                if export.peer is not None
            ],
        }
