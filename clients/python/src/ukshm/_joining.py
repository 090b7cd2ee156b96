"""How one joins what a listener offers beside plain channels; and a topic's numbers. Pure.

    connector -> listener   type 1: JSON, what it wants, as its first message
    listener -> connector   type 1: the answer; then messages of type 0
                            type 2: JSON, the last word: a refusal, or why no more will come
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple, NoReturn

from ._errors import UkshmError, invalid_argument, peer_closed, peer_misbehaved
from ._format import U32

TYPE_DATA: Final = 0
TYPE_JOIN: Final = 1
TYPE_END: Final = 2

NOTE_BYTES_MAX: Final = 4096
DEPTH_MAX: Final = 4096
DEPTH_DEFAULT: Final = 256
POLICIES: Final = ('block', 'drop-newest', 'drop-oldest', 'disconnect')
_WORDS_MAX: Final = 500

#: Codes with which the other side may end a joined channel.
END_CODES: Final = frozenset(
    'ERR_UKSHM_' + code
    for code in (
        'CANNOT_FORWARD',
        'INVALID_ARGUMENT',
        'LIMIT',
        'MAY_NOT_BLOCK',
        'NOT_OFFERED',
        'NO_MEMORY',
        'TIMEOUT',
        'TOO_SLOW',
    )
)

#: A JSON object that a peer sent.
Note = dict[str, Any]


class Wishes(NamedTuple):
    """What a subscriber asks of a topic."""

    slow: str
    depth: int


def encode_note(**fields: object) -> bytes:
    """A JSON object as bytes."""
    return json.dumps(fields, ensure_ascii=False, separators=(',', ':')).encode()


def decode_note(data: bytes) -> Note:
    """The JSON object in a message. Raises PEER_MISBEHAVED."""
    if len(data) <= NOTE_BYTES_MAX:
        try:
            note = json.loads(data.decode('utf-8', 'replace'), parse_constant=_no_constant)
            if isinstance(note, dict):
                return note
        except (ValueError, RecursionError):
            pass
    raise peer_misbehaved('a message that is no JSON object, where one is due')


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's


def whole_number(value: object) -> int:
    """A number without a fraction, however it was written; -1 for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def note_number(note: Note, key: str) -> int:
    """A u32 of a note. Raises PEER_MISBEHAVED."""
    value = whole_number(note.get(key))
    if 0 <= value <= U32:
        return value
    raise peer_misbehaved(f'{key!r} is not a whole number from 0 to {U32}')


def end_error(note: Note, name: str) -> UkshmError | None:
    """What a last word says went wrong, if anything did. Raises PEER_MISBEHAVED."""
    if 'code' not in note:
        return None
    code = note['code']
    if not isinstance(code, str) or code not in END_CODES:
        raise peer_misbehaved('an end for a reason that does not exist')
    if code == 'ERR_UKSHM_TOO_SLOW':
        return UkshmError(
            code,
            f"this subscriber of '{name}' was too slow, and its publisher gave it up: release "
            'messages sooner, or subscribe with a greater depth or another slow',
        )
    words = note.get('message')
    return UkshmError(code, f"'{name}': {words[:_WORDS_MAX] if isinstance(words, str) else ''}")


def check_wishes(slow: object, depth: object) -> Wishes:
    """What a subscriber may ask for. Raises INVALID_ARGUMENT."""
    if not isinstance(slow, str) or slow not in POLICIES:
        raise invalid_argument('slow', slow, f'one of {POLICIES}')
    count = whole_number(depth)
    if not 1 <= count <= DEPTH_MAX:
        raise invalid_argument('depth', depth, f'1 to {DEPTH_MAX}')
    return Wishes(slow, count)


def decode_request(type: int, data: bytes, name: str, may_block: bool) -> Wishes:
    """What a connector asks of the topic `name`. Raises what it is told instead, or
    PEER_MISBEHAVED."""
    if type != TYPE_JOIN:
        raise peer_misbehaved(f'a first message of type {type}')
    note = decode_note(data)
    topic = note.get('topic')
    # Where folders are mounted elsewhere, the last part of a path is the same.
    if not isinstance(topic, str) or topic.rpartition('/')[2] != name.rpartition('/')[2]:
        raise UkshmError(
            'ERR_UKSHM_NOT_OFFERED',
            f"no such topic here; this is '{name}': subscribe to it by that name",
        )
    wishes = check_wishes(note.get('slow', 'drop-oldest'), note.get('depth', DEPTH_DEFAULT))
    if wishes.slow != 'block' or may_block:
        return wishes
    raise UkshmError(
        'ERR_UKSHM_MAY_NOT_BLOCK',
        "a subscriber with slow 'block' could stop this topic for all: its publisher must allow "
        "that (may_block), or choose another 'slow'",
    )


class Numbers:
    """What a subscriber knows of its topic: which number comes next, and what was missed."""

    __slots__ = ('end', 'kept', 'missed', 'name', 'next', 'received')

    def __init__(self, name: str, type: int, data: bytes) -> None:
        """From the publisher's first message. Raises what it says instead of admitting us."""
        self.name = name
        if type == TYPE_END:
            raise end_error(decode_note(data), name) or peer_closed(f"the publisher of '{name}'")
        if type != TYPE_JOIN:
            raise peer_misbehaved(f'a first message of type {type}')
        note = decode_note(data)
        #: How many messages the topic had kept for us: they come first.
        self.kept = note_number(note, 'kept')
        #: The number of the next message, if nothing is lost.
        self.next = (note_number(note, 'sequence') - self.kept) & U32
        self.received = 0
        self.missed = 0
        #: Why the publisher sends no more, if that is an error.
        self.end: UkshmError | None = None

    def take(self, sequence: int) -> int:
        """Counts a message; how many were lost right before it."""
        missed = (sequence - self.next) & U32
        self.next = (sequence + 1) & U32
        self.received += 1
        self.missed += missed
        return missed

    def last_word(self, type: int, data: bytes) -> None:
        """A message that is not of the topic: the last one. Raises PEER_MISBEHAVED."""
        if type != TYPE_END:
            raise peer_misbehaved(f'a message of type {type} in a topic')
        note = decode_note(data)
        sequence = note_number(note, 'sequence')
        error = end_error(note, self.name)
        self.missed += (sequence - self.next) & U32
        self.next = sequence
        self.end = error
