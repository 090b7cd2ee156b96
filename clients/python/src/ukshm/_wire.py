"""The socket of a channel: doorbell, frames, and the news that the peer has gone."""

from __future__ import annotations

import os
import select
import socket
import threading
from typing import Final

from ._frames import RING_FRAME, Drop, Frame, FrameParser, Import, Imported, encode_frame

_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_READ_BYTES: Final = 4096
_OUTGOING_BYTES_MAX: Final = 64 * 1024


class Wire:
    """Owns the socket, the peer's pidfd, and an epoll descriptor over both."""

    __slots__ = (
        '_epoll',
        '_lock',
        '_outgoing',
        '_parser',
        '_pidfd',
        '_poke',
        '_send',
        '_sock',
        '_sock_fd',
        'closed',
        'frames',
        'hung',
        'rings_received',
        'rings_sent',
    )

    def __init__(self, sock: socket.socket, pidfd: int) -> None:
        self._sock = sock
        self._sock_fd = sock.fileno()
        self._send = sock.send
        self._pidfd = pidfd
        self._parser = FrameParser()
        self._outgoing = b''
        self._lock = threading.Lock()  # IMPORTED is sent by the thread that maps
        self._poke = -1
        self._epoll = select.epoll()
        self._epoll.register(sock, select.EPOLLIN)
        if pidfd >= 0:
            self._epoll.register(pidfd, select.EPOLLIN)
        #: The peer has hung up or died, or the channel was ended here: nothing more can come.
        self.hung = False
        self.closed = False
        #: What has arrived beside RING, for the channel to handle.
        self.frames: list[Frame] = []
        self.rings_sent = 0
        self.rings_received = 0

    @property
    def broken(self) -> str:
        """Why what the peer sent is no frame; empty: all is well."""
        return self._parser.broken

    def fileno(self) -> int:
        """Readable when there may be news."""
        return self._epoll.fileno()

    def ring(self) -> None:
        """Wakes the peer. Python cannot fence its look at the peer's sleep word behind its own
        store, so it never looks: it rings for every publish and release."""
        self.rings_sent += 1
        if self._outgoing:
            self._ring_behind()
            return
        try:
            self._send(RING_FRAME, _FLAGS)
        except BlockingIOError:
            pass  # the peer has unread ones
        except OSError:
            self.hung = True

    def send_frame(self, frame: Import | Imported | Drop) -> None:
        """Sends a frame, or keeps it until there is room."""
        data = encode_frame(frame)
        with self._lock:
            if self.closed:
                return
            self._outgoing += data
            self._flush()
            if len(self._outgoing) > _OUTGOING_BYTES_MAX:
                self._parser.broken = 'it does not read its socket'

    def poll(self, seconds: float | None) -> list[int]:
        """Waits for news and reads them: `frames`, `hung`. None: without end; 0: only looks.

        Returns descriptors that are ready and not this wire's own (see `watch`).
        """
        others: list[int] = []
        for fd, events in self._epoll.poll(seconds):
            if fd == self._sock_fd:
                if events & select.EPOLLOUT:
                    with self._lock:
                        self._flush()
                if events & ~select.EPOLLOUT:
                    self._read()
            elif fd == self._pidfd:
                self._read()  # what it sent before it died
                self.hung = True
            elif fd != self._poke:
                others.append(fd)
        return others

    def watch(self, fd: int) -> None:
        """Lets `poll` end when there is news at another channel. Edge by edge: it may stay ready
        for a reason that does not concern us."""
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def unwatch(self, fd: int) -> None:
        """Undoes `watch`."""
        try:
            self._epoll.unregister(fd)
        except (OSError, ValueError):  # one of the two is closed
            pass

    def poke(self, on: bool) -> None:
        """Makes `fileno()` readable although the socket was read: another channel's wait did."""
        if on == (self._poke >= 0) or self.closed:
            return
        if on:
            # The read end of a pipe that nobody can write is ready for ever (EPOLLHUP).
            self._poke, write_end = os.pipe()
            os.close(write_end)
            self._epoll.register(self._poke, 0)
        else:
            self._epoll.unregister(self._poke)
            os.close(self._poke)
            self._poke = -1

    def close(self) -> None:
        """Hangs up."""
        with self._lock:
            if self.closed:
                return
            self.closed = self.hung = True
            self._sock.close()
            self._epoll.close()
            for fd in (self._pidfd, self._poke):
                if fd >= 0:
                    os.close(fd)

    def forked(self) -> None:
        """In a child: closes its copies, without a lock that another thread may have held."""
        self._lock = threading.Lock()
        self.close()

    def _read(self) -> None:
        recv = self._sock.recv
        parser = self._parser
        while not self.hung:
            try:
                # Without room for control data: descriptors that come along are dropped unseen.
                data = recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:  # a reset is a hang-up too
                self.hung = True
                return
            rings = data.count(RING_FRAME)
            if rings == len(data) and parser.idle:
                self.rings_received += rings
                if rings == 0:
                    self.hung = True
            else:
                self.frames.extend(parser.feed(data))
            if len(data) < _READ_BYTES:
                return

    def _flush(self) -> None:
        try:
            while self._outgoing:
                sent = self._send(self._outgoing, _FLAGS)
                self._outgoing = self._outgoing[sent:]
            self._epoll.modify(self._sock_fd, select.EPOLLIN)
        except BlockingIOError:
            self._epoll.modify(self._sock_fd, select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            self._outgoing = b''
            self.hung = True

    def _ring_behind(self) -> None:
        with self._lock:
            if self._outgoing and not self._outgoing.endswith(RING_FRAME):
                self._outgoing += RING_FRAME
            self._flush()
