"""Where one meets and whom: names, socket addresses, credentials, and who is admitted."""

from __future__ import annotations

import errno
import os
import platform
import re
import socket
import stat
import struct
import sys
from collections.abc import Collection
from typing import Callable, Final, NamedTuple, Union

from ._errors import NoListener, SyscallError, UkshmError, invalid_argument

_SO_PEERPIDFD: Final = 77
_SO_PASSRIGHTS: Final = 83
_PATH_BYTES_MAX: Final = 107
_FAMILY: Final = struct.pack('=H', socket.AF_UNIX)
_NAME: Final = re.compile(r'[A-Za-z0-9._-]+\Z')


class Credentials(NamedTuple):
    """A process as the kernel reported it when it met us."""

    pid: int
    uid: int
    gid: int


#: Who is admitted: 'same-user' (the same effective user), user ids, or what a function says.
Access = Union[str, Collection[int], Callable[[Credentials], bool]]


def check_platform() -> None:
    """Raises ERR_UKSHM_UNSUPPORTED where Python's plain loads and stores are not enough."""
    machine = platform.machine()
    if sys.platform != 'linux' or machine not in ('x86_64', 'AMD64') or sys.maxsize < 2**32:
        # Python has no fences: only where the processor itself keeps the order of stores, and of
        # loads, does a cursor come behind what it publishes.
        raise UkshmError(
            'ERR_UKSHM_UNSUPPORTED',
            f'ukshm for Python needs Linux on x86-64 (this is {sys.platform} on {machine}), where '
            'plain stores keep their order; the C and TypeScript libraries run elsewhere too',
        )


def check_access(name: str, access: Access) -> Access:
    """Checks the shape of an `Access`."""
    if callable(access) or access == 'same-user':
        return access
    if isinstance(access, str) or not all(isinstance(uid, int) for uid in access):
        raise invalid_argument(name, access, "'same-user', user ids, or a function")
    return tuple(access)


def admits(access: Access, peer: Credentials) -> bool:
    """Whether `access` admits the peer. A user that the namespace does not map equals nobody."""
    if callable(access):
        return bool(access(peer))
    if peer.uid == _overflow_uid():
        return False
    if isinstance(access, str):
        return peer.uid == os.geteuid()
    return peer.uid in access


def _overflow_uid() -> int:
    try:
        with open('/proc/sys/kernel/overflowuid', encoding='ascii') as file:
            return int(file.read())
    except (OSError, ValueError):
        return 65534


def credentials_of(sock: socket.socket) -> Credentials:
    """Who is at the other end."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return Credentials(*struct.unpack('=iII', data))


def pidfd_of(sock: socket.socket, peer: Credentials) -> int:
    """A descriptor that becomes readable when the peer dies; -1 where there is none."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
        return int(struct.unpack('=i', data)[0])
    except OSError:
        pass
    try:
        return os.pidfd_open(peer.pid)
    except OSError:
        return -1


def refuse_descriptors(sock: socket.socket) -> None:
    """Lets nobody pass descriptors to us through this socket, where the kernel can."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    except OSError:
        pass  # then they are dropped: we never receive with room for them


class Address(NamedTuple):
    """A place to meet: an abstract name or a path."""

    name: str
    #: What `bind` and `connect` take.
    target: bytes
    #: `struct sockaddr_un` by which others can connect; empty where none would do.
    sockaddr: bytes

    @property
    def is_path(self) -> bool:
        """Whether it is a path."""
        return not self.target.startswith(b'\0')


def address_of(name: str, uid: int | None = None) -> Address:
    """The address of a name: of a path if it contains '/', else abstract, the user's own."""
    if not isinstance(name, str):
        raise invalid_argument('name', name, 'a str')
    if '/' in name:
        target = os.fsencode(name)
        if len(target) > _PATH_BYTES_MAX or b'\0' in target:
            raise invalid_argument('name', name, f'a path of at most {_PATH_BYTES_MAX} bytes')
        # Others may have another current folder.
        path = os.path.abspath(target)
        reachable = len(path) <= _PATH_BYTES_MAX
        return Address(name, target, _FAMILY + path + b'\0' if reachable else b'')
    user = os.geteuid() if uid is None else uid
    target = b'\0ukshm/1/%d/' % user + name.encode('ascii', 'replace')
    if not _NAME.match(name) or len(target) > _PATH_BYTES_MAX + 1:
        raise invalid_argument(
            'name', name, "at most some 90 letters, digits, '.', '_', '-'; or a path with '/'"
        )
    return Address(name, target, _FAMILY + target)


def address_from(sockaddr: bytes) -> Address | None:
    """The address in a `struct sockaddr_un` that a peer sent; None if it cannot be one."""
    if len(sockaddr) < 4 or sockaddr[:2] != _FAMILY:
        return None
    target = sockaddr[2:]
    if target[0] == 0:
        return Address('(abstract)', target, sockaddr)
    target = target.split(b'\0', 1)[0]
    # A relative path would mean another file here than where it came from.
    if len(target) > _PATH_BYTES_MAX or not target.startswith(b'/'):
        return None
    return Address(os.fsdecode(target), target, sockaddr)


def open_socket(address: Address, owner: Access) -> socket.socket | None:
    """Connects to a listener and checks whose it is; None while its queue is full.

    Raises NO_LISTENER, WRONG_OWNER, ACCESS_DENIED. Never blocks.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(address.target)
        peer = credentials_of(sock)
        if not admits(owner, peer):
            raise UkshmError(
                'ERR_UKSHM_WRONG_OWNER',
                f"'{address.name}' is listened at by process {peer.pid} of user {peer.uid}, which "
                'is not whom we expect; see the option owner',
            )
        return sock
    except BaseException as error:
        sock.close()
        if isinstance(error, BlockingIOError):
            return None
        if isinstance(error, OSError):
            raise _cannot_connect(address, error) from error
        raise


def _cannot_connect(address: Address, error: OSError) -> UkshmError:
    if error.errno in (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTDIR, errno.ENOTSOCK):
        return NoListener(
            'ERR_UKSHM_NO_LISTENER',
            f"nobody listens at '{address.name}': start the listener first, or use wait=True",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return UkshmError(
            'ERR_UKSHM_ACCESS_DENIED',
            f"this user may not connect to '{address.name}': see the permissions of its path",
        )
    return SyscallError('connect', error.errno or 0)


def bind_socket(address: Address, for_others: bool) -> socket.socket:
    """Takes the name. Raises NAME_IN_USE (and says who has it)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            sock.bind(address.target)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _make_way(address)
            sock.bind(address.target)
        if address.is_path:
            # Who may connect is decided by credentials; the permissions need not be stricter.
            os.chmod(address.target, 0o666 if for_others else 0o600)
        sock.listen(128)
        refuse_descriptors(sock)
        return sock
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            if error.errno == errno.EADDRINUSE:
                raise _in_use(address, 'another process') from error
            raise SyscallError('bind', error.errno or 0, f"at '{address.name}'") from error
        raise


def _make_way(address: Address) -> None:
    """Removes a socket file whose listener is gone; raises NAME_IN_USE if it is not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address.target)
        except BlockingIOError:
            raise _in_use(address, 'a busy process') from None
        except OSError as error:
            # A file that is no socket refuses too, and is not ours to remove.
            stale = address.is_path and error.errno == errno.ECONNREFUSED
            if not stale or not stat.S_ISSOCK(os.stat(address.target).st_mode):
                raise _in_use(address, 'another process or file') from error
            os.unlink(address.target)
            return
        peer = credentials_of(probe)
        raise _in_use(address, f'process {peer.pid} of user {peer.uid}')


def _in_use(address: Address, who: str) -> UkshmError:
    return UkshmError(
        'ERR_UKSHM_NAME_IN_USE', f"'{address.name}' is taken by {who}: choose another name"
    )
