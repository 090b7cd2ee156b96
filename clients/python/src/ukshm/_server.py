"""The thread behind a listener: it admits connectors, and serves imports and questions, whatever
the program is doing meanwhile.

A guest goes through: HELLO awaited -> (channel) WELCOME sent, ACK awaited -> delivered
                                     -> (import, info) answered -> closed
and from anywhere to closed: refused, hung up, or too slow. Guests are bounded in number and time.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Generator
from typing import Callable, Final

from ._errors import UkshmError
from ._exports import Exports, ListenOptions
from ._format import (
    ACK_BYTES,
    AS_LISTENER_LIKES,
    FLAG_CANNOT_FENCE,
    FLAG_HUGE_PAGES,
    HELLO_BYTES,
    KIND_CHANNEL,
    KIND_IMPORT,
    NO_TOKEN,
    REFUSED_ACCESS,
    REFUSED_LIMIT,
    REFUSED_MEMORY,
    REFUSED_TOKEN,
    Hello,
    Layout,
    Refusal,
    Welcome,
    decode_hello,
    encode_refusal,
    encode_welcome,
    layout_of,
    valid_ack,
)
from ._meeting import Meeting, Origin
from ._memory import (
    OWNER_SEALS,
    SIZE_SEALS,
    Outbox,
    add_seals,
    check_seals,
    create_memfd,
    map_outbox,
)
from ._names import (
    Address,
    Credentials,
    admits,
    bind_socket,
    credentials_of,
    pidfd_of,
    refuse_descriptors,
)

GUESTS_MAX: Final = 64
_SEND_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


#: What a guest is asked for: yields how many bytes it wants next, and is sent them.
_Talk = Generator[int, bytes, None]


class _Guest:
    __slots__ = ('data', 'deadline', 'sock', 'talk', 'wanted')

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self.deadline = deadline
        self.data = b''
        self.talk: _Talk | None = None
        self.wanted = 0


class Server:
    """Owns the listening socket and its thread, and what of this process others may import."""

    def __init__(
        self, address: Address, options: ListenOptions, deliver: Callable[[Meeting], None]
    ) -> None:
        self.address = address
        self.options = options
        self._deliver = deliver
        self._lock = threading.Lock()
        self.exports = Exports(address, options)
        self._guests: dict[int, _Guest] = {}
        self.closed = False
        self._sock = bind_socket(address, options.access != 'same-user')
        self._inode = os.stat(address.target).st_ino if address.is_path else 0
        self._wake_read, self._wake_write = os.pipe()
        self._epoll = select.epoll()
        self._epoll.register(self._sock, select.EPOLLIN)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._full = False
        _servers.add(self)
        self._thread = threading.Thread(target=self._run, name='ukshm-listener', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Frees the name and ends the thread. Channels live on; imports are not served any more."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            os.write(self._wake_write, b'\0')
        if threading.current_thread() is not self._thread:
            self._thread.join(self.options.handshake_seconds)

    def forked(self) -> None:
        """In a child: the listener is the parent's, and its thread does not exist here."""
        self.closed = True
        self._sock.close()
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        for guest in self._guests.values():
            guest.sock.close()
        self.exports.forked()

    def _run(self) -> None:
        try:
            while True:
                for fd, _ in self._epoll.poll(self._patience()):
                    if fd == self._wake_read:
                        return
                    if fd == self._sock.fileno():
                        self._admit()
                    elif fd in self._guests:
                        self._hear(self._guests[fd])
                self._show_out()
        finally:
            self._end()

    def _end(self) -> None:
        for guest in list(self._guests.values()):
            self._dismiss(guest)
        if self.address.is_path:
            try:
                if os.stat(self.address.target).st_ino == self._inode:
                    os.unlink(self.address.target)
            except OSError:
                pass
        self._sock.close()
        self._epoll.close()
        os.close(self._wake_read)
        with self._lock:
            self.closed = True
            os.close(self._wake_write)
        self.exports.close()

    def _patience(self) -> float | None:
        if not self._guests:
            return None
        first = min(guest.deadline for guest in self._guests.values())
        return max(0.0, first - time.monotonic()) + 0.001

    def _show_out(self) -> None:
        now = time.monotonic()
        for guest in list(self._guests.values()):
            if guest.deadline <= now:
                self._dismiss(guest)

    def _admit(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            # Out of descriptors, for instance: a short rest instead of a busy loop.
            time.sleep(0.005)
            return
        sock.setblocking(False)
        guest = _Guest(sock, time.monotonic() + self.options.handshake_seconds)
        self._guests[sock.fileno()] = guest
        self._epoll.register(sock, select.EPOLLIN)
        if len(self._guests) >= GUESTS_MAX:
            self._epoll.modify(self._sock, 0)  # the others wait in the kernel's queue
            self._full = True
        try:
            refuse_descriptors(sock)
            peer = credentials_of(sock)
            if not admits(self.options.access, peer):
                raise Refusal(REFUSED_ACCESS)
            guest.talk = self._talk(sock, peer)
            guest.wanted = next(guest.talk)
        except Refusal as refusal:
            self._refuse(guest, refusal.status)
        except Exception:  # an access function that fails admits nobody
            self._refuse(guest, REFUSED_ACCESS)

    def _hear(self, guest: _Guest) -> None:
        """One read, never more than is wanted: what follows belongs to the channel."""
        assert guest.talk is not None
        try:
            data = guest.sock.recv(guest.wanted - len(guest.data))
            if not data:
                self._dismiss(guest)
                return
            guest.data += data
            if len(guest.data) == guest.wanted:
                data, guest.data = guest.data, b''
                guest.wanted = guest.talk.send(data)
        except BlockingIOError:
            pass
        except StopIteration:
            self._dismiss(guest)
        except Refusal as refusal:
            self._refuse(guest, refusal.status)
        except Exception:  # whatever a guest causes ends that guest, not the thread
            self._dismiss(guest)

    def _refuse(self, guest: _Guest, status: int) -> None:
        with contextlib.suppress(OSError):
            guest.sock.send(encode_refusal(status), _SEND_FLAGS)
        self._dismiss(guest)

    def _dismiss(self, guest: _Guest) -> None:
        fd = guest.sock.fileno()
        if self._guests.pop(fd, None) is None:
            return
        self._epoll.unregister(fd)
        if guest.talk is not None:
            guest.talk.close()
        guest.sock.close()
        if self._full:
            self._full = False
            self._epoll.modify(self._sock, select.EPOLLIN)

    def _talk(self, sock: socket.socket, peer: Credentials) -> _Talk:
        hello = decode_hello((yield HELLO_BYTES))
        if hello.kind == KIND_CHANNEL:
            yield from self._welcome(sock, peer, hello)
        elif hello.kind == KIND_IMPORT:
            self._serve_import(sock, hello.token)
        else:
            text = json.dumps(self.exports.info()).encode()
            welcome = encode_welcome(Welcome(FLAG_CANNOT_FENCE, len(text), 0, 0, 0, NO_TOKEN))
            sock.send(welcome + text, _SEND_FLAGS)

    def _serve_import(self, sock: socket.socket, token: bytes) -> None:
        found = self.exports.take(token)
        if found is None:
            raise Refusal(REFUSED_TOKEN)
        fd, layout, huge = found
        try:
            flags = FLAG_CANNOT_FENCE | (FLAG_HUGE_PAGES if huge else 0)
            welcome = Welcome(flags, *layout[:2], 0, 0, token)
            _send_with(sock, encode_welcome(welcome), [fd])
        finally:
            os.close(fd)

    def _welcome(self, sock: socket.socket, peer: Credentials, hello: Hello) -> _Talk:
        own_layout = self._layout(hello.receive_ring, hello.receive_arena)
        theirs_layout = self._layout(hello.send_ring, hello.send_arena)
        shared_bytes = own_layout.end + theirs_layout.end
        token = os.urandom(8)
        fds: list[int] = []
        made: list[Outbox] = []
        greeted = delivered = False
        # Counted from here on, also while the ACK is awaited.
        self.exports.reserve(token, peer, shared_bytes)
        try:
            fds.append(create_memfd(own_layout))
            fds.append(create_memfd(theirs_layout))
            made.append(map_outbox(fds[0], own_layout, True))
            add_seals(fds[0], OWNER_SEALS)
            add_seals(fds[1], SIZE_SEALS)
            welcome = Welcome(FLAG_CANNOT_FENCE, *own_layout[:2], *theirs_layout[:2], token)
            _send_with(sock, encode_welcome(welcome), fds)
            greeted = True
            if not valid_ack((yield ACK_BYTES)):
                return
            check_seals(fds[1], OWNER_SEALS)
            made.append(map_outbox(fds[1], theirs_layout, False))
            self.exports.add(token, fds[0], own_layout, False)
            origin = Origin(hello.token, peer.uid, hello.address) if hello.address else None
            meeting = Meeting(
                self.address.name,
                peer,
                self.options.access,
                sock.dup(),  # the guest's own is closed like any other
                pidfd_of(sock, peer),
                made[0],
                made[1],
                origin,
                shared_bytes,
                self.exports,
                token,
            )
            meeting.sock.setblocking(False)
            delivered = True
            self._deliver(meeting)
        except UkshmError as error:
            if greeted:
                return
            no_memory = error.code == 'ERR_UKSHM_NO_MEMORY'
            raise Refusal(REFUSED_MEMORY if no_memory else REFUSED_LIMIT) from error
        finally:
            for fd in fds:
                os.close(fd)
            if not delivered:
                for outbox in made:
                    outbox.close()
                self.exports.ended(token)

    def _layout(self, ring: int, arena: int) -> Layout:
        options = self.options
        ring = options.ring_bytes if ring == AS_LISTENER_LIKES else ring
        arena = options.arena_bytes if arena == AS_LISTENER_LIKES else arena
        max_ring_bytes = max(options.max_arena_bytes, options.ring_bytes)
        if ring > max_ring_bytes or arena > options.max_arena_bytes:
            raise Refusal(REFUSED_LIMIT)
        return layout_of(ring, arena)


_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _after_fork() -> None:
    for server in list(_servers):
        if not server.closed:
            server.forked()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)


def _send_with(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))
    sock.sendmsg([data], [rights], _SEND_FLAGS)


