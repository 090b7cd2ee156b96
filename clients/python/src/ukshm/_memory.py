"""Outboxes as memory: memfds, their seals, and mappings that live as long as their last view.

Who maps, closes: but Python cannot unmap pages that a view still shows, so closing only drops our
own views, and the mapping goes with the last view that the program keeps. Nothing can crash.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from typing import Final

from ._errors import SyscallError, UkshmError, out_of_memory, peer_misbehaved
from ._format import Layout

# linux/fcntl.h; Python's fcntl does not know the last one.
F_ADD_SEALS: Final = 1033
F_GET_SEALS: Final = 1034
F_SEAL_SEAL: Final = 1
F_SEAL_SHRINK: Final = 2
F_SEAL_GROW: Final = 4
F_SEAL_WRITE: Final = 8
F_SEAL_FUTURE_WRITE: Final = 16

#: The size cannot change: mapped pages stay there.
SIZE_SEALS: Final = F_SEAL_SHRINK | F_SEAL_GROW
#: Nobody but those who mapped it writable before can write it, and no seal can be added.
OWNER_SEALS: Final = SIZE_SEALS | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL

_mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


class Outbox:
    """The mapped memory that one side writes. `memory` is bytes, `words` the same as u32."""

    __slots__ = ('layout', 'memory', 'words')

    def __init__(self, memory: memoryview, layout: Layout) -> None:
        self.layout = layout
        self.memory = memory[: layout.end]
        # A cursor must be read and written as ONE aligned 32-bit access. An item of a memoryview
        # of format 'I' is: CPython copies it by a memcpy of constant size 4, one move instruction.
        # (struct with '<I' goes byte by byte.) On x86-64 such moves keep their order.
        self.words = self.memory.cast('I')

    def close(self) -> None:
        """Drops our views. The mapping goes when the program keeps no view of it either."""
        for view in (self.words, self.memory):
            try:
                view.release()
            except BufferError:  # something like an array of numpy looks through this very view
                pass


def create_memfd(layout: Layout) -> int:
    """A memfd of the layout's size, every page of it allocated. Raises NO_MEMORY."""
    fd = os.memfd_create('ukshm-outbox', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, layout.end)
        # A hole would be charged to whoever touches it first: the reader.
        os.posix_fallocate(fd, 0, layout.end)
    except OSError as error:
        os.close(fd)
        raise out_of_memory(f'{layout.end} bytes ({error.strerror})') from error
    return fd


def add_seals(fd: int, seals: int) -> None:
    """Adds seals to a memfd."""
    try:
        fcntl.fcntl(fd, F_ADD_SEALS, seals)
    except OSError as error:
        raise SyscallError('fcntl(F_ADD_SEALS)', error.errno or 0) from error


def check_seals(fd: int, wanted: int, unwanted: int = 0) -> None:
    """Refuses a descriptor that is no memfd with these seals. Must be the first call on it: any
    other could hang in a file system that a stranger serves."""
    try:
        seals = fcntl.fcntl(fd, F_GET_SEALS)
    except OSError as error:
        raise peer_misbehaved('it passed a descriptor that is no memfd') from error
    if seals & wanted != wanted or seals & unwanted:
        raise peer_misbehaved(f'it passed memory with the seals {seals:#x}')


def check_size(fd: int, layout: Layout, huge: bool) -> None:
    """Refuses memory of another size, and memory with holes, which we would have to pay for."""
    size = layout.memfd_bytes(huge)
    status = os.fstat(fd)
    if status.st_size != size or status.st_blocks * 512 < size:
        raise peer_misbehaved(
            f'it passed {status.st_size} bytes, {status.st_blocks * 512} of them allocated; '
            f'{size} were agreed'
        )


def map_outbox(fd: int, layout: Layout, writable: bool, huge: bool = False) -> Outbox:
    """Maps a memfd whole. The mapping does not need `fd` any longer. Raises NO_MEMORY."""
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    try:
        mapping = mmap.mmap(fd, layout.memfd_bytes(huge), access=access)
        mapping.madvise(mmap.MADV_DONTFORK)
    except OSError as error:
        if error.errno in (12, 11):  # ENOMEM, EAGAIN (RLIMIT_MEMLOCK)
            raise out_of_memory(f'a mapping of {layout.end} bytes') from error
        raise SyscallError('mmap', error.errno or 0) from error
    except ValueError as error:
        raise UkshmError('ERR_UKSHM_SYSCALL', f'mmap failed: {error}') from error
    _mappings.add(mapping)
    return Outbox(memoryview(mapping), layout)


def _after_fork() -> None:
    # The child has none of these mappings (MADV_DONTFORK), and their addresses may soon hold
    # something else: an mmap object that unmapped them when it dies would tear a hole there. So
    # they must never die. ctypes is the one way to say that.
    kept = list(_mappings)
    if not kept:
        return
    import ctypes

    for mapping in kept:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(mapping))


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)
