"""Errors with stable codes, the same as in the TypeScript library. Imports nothing of ukshm."""

from __future__ import annotations

import os


class UkshmError(Exception):
    """An operating failure: the text says what happened and what to do about it."""

    #: Stable, `ERR_UKSHM_…`; compare this, not the text.
    code: str

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.code, str(self)))


class PeerGone(UkshmError):
    """`ERR_UKSHM_PEER_GONE`: the other process died, or hung up without closing."""


class PeerClosed(UkshmError):
    """`ERR_UKSHM_PEER_CLOSED`: the other side closed the channel, and all it sent was read."""


class PeerMisbehaved(UkshmError):
    """`ERR_UKSHM_PEER_MISBEHAVED`: what the other side wrote cannot be true."""


class Closed(UkshmError):
    """`ERR_UKSHM_CLOSED`: this process has closed the object."""


class Timeout(UkshmError, TimeoutError):
    """`ERR_UKSHM_TIMEOUT`: what was waited for did not come in time; also a `TimeoutError`."""


class NoListener(UkshmError):
    """`ERR_UKSHM_NO_LISTENER`: nobody listens at that name."""


class RemoteError(UkshmError):
    """`ERR_UKSHM_REMOTE`: the other side answered a request with an error; these are its words, and
    may be anything. `remote_name`: the error's name there, as 'TypeError'; `remote_code`: its code
    there, empty if it had none."""

    remote_name: str
    remote_code: str

    def __init__(self, remote_name: str, remote_code: str, message: str) -> None:
        super().__init__('ERR_UKSHM_REMOTE', message or remote_name)
        self.remote_name = remote_name
        self.remote_code = remote_code

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.remote_name, self.remote_code, str(self)))


class SyscallError(UkshmError):
    """A failed system call; `errno` is positive, as in `OSError`, and `syscall` names it."""

    errno: int
    syscall: str

    def __init__(self, syscall: str, errno: int, hint: str = '') -> None:
        text = f'{syscall} failed: {os.strerror(errno)} (errno {errno})'
        super().__init__('ERR_UKSHM_SYSCALL', f'{text}: {hint}' if hint else text)
        self.syscall = syscall
        self.errno = errno

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.syscall, self.errno))


def invalid_argument(name: str, value: object, expected: str) -> UkshmError:
    """An argument out of its range: a mistake of the calling program."""
    return UkshmError('ERR_UKSHM_INVALID_ARGUMENT', f'{name} is {value!r}; expected {expected}')


def peer_misbehaved(what: str) -> PeerMisbehaved:
    """What a peer wrote cannot be true: its channel ends, and no other."""
    return PeerMisbehaved(
        'ERR_UKSHM_PEER_MISBEHAVED',
        f'the peer broke the protocol: {what}; its channel has been ended',
    )


def peer_gone(who: str) -> PeerGone:
    """The other process died."""
    return PeerGone('ERR_UKSHM_PEER_GONE', f'{who} is gone: it died or hung up without closing')


def peer_closed(who: str) -> PeerClosed:
    """The other side closed in order."""
    return PeerClosed('ERR_UKSHM_PEER_CLOSED', f'{who} has closed the channel')


def closed_error(what: str) -> Closed:
    """The object was closed by this process."""
    return Closed('ERR_UKSHM_CLOSED', f'{what} is closed')


def timeout_error(what: str, seconds: float) -> Timeout:
    """Nothing came in time."""
    return Timeout('ERR_UKSHM_TIMEOUT', f'{what} did not happen within {seconds:g} s')


def out_of_memory(what: str) -> UkshmError:
    """The kernel gave no memory."""
    return UkshmError(
        'ERR_UKSHM_NO_MEMORY',
        f'no memory for {what}: ask for smaller rings and arenas, or free some',
    )


def cannot_forward(why: str) -> UkshmError:
    """The next process cannot be shown this memory."""
    return UkshmError(
        'ERR_UKSHM_CANNOT_FORWARD',
        f'cannot hand the message on: {why}; send a copy instead: channel.send(message.bytes)',
    )
