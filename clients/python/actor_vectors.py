"""Runs the shared test vectors: what the bytes of a peer mean, without a socket."""

from __future__ import annotations

from typing import Callable

from actor_pattern import pattern
from ukshm import PeerMisbehaved, UkshmError
from ukshm._format import (
    Layout,
    Refusal,
    decode_hello,
    decode_welcome,
    layout_of,
    valid_ack,
)
from ukshm._forward import Region
from ukshm._frames import Drop, FrameParser, Import, Imported
from ukshm._joining import TYPE_JOIN, Numbers, decode_request
from ukshm._meeting import Origin
from ukshm._memory import Outbox
from ukshm._message import Received
from ukshm._reader import Reader
from ukshm._writer import Writer


class VectorError(Exception):
    """A vector whose outcome is not the expected one."""


def run(path: str) -> int:
    """Runs the vectors of a file; how many there were. Raises `VectorError`."""
    count = 0
    with open(path, encoding='utf-8') as file:
        for line in file:
            line = line.rstrip('\n')
            if not line or line.startswith('#'):
                continue
            kind, name, *fields = line.split(' ')
            expected = _expand_expected(kind, fields[-1])
            seen = _KINDS[kind](fields[:-1])
            if seen != expected:
                raise VectorError(f'{kind} {name}: expected {fields[-1]}, seen {seen}')
            count += 1
    return count


def expand(text: str) -> bytes:
    """Bytes from segments of hex, joined by '.', some of them repeated; '-' is none."""
    if text in ('-', ''):
        return b''
    data = b''
    for segment in text.split('.'):
        digits, _, times = segment.partition('x')
        data += bytes.fromhex(digits) * int(times or 1)
    return data


def _expand_expected(kind: str, text: str) -> str:
    """Writes out the repeated segments, so that texts can be compared."""
    if kind in ('reader', 'shared'):
        # TYPE/ID/HEX: hex without a segment's dot or repetition is left as it is.
        items = [item.split('/') for item in text.split(',')]
        return ','.join('/'.join([*item[:2], *map(_plain, item[2:])]) for item in items)
    head, mark, address = text.partition('address=')
    return head + mark + (_plain(address) if mark else '')


def _plain(digits: str) -> str:
    return expand(digits).hex() or '-'


def _hello(fields: list[str]) -> str:
    try:
        hello = decode_hello(expand(fields[0]))
    except Refusal as refusal:
        return f'refused:{refusal.status}'
    return (
        f'ok:kind={hello.kind},flags={hello.flags},sendRing={hello.send_ring},'
        f'sendArena={hello.send_arena},receiveRing={hello.receive_ring},'
        f'receiveArena={hello.receive_arena},token={hello.token.hex()},'
        f'address={hello.address.hex() or "-"}'
    )


def _welcome(fields: list[str]) -> str:
    try:
        welcome = decode_welcome(expand(fields[0]))
    except UkshmError as error:
        return f'error:{error.code}'
    return (
        f'ok:flags={welcome.flags},ring={welcome.ring},arena={welcome.arena},'
        f'backRing={welcome.back_ring},backArena={welcome.back_arena},token={welcome.token.hex()}'
    )


def _ack(fields: list[str]) -> str:
    return 'ok' if valid_ack(expand(fields[0])) else 'broken'


def _frames(fields: list[str]) -> str:
    parser = FrameParser()
    items = []
    for frame in parser.feed(expand(fields[0])):
        if isinstance(frame, Import):
            address = frame.address.hex() or '-'
            items.append(f'import/{frame.number}/{frame.uid}/{frame.token.hex()}/{address}')
        elif isinstance(frame, Imported):
            items.append(f'imported/{frame.number}/{frame.status}')
        elif isinstance(frame, Drop):
            items.append(f'drop/{frame.number}')
        else:
            items.append('ring')
    if parser.broken:
        items.append('broken')
    return ','.join(items) or '-'


def _memory(ring: str, arena: str, patches: str) -> tuple[bytearray, Layout]:
    layout = layout_of(int(ring), int(arena))
    memory = bytearray(layout.end)
    _patch(memory, patches)
    return memory, layout


def _patch(memory: bytearray, patches: str) -> None:
    if patches == '-':
        return
    for patch in patches.split(';'):
        offset, _, digits = patch.partition('=')
        data = expand(digits)
        memory[int(offset) : int(offset) + len(data)] = data


class _Owner:
    """In place of a channel."""

    reader: Reader[Received] | None = None

    def _check_open(self) -> None:
        pass

    def _release(self, start: int, lease: int, generation: int) -> None:
        assert self.reader is not None
        self.reader.release(start, lease, generation)

    def _forget(self, start: int, lease: int, generation: int, request: int) -> None:
        pass

    def _refuse(self, request: int, error: BaseException) -> None:
        pass


def _reader(fields: list[str]) -> str:
    return _read_all(*_memory(*fields), {})


def _shared(fields: list[str]) -> str:
    ring, arena, shared, patches, others = fields
    memory, layout = _memory('4096', shared, others)
    origin = Origin(bytes(8), 0, b'')
    region = Region(1, Outbox(memoryview(memory), layout), origin)
    return _read_all(*_memory(ring, arena, patches), {1: region})


def _read_all(memory: bytearray, layout: Layout, regions: dict[int, Region]) -> str:
    own = Outbox(memoryview(bytearray(layout.end)), layout)
    owner = _Owner()
    reader = owner.reader = Reader(Outbox(memoryview(memory), layout), own, Received)
    reader.regions.update(regions)
    items = []
    try:
        message = reader.pop(owner)
        while message is not None:
            mark = 'q' if message.is_request else ''
            items.append(f'{mark}{message.type}/{message.id}/{message.copy().hex() or "-"}')
            message.release()
            message = reader.pop(owner)
    except PeerMisbehaved:
        items.append('broken')
    return ','.join(items) or '-'


def _writer(fields: list[str]) -> str:
    ring, arena, sends, patches = fields
    own, layout = _memory(ring, arena, '-')
    peer = bytearray(layout.end)
    writer = Writer(Outbox(memoryview(own), layout), Outbox(memoryview(peer), layout))
    for number, length in enumerate(map(int, sends.split(',') if sends != '-' else [])):
        data = pattern(number, length)
        if length <= writer.inline_bytes_max:
            sent = writer.write(data, length, 0, 0)
        else:
            chunk = writer.lend_chunk(length)
            sent = chunk is not None
            if chunk is not None:
                writer.chunk_view(chunk[0], length)[:] = data
                writer.send_chunk(chunk, length, 0, 0)
        if not sent:
            raise VectorError(f'message {number} of {length} bytes found no space')
        writer.publish()
    _patch(peer, patches)
    try:
        writer.collect()
    except PeerMisbehaved:
        return 'broken'
    return f'used={writer.used_bytes},leased={writer.leased}'


def _request(fields: list[str]) -> str:
    name, block, type, digits = fields
    try:
        wishes = decode_request(int(type), expand(digits), name, block == '1')
    except PeerMisbehaved:
        return 'broken'
    except UkshmError as error:
        return f'refused:{error.code}'
    return f'ok:slow={wishes.slow},depth={wishes.depth}'


def _answer(fields: list[str]) -> str:
    try:
        numbers = Numbers('vectors', int(fields[0]), expand(fields[1]))
    except UkshmError as error:
        return f'error:{error.code}'
    return f'ok:number={numbers.next},kept={numbers.kept}'


def _word(fields: list[str]) -> str:
    numbers = Numbers('vectors', TYPE_JOIN, b'{"sequence":5,"kept":0}')
    try:
        numbers.last_word(int(fields[0]), expand(fields[1]))
    except PeerMisbehaved:
        return 'broken'
    code = 'none' if numbers.end is None else numbers.end.code
    return f'ok:missed={numbers.missed},code={code}'


_KINDS: dict[str, Callable[[list[str]], str]] = {
    'hello': _hello,
    'welcome': _welcome,
    'ack': _ack,
    'frames': _frames,
    'reader': _reader,
    'writer': _writer,
    'shared': _shared,
    'request': _request,
    'answer': _answer,
    'word': _word,
}
