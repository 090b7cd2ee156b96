"""Forwarding, seen from the channel that messages go to: announcing their memory, handing on
descriptors, and passing releases back to whom the messages came from."""

from __future__ import annotations

import weakref

from ._errors import PeerMisbehaved, cannot_forward
from ._forward import Announcement
from ._frames import Drop
from ._link import Link
from ._message import Received
from ._reader import M
from ._writer import Forwarded


class Forwarder(Link[M]):
    """A channel to which messages of other channels (`source`) can be handed on."""

    def _announce(self, source: Forwarder[M], message: Received) -> Announcement:
        """Asks the peer to map the message's memory, unless it has."""
        if self._ending():
            raise self._why_ended()
        region = message._region
        key = (source._serial, 0 if region is None else region.number)
        announcement = self._announced.find(key)
        if announcement is None:
            origin = source._meeting.origin if region is None else region.origin
            announcement, frame = self._announced.add(key, origin)
            source._targets[self._serial] = weakref.ref(self)
            self._wire.send_frame(frame)
        return announcement

    def _try_forward(
        self, source: Forwarder[M], message: Received, announcement: Announcement
    ) -> bool:
        if self._ending():
            raise self._why_ended()
        if announcement.answer is not True:
            raise cannot_forward('the next process may not or cannot map its memory')
        what = Forwarded(source, message._lease, message._generation, announcement.number)
        place = (message._offset, message.length_bytes, message.type, message.id)
        try:
            self._writer.collect()
            sent = self._writer.forward(what, *place)
        except PeerMisbehaved as error:
            self._end(error)
            raise
        if sent:
            announcement.out += 1
            if announcement.out == 1:
                source._watch(self)
        if self._writer.publish():
            self._wire.ring()
        self._pass_on_returned()
        return sent

    def _pass_on_returned(self) -> None:
        """What the peer gave back and was not ours: back to its sender."""
        writer = self._writer
        while writer.returned:
            back = writer.returned.pop()
            source = back.source
            source._release(0, back.lease, back.generation)
            found = self._announced.by_number(back.number)
            if found is None or not isinstance(source, Forwarder):
                continue
            key, announcement = found
            announcement.out -= 1
            if announcement.out == 0:
                source._unwatch(self)
                if source._dead is not None:
                    self._drop(key, announcement)

    def _drop(self, key: tuple[int, int], announcement: Announcement) -> None:
        self._announced.remove(key)
        self._wire.send_frame(Drop(announcement.number))

    def _source_ended(self, serial: int) -> None:
        for key, announcement in self._announced.of_channel(serial).items():
            if announcement.out == 0:
                self._drop(key, announcement)

    def _watch(self, target: Forwarder[M]) -> None:
        """Messages of ours are at that channel's peer: its releases are to be passed on."""

    def _unwatch(self, target: Forwarder[M]) -> None:
        """None are any more."""

    def _tell_targets(self) -> None:
        for reference in self._targets.values():
            target = reference()
            if isinstance(target, Forwarder) and target._dead is None:
                target._source_ended(self._serial)
        self._targets.clear()
