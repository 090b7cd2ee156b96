"""The ring and the arena, on plain memory: python -m unittest discover -s clients/python/tests"""

from __future__ import annotations

import os
import random
import struct
import sys
import unittest
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'src'))

from ukshm._arena import Arena, chunk_bytes
from ukshm._errors import PeerMisbehaved, UkshmError
from ukshm._format import HEAD, RELEASE_TAIL, RING_OFFSET, TAIL, layout_of
from ukshm._memory import Outbox
from ukshm._message import Received
from ukshm._reader import Reader
from ukshm._writer import Writer


class Pair:
    """A writer and the reader of what it writes."""

    def __init__(self, ring: int = 4096, arena: int = 0, start: int = 0) -> None:
        layout = layout_of(ring, arena)
        self.there = Outbox(memoryview(bytearray(layout.end)), layout)
        self.back = Outbox(memoryview(bytearray(layout.end)), layout)
        self.writer = Writer(self.there, self.back)
        self.reader = Reader(self.there, self.back, Received)
        for side, names in ((self.writer, '_tail _published _head'), (self.reader, '_tail _read')):
            for name in names.split():
                setattr(side, name, start)
        self.reader._head = start
        self.there.words[TAIL] = self.back.words[HEAD] = start

    def pop(self) -> Any:
        return self.reader.pop(self)

    def _check_open(self) -> None: ...

    def _release(self, *what: int) -> None:
        self.reader.release(*what)

    def _forget(self, *what: int) -> None:
        self.reader.release(*what[:3])

    def _refuse(self, request: int, error: BaseException) -> None: ...

    def send(self, data: bytes, type: int = 0, id: int = 0) -> bool:
        sent = self.writer.write(data, len(data), type, id)
        self.writer.publish()
        return sent


class RingTest(unittest.TestCase):
    def test_nothing_is_seen_before_it_is_published(self) -> None:
        pair = Pair()
        pair.writer.write(b'one', 3, 1, 2)
        self.assertIsNone(pair.pop())
        pair.writer.publish()
        with pair.pop() as message:
            self.assertEqual((message.copy(), message.type, message.id), (b'one', 1, 2))
        self.assertTrue(pair.writer.collect())
        self.assertTrue(pair.writer.drained)

    def test_order_and_fullness_across_the_ends_of_ring_and_u32(self) -> None:
        pair = Pair(start=2**32 - 4096)
        dice = random.Random(1)
        waiting: list[tuple[bytes, Any]] = []
        sent = received = 0
        while received < 3000:
            data = bytes([sent & 255]) * dice.randrange(0, 513)
            if dice.random() < 0.6 and pair.send(data, 3, sent):
                waiting.append((data, None))
                sent += 1
            elif (message := pair.pop()) is not None:
                self.assertEqual(message.id, received)
                self.assertEqual(message.copy(), waiting.pop(0)[0])
                message.release()
                received += 1

    def test_full_until_the_first_is_released(self) -> None:
        pair = Pair()
        while pair.send(bytes(500)):
            pass
        first, second = pair.pop(), pair.pop()
        second.release()
        self.assertFalse(pair.send(bytes(500)))
        first.release()
        self.assertTrue(pair.send(bytes(500)))

    def test_chunks_come_back_in_any_order(self) -> None:
        pair = Pair(4096, 65536 * 4)
        messages = []
        for number in range(3):
            chunk = pair.writer.lend_chunk(20000)
            assert chunk is not None
            pair.writer.chunk_view(chunk[0], 20000)[:] = bytes([number]) * 20000
            pair.writer.send_chunk(chunk, 20000, 5, number)
            pair.writer.publish()
            messages.append(pair.pop())
        for message in (messages[1], messages[0], messages[2]):
            self.assertEqual(message.copy(), bytes([message.id]) * 20000)
            message.release()
        pair.writer.collect()
        self.assertTrue(pair.writer.drained)
        self.assertEqual(pair.writer.arena.used_bytes, 0)

    def test_loans_of_chunks_always_find_space_for_their_record(self) -> None:
        pair = Pair(4096, 65536 * 64)
        dice = random.Random(2)
        loans: list[tuple[int, int]] = []
        for _ in range(5000):
            choice = dice.random()
            if choice < 0.4:
                chunk = pair.writer.lend_chunk(1)
                if chunk is not None:
                    loans.append(chunk)
            elif choice < 0.6 and loans:
                pair.writer.send_chunk(loans.pop(dice.randrange(len(loans))), 1, 0, 0)
                pair.writer.publish()
            elif choice < 0.8:
                pair.send(bytes(dice.randrange(512)))
            elif (message := pair.pop()) is not None:
                message.release()

    def test_a_second_small_loan_is_refused(self) -> None:
        pair = Pair()
        self.assertIsNotNone(pair.writer.lend_inline(8))
        with self.assertRaises(UkshmError):
            pair.writer.lend_inline(8)
        pair.writer.discard_inline()
        self.assertTrue(pair.send(b'x'))


class LiesTest(unittest.TestCase):
    def test_the_reader_refuses(self) -> None:
        record = struct.Struct('<HHI')
        for name, tail, data in [
            ('a tail that is not aligned', 4, b''),
            ('a tail too far ahead', 4104, b''),
            ('a record behind the tail', 8, record.pack(8, 0, 0)),
            ('a padding of no length', 8, record.pack(0, 0xFFFF, 0)),
            ('a padding behind the tail', 8, record.pack(2, 0xFFFF, 0)),
            ('a descriptor of another length', 40, record.pack(25, 0xFFFE, 0)),
            ('a chunk outside the arena', 32, record.pack(24, 0xFFFE, 0) + bytes(24)),
            ('an unknown region', 32, record.pack(24, 0xFFFE, 0) + bytes(16) + b'\7'),
        ]:
            with self.subTest(name):
                pair = Pair(4096, 65536)
                pair.there.memory[RING_OFFSET : RING_OFFSET + len(data)] = data
                pair.there.words[TAIL] = tail
                with self.assertRaises(PeerMisbehaved):
                    pair.pop()

    def test_the_writer_refuses(self) -> None:
        for name, word, value in [
            ('a head that is not aligned', HEAD, 4),
            ('a head beyond the tail', HEAD, 24),
            ('a head from behind', HEAD, 2**32 - 8),
            ('releases of what is not lent', RELEASE_TAIL, 1),
        ]:
            with self.subTest(name):
                pair = Pair()
                pair.send(b'12345678')
                pair.back.words[word] = value
                with self.assertRaises(PeerMisbehaved):
                    pair.writer.collect()


class ArenaTest(unittest.TestCase):
    def test_chunks_never_overlap_and_all_come_back(self) -> None:
        arena = Arena(65536 * 16)
        dice = random.Random(3)
        lent: list[tuple[int, int]] = []
        for _ in range(5000):
            if dice.random() < 0.55:
                size = chunk_bytes(dice.choice([1, 5000, 70000, 300000]))
                offset = arena.allocate(size)
                if offset is not None:
                    for other, length in lent:
                        self.assertTrue(offset + size <= other or other + length <= offset)
                    lent.append((offset, size))
            elif lent:
                arena.free(*lent.pop(dice.randrange(len(lent))))
        for chunk in lent:
            arena.free(*chunk)
        self.assertEqual(arena.allocate(65536 * 16), 0)


if __name__ == '__main__':
    unittest.main()
