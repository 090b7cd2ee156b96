"""The actor of the project's tests for topics: publishes or subscribes, as its command line says.

    publish NAME SUBSCRIBERS COUNT KEEP SIZES
        opens the topic and publishes COUNT messages, in as many equal parts as SUBSCRIBERS has
        numbers (joined by ','), each part when there are so many subscribers; says "part" before
        each but the first. The lengths are those of SIZES, in turn. Says "published", and closes
        the topic when its standard input ends
    subscribe NAME SLOW DEPTH HOLD
        reads to the end, keeping up to HOLD messages
    later NAME SLOW DEPTH HOLD
        likewise, but reads nothing before its standard input ends; says "reading" at the first

With --asyncio behind it, by that interface. Prints JSON lines: "ready", then "done", or "error".
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import deque
from typing import Union

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'src'))

import ukshm
from actor_pattern import pattern
from ukshm import UkshmError, aio

WAIT_SECONDS = 20


class WrongBytes(Exception):
    """A message that is not what was published."""


class Tally:
    """What a subscriber saw."""

    def __init__(self, most: int, tells: bool) -> None:
        self.most = most
        self.tells = tells
        self.messages = 0
        self.bytes = 0
        self.first = -1
        self._held: deque[ukshm.TopicMessage] = deque()

    def take(self, message: ukshm.TopicMessage) -> None:
        self._check(message)
        if self.messages == 0:
            self.first = message.sequence
            if self.tells:
                say('reading')
        self.messages += 1
        self.bytes += message.length_bytes
        self._held.append(message)
        if len(self._held) > self.most:
            self._let_go((self._held.popleft if self.messages % 2 else self._held.pop)())

    def end(self) -> None:
        while self._held:
            self._let_go(self._held.pop())

    def _let_go(self, message: ukshm.TopicMessage) -> None:
        self._check(message)  # it must not have changed since it came
        message.release()

    def _check(self, message: ukshm.TopicMessage) -> None:
        if message.copy() != pattern(message.sequence, message.length_bytes):
            raise WrongBytes(f'message {message.sequence} holds other bytes')


AnySubscription = Union[ukshm.Subscription, aio.Subscription]


def say(event: str, **fields: object) -> None:
    print(json.dumps({'event': event, **fields}), flush=True)


def report(tally: Tally, subscription: AnySubscription, code: str) -> None:
    say(
        'done',
        messages=tally.messages,
        bytes=tally.bytes,
        first=tally.first,
        missed=subscription.missed,
        code=code,
    )


def wanted(waits: list[int], number: int, count: int) -> int:
    """How many subscribers there must be before a message: at the first of each part."""
    part, before = number * len(waits) // count, (number - 1) * len(waits) // count
    if part != before and number > 0:
        say('part')
    return 0 if part == before else waits[part]


def publish(name: str, waits: list[int], count: int, keep: int, sizes: list[int]) -> None:
    total = 0
    with ukshm.open_topic(name, may_block=True, keep=keep) as topic:
        say('ready')
        for number in range(count):
            least = wanted(waits, number, count)
            while len(topic.subscribers) < least:
                time.sleep(0.002)
            size = sizes[number % len(sizes)]
            if number % 2 == 0:
                topic.publish(pattern(number, size))
            else:
                with topic.loan(size + 10) as loan:
                    loan.bytes[:size] = pattern(number, size)
                    loan.publish(size)
            total += size
        say('published', subscribers=len(topic.subscribers))
        sys.stdin.buffer.read()
    say('done', messages=count, bytes=total)


async def aio_publish(
    name: str, waits: list[int], count: int, keep: int, sizes: list[int]
) -> None:
    total = 0
    async with await aio.open_topic(name, may_block=True, keep=keep) as topic:
        say('ready')
        for number in range(count):
            least = wanted(waits, number, count)
            while len(topic.subscribers) < least:
                await asyncio.sleep(0.002)
            size = sizes[number % len(sizes)]
            if number % 2 == 0:
                await topic.publish(pattern(number, size))
            else:
                with await topic.loan(size + 10) as loan:
                    loan.bytes[:size] = pattern(number, size)
                    await loan.publish(size)
            total += size
        say('published', subscribers=len(topic.subscribers))
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    say('done', messages=count, bytes=total)


def subscribe(name: str, slow: str, depth: int, hold: int, later: bool) -> None:
    tally = Tally(hold, later)
    with ukshm.subscribe(
        name, wait=True, timeout=WAIT_SECONDS, slow=slow, depth=depth
    ) as subscription:
        say('ready')
        if later:
            sys.stdin.buffer.read()
        code = 'end'
        try:
            for message in subscription:
                tally.take(message)
        except UkshmError as error:
            code = error.code
        tally.end()
        report(tally, subscription, code)


async def aio_subscribe(name: str, slow: str, depth: int, hold: int, later: bool) -> None:
    tally = Tally(hold, later)
    waiting = aio.subscribe(name, wait=True, slow=slow, depth=depth)
    async with await asyncio.wait_for(waiting, WAIT_SECONDS) as subscription:
        say('ready')
        if later:
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
        code = 'end'
        try:
            async for message in subscription:
                tally.take(message)
        except UkshmError as error:
            code = error.code
        tally.end()
        report(tally, subscription, code)


def main(arguments: list[str]) -> int:
    """Does what the command line says."""
    for_asyncio = arguments[-1:] == ['--asyncio']
    role, name, *rest = arguments[:-1] if for_asyncio else arguments
    try:
        if role == 'publish':
            waits = [int(number) for number in rest[0].split(',')]
            count, keep = int(rest[1]), int(rest[2])
            sizes = [int(size) for size in rest[3].split(',')]
            if for_asyncio:
                asyncio.run(aio_publish(name, waits, count, keep, sizes))
            else:
                publish(name, waits, count, keep, sizes)
        else:
            slow, depth, hold = rest[0], int(rest[1]), int(rest[2])
            if for_asyncio:
                asyncio.run(aio_subscribe(name, slow, depth, hold, role == 'later'))
            else:
                subscribe(name, slow, depth, hold, role == 'later')
    except UkshmError as error:
        say('error', code=error.code, message=str(error))
        return 1
    except WrongBytes as error:
        say('error', code='ERR_ACTOR', message=str(error))
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
