"""How a connector meets a listener: greeting, the descriptors and their checks, and the memory.

Whatever touches a descriptor that another process passed runs on a thread of its own, with a
deadline: such a descriptor can hang whoever touches it.
"""

from __future__ import annotations

import array
import os
import socket
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from ._errors import UkshmError, peer_gone, peer_misbehaved, timeout_error
from ._format import (
    AS_LISTENER_LIKES,
    FLAG_CANNOT_FENCE,
    FLAG_HUGE_PAGES,
    KIND_CHANNEL,
    KIND_IMPORT,
    KIND_INFO,
    NO_TOKEN,
    WELCOME_BYTES,
    Hello,
    Welcome,
    decode_welcome,
    encode_ack,
    encode_hello,
    layout_of,
)
from ._frames import Import
from ._memory import (
    F_SEAL_FUTURE_WRITE,
    F_SEAL_SEAL,
    F_SEAL_WRITE,
    OWNER_SEALS,
    SIZE_SEALS,
    Outbox,
    add_seals,
    check_seals,
    check_size,
    map_outbox,
)
from ._names import (
    Access,
    Address,
    Credentials,
    address_from,
    credentials_of,
    open_socket,
    pidfd_of,
)

if TYPE_CHECKING:
    from ._exports import Exports

HANDSHAKE_SECONDS: Final = 5.0
_SEND_FLAGS: Final = socket.MSG_NOSIGNAL
_INFO_BYTES_MAX: Final = 1 << 20


class Origin(NamedTuple):
    """Where a third process can map an outbox."""

    token: bytes
    uid: int
    #: `struct sockaddr_un` of its owner's listener.
    address: bytes


class Meeting(NamedTuple):
    """All that two processes agreed on: what a channel is made of."""

    name: str
    peer: Credentials
    access: Access
    sock: socket.socket
    pidfd: int
    own: Outbox
    theirs: Outbox
    #: Where the peer's outbox can be mapped by others, if anywhere.
    origin: Origin | None
    shared_bytes: int
    #: Where our own outbox is exported; told when the channel ends.
    exports: Exports | None
    token: bytes

    def discard(self) -> None:
        """Closes what never became a channel."""
        self.sock.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.own.close()
        self.theirs.close()
        if self.exports is not None:
            self.exports.ended(self.token)


class ConnectOptions(NamedTuple):
    """How a connector wants its channel."""

    owner: Access
    send_ring: int = AS_LISTENER_LIKES
    send_arena: int = AS_LISTENER_LIKES
    receive_ring: int = AS_LISTENER_LIKES
    receive_arena: int = AS_LISTENER_LIKES
    via: Exports | None = None
    handshake_seconds: float = HANDSHAKE_SECONDS


def meet(sock: socket.socket, address: Address, options: ConnectOptions) -> Meeting:
    """Greets the listener behind `sock` and maps what it passes. Closes `sock` when it raises."""
    fds: list[int] = []
    made: list[Outbox] = []
    token = os.urandom(8) if options.via else NO_TOKEN
    pidfd = -1
    try:
        peer = credentials_of(sock)
        hello = Hello(
            KIND_CHANNEL,
            FLAG_CANNOT_FENCE,
            options.send_ring,
            options.send_arena,
            options.receive_ring,
            options.receive_arena,
            token,
            options.via.address.sockaddr if options.via else b'',
        )
        deadline = time.monotonic() + options.handshake_seconds
        welcome = _greet(sock, hello, deadline, fds)
        if len(fds) != 2:
            raise peer_misbehaved(f'it passed {len(fds)} descriptors instead of 2')
        theirs_fd, own_fd = fds
        check_seals(theirs_fd, OWNER_SEALS)
        check_seals(own_fd, SIZE_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_WRITE | F_SEAL_SEAL)
        huge = bool(welcome.flags & FLAG_HUGE_PAGES)
        theirs_layout = layout_of(welcome.ring, welcome.arena)
        own_layout = layout_of(welcome.back_ring, welcome.back_arena)
        check_size(theirs_fd, theirs_layout, huge)
        check_size(own_fd, own_layout, huge)
        own = map_outbox(own_fd, own_layout, True, huge)
        made.append(own)
        add_seals(own_fd, OWNER_SEALS)
        theirs = map_outbox(theirs_fd, theirs_layout, False, huge)
        made.append(theirs)
        if options.via is not None:
            options.via.add(token, own_fd, own_layout, huge)
        pidfd = pidfd_of(sock, peer)
        sock.sendall(encode_ack(), _SEND_FLAGS)
        sock.setblocking(False)
    except BaseException as error:
        sock.close()
        for outbox in made:
            outbox.close()
        if pidfd >= 0:
            os.close(pidfd)
        if options.via is not None:
            options.via.ended(token)
        raise _as_ukshm(error, options.handshake_seconds) from None
    finally:
        for fd in fds:
            os.close(fd)
    sockaddr = address.sockaddr
    return Meeting(
        address.name,
        peer,
        options.owner,
        sock,
        pidfd,
        own,
        theirs,
        Origin(welcome.token, peer.uid, sockaddr) if sockaddr else None,
        own_layout.end + theirs_layout.end,
        options.via,
        token,
    )


def map_region(frame: Import, owner: Access) -> tuple[Outbox, Origin]:
    """Maps the outbox that IMPORT names, from its owner. Blocks up to the handshake's time."""
    address = address_from(frame.address)
    if address is None:
        raise peer_misbehaved('an IMPORT without a usable address')
    sock = _open_within(address, owner, HANDSHAKE_SECONDS)
    fds: list[int] = []
    try:
        if credentials_of(sock).uid != frame.uid:
            raise peer_misbehaved('an IMPORT that names another owner')
        hello = Hello(KIND_IMPORT, FLAG_CANNOT_FENCE, 0, 0, 0, 0, frame.token, b'')
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        welcome = _greet(sock, hello, deadline, fds)
        if len(fds) != 1:
            raise peer_misbehaved(f'it passed {len(fds)} descriptors instead of 1')
        check_seals(fds[0], OWNER_SEALS)
        layout = layout_of(welcome.ring, welcome.arena)
        huge = bool(welcome.flags & FLAG_HUGE_PAGES)
        check_size(fds[0], layout, huge)
        return map_outbox(fds[0], layout, False, huge), Origin(*frame[1:])
    except OSError as error:
        raise _as_ukshm(error, HANDSHAKE_SECONDS) from None
    finally:
        sock.close()
        for fd in fds:
            os.close(fd)


def ask_info(address: Address, owner: Access) -> bytes:
    """The JSON text that a listener tells about itself."""
    sock = _open_within(address, owner, HANDSHAKE_SECONDS)
    fds: list[int] = []
    try:
        hello = Hello(KIND_INFO, FLAG_CANNOT_FENCE, 0, 0, 0, 0, NO_TOKEN, b'')
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        length = _greet(sock, hello, deadline, fds).ring
        if length > _INFO_BYTES_MAX:
            raise peer_misbehaved(f'it announced {length} bytes about itself')
        return _receive(sock, length, deadline, fds)
    except OSError as error:
        raise _as_ukshm(error, HANDSHAKE_SECONDS) from None
    finally:
        sock.close()
        for fd in fds:
            os.close(fd)


def _open_within(address: Address, owner: Access, seconds: float) -> socket.socket:
    deadline = time.monotonic() + seconds
    while True:
        sock = open_socket(address, owner)
        if sock is not None:
            return sock
        if time.monotonic() > deadline:
            raise timeout_error(f"a place in the queue of '{address.name}'", seconds)
        time.sleep(0.005)


def _greet(sock: socket.socket, hello: Hello, deadline: float, fds: list[int]) -> Welcome:
    sock.settimeout(max(0.001, deadline - time.monotonic()))
    try:
        sock.sendall(encode_hello(hello), _SEND_FLAGS)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has refused and hung up; its WELCOME says why
    return decode_welcome(_receive(sock, WELCOME_BYTES, deadline, fds), hello.kind)


def _receive(sock: socket.socket, length: int, deadline: float, fds: list[int]) -> bytes:
    data = b''
    while len(data) < length:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        part, controls, _, _ = sock.recvmsg(
            length - len(data), socket.CMSG_SPACE(2 * 4), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, content in controls:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array('i')
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                fds.extend(numbers)
        if len(fds) > 2:
            raise peer_misbehaved(f'it passed {len(fds)} descriptors')
        if not part:
            raise peer_gone('the listener')
        data += part
    return data


def _as_ukshm(error: BaseException, seconds: float) -> BaseException:
    if isinstance(error, UkshmError) or not isinstance(error, OSError):
        return error
    if isinstance(error, socket.timeout):
        return timeout_error('an answer of the listener', seconds)
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return peer_gone('the listener')
    return UkshmError('ERR_UKSHM_SYSCALL', f'the meeting failed: {error}')
