"""ukshm: shared memory between processes. Messages are handed on in place instead of copied.

    with ukshm.connect('pictures', wait=True) as channel:
        for message in channel:
            use(message.bytes)  # in place, in the sender's pages, read-only
            message.release()   # the sender's memory again

`ukshm.aio` has the same for asyncio. Linux on x86-64; see README.md for the rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base import ChannelStats
from ._channel import Channel, Message
from ._errors import (
    Closed,
    NoListener,
    PeerClosed,
    PeerGone,
    PeerMisbehaved,
    RemoteError,
    SyscallError,
    Timeout,
    UkshmError,
)
from ._listener import Listener, connect, listen
from ._message import Loan
from ._names import Access, Credentials
from ._subscription import Subscription, SubscriptionStats, TopicMessage, subscribe
from ._topic import Topic, TopicLoan, open_topic
from ._topic_settings import SubscriberStats, TopicStats

if TYPE_CHECKING:
    from . import aio

__version__ = '0.1.0'

__all__ = [
    'Access',
    'Channel',
    'ChannelStats',
    'Closed',
    'Credentials',
    'Listener',
    'Loan',
    'Message',
    'NoListener',
    'PeerClosed',
    'PeerGone',
    'PeerMisbehaved',
    'RemoteError',
    'SubscriberStats',
    'Subscription',
    'SubscriptionStats',
    'SyscallError',
    'Timeout',
    'Topic',
    'TopicLoan',
    'TopicMessage',
    'TopicStats',
    'UkshmError',
    'aio',
    'connect',
    'listen',
    'open_topic',
    'subscribe',
]


def __getattr__(name: str) -> object:
    # asyncio is not loaded for programs that do without it.
    if name == 'aio':
        import importlib

        return importlib.import_module('ukshm.aio')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
