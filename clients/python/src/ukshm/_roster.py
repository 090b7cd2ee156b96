"""The subscribers of a topic: how they come, who is behind, and how they go; and the thread that
admits them and hears what they release, whatever the program is doing meanwhile.

All of it is used under one lock. Nothing here waits for a subscriber: `changed` is notified when
what had to wait is worth another try.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import weakref
from collections import deque
from typing import Callable, Final

from ._channel import Channel
from ._errors import PeerMisbehaved, UkshmError
from ._exports import ListenOptions
from ._format import layout_of
from ._joining import END_CODES, decode_request
from ._meeting import HANDSHAKE_SECONDS, Meeting
from ._names import address_of
from ._outlet import ACTIVE, ENTERING, GONE, JOINING, LEAVING, Outlet
from ._plots import NEVER, Plots
from ._server import Server
from ._topic_memory import Chunk, Queue
from ._topic_settings import SubscriberStats, TopicSettings, TopicStats

#: How long one who is refused may take to read why.
_REFUSED_SECONDS: Final = 1.0
#: While nobody waits, so long a rest between two looks at subscribers that ring.
_REST_SECONDS: Final = 0.001


class Roster:
    """What a topic holds of its subscribers; see the module."""

    def __init__(self, name: str, settings: TopicSettings) -> None:
        self.name = name
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        #: Called beside `changed.notify_all`, from whatever thread.
        self.on_change: Callable[[], None] | None = None
        #: Who waits for a change: then the thread does not rest.
        self.waiting = 0
        self.sequence = settings.first_sequence
        self.closed = False
        self._settings = settings
        self._over = False
        self._arrivals: deque[Meeting] = deque()
        #: Loans that the collector found, on whatever thread and in the middle of anything.
        self.forgotten: deque[Chunk] = deque()
        self._outlets: dict[int, Outlet] = {}  # by descriptor
        self._active: list[Outlet] = []
        self._failed: list[Outlet] = []
        self._last_word_of_all = False
        self.kept = Queue(settings.keep)
        self._wake_read, self._wake_write = os.pipe()
        self._epoll = select.epoll()
        self._epoll.register(self._wake_read, select.EPOLLIN)
        shared = 2 * settings.max_subscribers * layout_of(settings.ring_bytes, 0).end
        options = ListenOptions(
            settings.access,
            settings.ring_bytes,
            0,
            0,
            shared,
            settings.max_subscribers,
            HANDSHAKE_SECONDS,
        )
        try:
            self._server = Server(address_of(name), options, self._arrive)
        except BaseException:
            self._close_descriptors()
            raise
        try:
            exports = self._server.exports
            self._plots = Plots(exports, settings.arena_bytes, settings.patience_seconds, self)
        except BaseException:
            self._server.close()
            self._close_descriptors()
            raise
        self._thread = threading.Thread(target=self._run, name='ukshm-topic', daemon=True)
        _rosters.add(self)
        self._thread.start()

    # ---- for the topic's memory; under the lock

    @property
    def holders(self) -> list[Outlet]:
        """All that hold something, or may."""
        return [one for one in self._outlets.values() if one.state in (ACTIVE, LEAVING)]

    @property
    def active(self) -> list[Outlet]:
        """Those who are sent what is published."""
        return [one for one in self._active if one.state == ACTIVE]

    def collect(self) -> bool:
        """Reads what was released; whether anything was."""
        any_news = False
        for outlet in self.holders:
            try:
                any_news = outlet.refresh() or any_news
            except UkshmError:
                self._failed.append(outlet)
        self._sweep()
        return any_news

    def disconnect(self, outlet: Outlet) -> None:
        """Gives a subscriber up: it is told, behind what it was sent."""
        if outlet.state != ACTIVE:
            return
        try:
            outlet.leave(NEVER, code='ERR_UKSHM_TOO_SLOW', sequence=self.sequence)
        except UkshmError:
            self._failed.append(outlet)
        self._sweep()

    def cut(self, outlet: Outlet) -> None:
        """Ends a subscriber's channel at once."""
        outlet.end()
        self._failed.append(outlet)
        self._sweep()

    def notify(self) -> None:
        """Those who wait try again."""
        self.changed.notify_all()
        if self.on_change is not None and self.waiting > 0:
            self.on_change()

    def poke(self) -> None:
        """Has the thread look again."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b'\0')

    # ---- subscribers come and go; under the lock

    def subscribers(self) -> list[SubscriberStats]:
        """Who is subscribed now."""
        self.collect()
        return [
            SubscriberStats(
                one.channel.peer,
                *one.wishes,
                one.outstanding,
                len(one.queue.parcels),
                one.sent,
                one.dropped,
            )
            for one in self.active
        ]

    def stats(self) -> TopicStats:
        """How the memory is used now."""
        self.collect()
        plots = self._plots
        return TopicStats(plots.shared_bytes, plots.current.free_bytes, len(self.kept.parcels))

    def _sweep(self) -> None:
        """Takes those out that are gone, or leave."""
        for outlet in self._failed:
            if outlet.state != LEAVING:
                self._remove(outlet)
        self._failed.clear()
        # Replaced, never changed: whoever goes through it may come here.
        self._active = self.active

    def _remove(self, outlet: Outlet) -> None:
        for fd, one in list(self._outlets.items()):
            if one is outlet:
                del self._outlets[fd]
                with contextlib.suppress(OSError, ValueError):  # its channel has closed it
                    self._epoll.unregister(fd)
        if outlet.state != GONE:
            outlet.end()
        self.notify()

    def _arrive(self, meeting: Meeting) -> None:
        # On the listener's thread.
        self._arrivals.append(meeting)
        self.poke()

    def _admit(self, meeting: Meeting) -> None:
        try:
            outlet = Outlet(Channel(meeting), time.monotonic() + HANDSHAKE_SECONDS)
        except OSError:  # no descriptors left
            meeting.discard()
            return
        fd = outlet.channel.fileno()
        self._outlets[fd] = outlet
        self._epoll.register(fd, select.EPOLLIN)

    def _attend(self, outlet: Outlet, now: float) -> None:
        """Goes on with one subscriber."""
        if not outlet.hear():
            self._remove(outlet)
        elif outlet.state == JOINING:
            self._join(outlet, now)
        elif outlet.state == ENTERING:
            self._lodge(outlet, now)
        elif outlet.state == ACTIVE:
            if outlet.entered(self._plots.current) is False:
                self.disconnect(outlet)  # it did not map the fresh memory
            elif outlet.flush() and self._last_word_of_all:
                outlet.leave(NEVER, sequence=self.sequence)
        if outlet.state == LEAVING and (outlet.channel._finished() or now >= outlet.deadline):
            self._remove(outlet)

    def _join(self, outlet: Outlet, now: float) -> None:
        message = outlet.channel.try_receive()
        if message is None:
            if now >= outlet.deadline:
                self._remove(outlet)
            return
        try:
            with message:
                type = -1 if message.is_request else message.type
                outlet.wishes = decode_request(
                    type, message.copy(), self.name, self._settings.may_block
                )
        except PeerMisbehaved:
            self._remove(outlet)
            return
        except UkshmError as error:
            self._refuse(outlet, error)
            return
        outlet.queue = Queue(outlet.wishes.depth)
        outlet.state = ENTERING
        outlet.deadline = now + HANDSHAKE_SECONDS
        outlet.enter(self._plots.current)

    def _lodge(self, outlet: Outlet, now: float) -> None:
        """Waits until the subscriber has mapped the region that is in use then."""
        current = self._plots.current
        answer = outlet.entered(current)
        if answer is None and current not in outlet.berths:
            for region in list(outlet.berths):
                outlet.forget(region)
            outlet.enter(current)
        elif answer is False:
            self._refuse(
                outlet, UkshmError('ERR_UKSHM_CANNOT_FORWARD', 'the memory was not mapped')
            )
        elif answer:
            kept = list(self.kept.parcels)[-outlet.wishes.depth :] if self._settings.keep else []
            outlet.activate(outlet.wishes, self.sequence, kept)
            self._active = [*self._active, outlet]
        elif now >= outlet.deadline:
            self._refuse(outlet, UkshmError('ERR_UKSHM_TIMEOUT', 'the memory was not mapped'))

    def _refuse(self, outlet: Outlet, error: UkshmError) -> None:
        if error.code not in END_CODES:
            self._remove(outlet)
            return
        deadline = time.monotonic() + _REFUSED_SECONDS
        outlet.leave(deadline, code=error.code, message=str(error)[:300])

    # ---- the thread

    def _run(self) -> None:
        pause: float | None = None
        while True:
            ready = [fd for fd, _ in self._epoll.poll(pause)]
            with self.lock:
                if self._over:
                    return
                pause = self._round(ready)
                queued = any(outlet.queue.parcels for outlet in self._active)
                rests = self.waiting == 0 and pause is None and not self.closed and not queued
            if rests and self._wake_read not in ready:
                time.sleep(_REST_SECONDS)

    def _round(self, ready: list[int]) -> float | None:
        """What the thread does at each news; how many seconds it may sleep."""
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        while self._arrivals:
            self._admit(self._arrivals.popleft())
        while self.forgotten:
            self.forgotten.popleft().drop()
        now = time.monotonic()
        before = sum(outlet.released for outlet in self._outlets.values())
        for fd, outlet in list(self._outlets.items()):
            if fd in ready or outlet.state != ACTIVE or self._last_word_of_all:
                try:
                    self._attend(outlet, now)
                except Exception:  # whatever a subscriber causes ends that subscriber, not the thread
                    self._remove(outlet)
        self._sweep()
        self._plots.attend(now)
        if sum(outlet.released for outlet in self._outlets.values()) != before:
            self.notify()
        times = [one.deadline for one in self._outlets.values() if one.state != ACTIVE]
        first = min([self._plots.deadline, *times])
        return None if first == NEVER else max(0.0, first - now) + 0.001

    # ---- the end

    def close(self, seconds: float) -> None:
        """Admits nobody more, and lets all of them go; those who have not read and released
        everything in that time are left. Idempotent."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            self.kept.clear()
            self.notify()
        self._server.close()
        deadline = time.monotonic() + seconds
        with self.lock:
            for outlet in list(self._outlets.values()):
                if outlet.state in (JOINING, ENTERING):
                    self._remove(outlet)
            self._last_word_of_all = True
            self.poke()
            while self._outlets and time.monotonic() < deadline:
                self.changed.wait(deadline - time.monotonic())
            for outlet in list(self._outlets.values()):
                self._remove(outlet)
            while self._arrivals:
                self._arrivals.popleft().discard()
            self._over = True
            self.poke()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._plots.close()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def forked(self) -> None:
        """In a child: the topic is the parent's."""
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.closed = True
        self._close_descriptors()


_rosters: weakref.WeakSet[Roster] = weakref.WeakSet()


def _after_fork() -> None:
    for roster in list(_rosters):
        if not roster.closed:
            roster.forked()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)
