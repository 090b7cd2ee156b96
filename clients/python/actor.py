"""The actor of the project's tests: one side of a channel, told what to do by its command line.

    actor.py listen|connect NAME echo|ask|request|sink|stall [--asyncio]
    actor.py listen|connect NAME source COUNT SIZE [--asyncio]
    actor.py listen|connect NAME hold N
    actor.py listen|connect NAME forward TARGET
    actor.py vectors FILE

Prints JSON lines: "ready", then "done" (and ends with 0) or "error" (and ends with 1).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Awaitable
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import Callable, Union

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'src'))

import actor_vectors
import ukshm
from actor_pattern import pattern
from ukshm import Channel, Timeout, UkshmError, aio

CONNECT_SECONDS = 20
ASK_SIZES = [
    *[0, 1, 7, 8, 9, 63, 64, 65, 1000, 4096, 8192, 8193],
    *[65520, 65521, 100000, 1048576, 3000000],
]
ASK_COUNT = 3000
ASK_IN_FLIGHT = 8

Count = tuple[int, int]
AnyMessage = Union[ukshm.Message, aio.Message]


class WrongBytes(Exception):
    """A message that is not what was sent."""


def say(event: str, **fields: object) -> None:
    """One line of output."""
    print(json.dumps({'event': event, **fields}), flush=True)


def check(message: AnyMessage, number: int, length: int, type: int, id: int) -> None:
    """Compares a message with what it must be."""
    seen = (message.type, message.id, message.length_bytes)
    if seen != (type, id, length):
        raise WrongBytes(f'type, id, length are {seen}; expected {(type, id, length)}')
    if message.copy() != pattern(number, length):
        raise WrongBytes(f'message {id} of {length} bytes has other bytes')


def ask_size(number: int) -> int:
    """The length of the second part's messages."""
    return (number * 37) % 5000


def echo(channel: Channel) -> Count:
    messages = total = 0
    for message in channel:
        messages += 1
        total += message.length_bytes
        if message.is_request:
            message.reply(message.bytes, message.type)
            continue
        channel.send(message.bytes, message.type, message.id)
        message.release()
    return messages, total


def request(channel: Channel) -> Count:
    total = 0
    jobs = request_jobs()
    for number, size in jobs:
        with channel.request(pattern(number, size), number % 1000) as reply:
            check(reply, number, size, number % 1000, reply.id)
        total += size
    return len(jobs), total


def request_jobs() -> list[tuple[int, int]]:
    """Number and length of each request."""
    jobs = list(enumerate(ASK_SIZES))
    return jobs + [(number, ask_size(number)) for number in range(ASK_COUNT)]


def ask(channel: Channel) -> Count:
    messages = total = 0
    for number, size in enumerate(ASK_SIZES):
        channel.send(pattern(number, size), number, 1000 + number)
        with channel.receive() as message:
            check(message, number, size, number, 1000 + number)
        messages, total = messages + 1, total + size
    sent = 0
    for number in range(ASK_COUNT):
        while sent < min(ASK_COUNT, number + ASK_IN_FLIGHT):
            channel.send(pattern(sent, ask_size(sent)), sent, 1000 + sent)
            sent += 1
        with channel.receive() as message:
            check(message, number, ask_size(number), number, 1000 + number)
        messages, total = messages + 1, total + ask_size(number)
    return messages, total


def source(channel: Channel, count: str, size: str) -> Count:
    length = int(size)
    for number in range(int(count)):
        channel.send(pattern(number, length), 1, number)
    return int(count), int(count) * length


def sink(channel: Channel) -> Count:
    return hold(channel, '0')


def hold(channel: Channel, most: str) -> Count:
    messages = total = 0
    held: deque[ukshm.Message] = deque()
    for message in channel:
        check(message, message.id, message.length_bytes, 1, messages)
        messages += 1
        total += message.length_bytes
        held.append(message)
        if len(held) > int(most):
            (held.popleft if messages % 2 else held.pop)().release()
    while held:
        held.pop().release()
    return messages, total


def stall(channel: Channel) -> Count:
    sys.stdin.buffer.read()
    with suppress(Timeout):
        channel.close(timeout=0)
    return 0, 0


def forward(channel: Channel, name: str) -> Count:
    messages = total = 0
    with ukshm.connect(name, wait=True, timeout=CONNECT_SECONDS) as target:
        for message in channel:
            messages += 1
            total += message.length_bytes
            message.forward(target)
    return messages, total


ROLES: dict[str, Callable[..., Count]] = {
    'echo': echo,
    'ask': ask,
    'request': request,
    'source': source,
    'sink': sink,
    'hold': hold,
    'forward': forward,
    'stall': stall,
}


def act(how: str, name: str, role: str, arguments: list[str]) -> Count:
    """The synchronous interface."""
    with ExitStack() as stack:
        if how == 'listen':
            listener = stack.enter_context(ukshm.listen(name))
            say('ready')
            channel = stack.enter_context(listener.accept())
        else:
            channel = ukshm.connect(name, wait=True, timeout=CONNECT_SECONDS)
            stack.enter_context(channel)
            say('ready')
        return ROLES[role](channel, *arguments)


async def aio_echo(channel: aio.Channel) -> Count:
    messages = total = 0
    async for message in channel:
        messages += 1
        total += message.length_bytes
        if message.is_request:
            await message.reply(message.bytes, message.type)
            continue
        await channel.send(message.bytes, message.type, message.id)
        message.release()
    return messages, total


async def aio_request(channel: aio.Channel) -> Count:
    total = 0
    jobs = iter(request_jobs())

    async def lane() -> None:
        nonlocal total
        for number, size in jobs:
            with await channel.request(pattern(number, size), number % 1000) as reply:
                check(reply, number, size, number % 1000, reply.id)
            total += size

    await asyncio.gather(*(lane() for _ in range(ASK_IN_FLIGHT)))
    return len(request_jobs()), total


async def aio_ask(channel: aio.Channel) -> Count:
    total = 0
    jobs = [(number, size) for number, size in enumerate(ASK_SIZES)]
    jobs += [(number, ask_size(number)) for number in range(ASK_COUNT)]
    free = asyncio.Semaphore(1)

    async def send() -> None:
        for index, (number, size) in enumerate(jobs):
            await free.acquire()
            if index == len(ASK_SIZES):
                for _ in range(ASK_IN_FLIGHT - 1):
                    free.release()
            await channel.send(pattern(number, size), number, 1000 + number)

    sender = asyncio.ensure_future(send())
    for number, size in jobs:
        with await channel.receive() as message:
            check(message, number, size, number, 1000 + number)
        total += size
        free.release()
    await sender
    return len(jobs), total


async def aio_source(channel: aio.Channel, count: str, size: str) -> Count:
    length = int(size)
    for number in range(int(count)):
        await channel.send(pattern(number, length), 1, number)
    return int(count), int(count) * length


async def aio_sink(channel: aio.Channel) -> Count:
    messages = total = 0
    async for message in channel:
        check(message, message.id, message.length_bytes, 1, messages)
        messages += 1
        total += message.length_bytes
        message.release()
    return messages, total


async def aio_forward(channel: aio.Channel, name: str) -> Count:
    messages = total = 0
    async with await aio.connect(name, wait=True) as target:
        async for message in channel:
            messages += 1
            total += message.length_bytes
            await message.forward(target)
    return messages, total


async def aio_act(how: str, name: str, role: str, arguments: list[str]) -> Count:
    """The interface for asyncio."""
    roles: dict[str, Callable[..., Awaitable[Count]]] = {
        'echo': aio_echo,
        'ask': aio_ask,
        'request': aio_request,
        'source': aio_source,
        'sink': aio_sink,
        'forward': aio_forward,
    }
    async with AsyncExitStack() as stack:
        if how == 'listen':
            listener = await stack.enter_async_context(await aio.listen(name))
            say('ready')
            channel = await stack.enter_async_context(await listener.accept())
        else:
            channel = await asyncio.wait_for(aio.connect(name, wait=True), CONNECT_SECONDS)
            await stack.enter_async_context(channel)
            say('ready')
        return await roles[role](channel, *arguments)


def main(arguments: list[str]) -> int:
    """Does what the command line says."""
    for_asyncio = any(argument.endswith('--asyncio') for argument in arguments)
    arguments = [a[: -len('--asyncio')] if a.endswith('--asyncio') else a for a in arguments]
    arguments = [argument for argument in arguments if argument]
    try:
        if arguments[0] == 'vectors':
            messages, total = actor_vectors.run(arguments[1]), 0
        else:
            how, name, role, *rest = arguments
            if for_asyncio:
                messages, total = asyncio.run(aio_act(how, name, role, rest))
            else:
                messages, total = act(how, name, role, rest)
    except UkshmError as error:
        say('error', code=error.code, message=str(error))
        return 1
    except (WrongBytes, actor_vectors.VectorError) as error:
        say('error', code='ERR_ACTOR', message=str(error))
        return 1
    say('done', messages=messages, bytes=total)
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
