"""A subscription for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ._aio_channel import Channel
from ._errors import Closed, PeerClosed, timeout_error
from ._joining import TYPE_JOIN, Wishes, encode_note
from ._subscription import BaseSubscription, TopicMessage, first_word


class Subscription(BaseSubscription[Channel]):
    """Messages of one topic, in order; made by `subscribe`. Belongs to one event loop.

    An asynchronous context manager, and an asynchronous iterator until the topic is closed;
    release each message. One consumer at a time.
    """

    async def receive(self) -> TopicMessage:
        """The next message; waits until there is one. Raises as `ukshm.Subscription.receive`, but
        for the timeout."""
        while True:
            self._check_end()
            numbered = self._number(await self._channel.receive())
            if numbered is not None:
                return numbered

    def __aiter__(self) -> AsyncIterator[TopicMessage]:
        return self

    async def __anext__(self) -> TopicMessage:
        try:
            return await self.receive()
        except (PeerClosed, Closed):
            raise StopAsyncIteration from None

    async def close(self) -> None:
        """Ends the subscription: messages that are held are gone with it. Idempotent."""
        if not self._channel.closed:
            self._channel._begin_close()
            self._channel._hang_up()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def join_topic(channel: Channel, wishes: Wishes, seconds: float) -> Subscription:
    """Asks the listener of a new channel for its topic."""
    name = channel.name
    try:
        await channel.send(encode_note(topic=name, **wishes._asdict()), TYPE_JOIN)
        try:
            message = await asyncio.wait_for(channel.receive(), seconds)
        except asyncio.TimeoutError:
            raise timeout_error(f"an answer of the publisher of '{name}'", seconds) from None
        return Subscription(channel, first_word(channel, message))
    except BaseException:
        channel._hang_up()
        raise
