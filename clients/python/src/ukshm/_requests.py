"""Requests and their answers: what of them never waits.

A request is a message whose sender waits for one answer with its id: a reply or a failure. What
else arrives meanwhile is kept for `receive`.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from ._errors import RemoteError, UkshmError, invalid_argument
from ._format import TYPE_FAILURE, TYPE_MAX, TYPE_REPLY, TYPE_REQUEST, U32, encode_failure
from ._forwarder import Forwarder
from ._reader import M
from ._writer import Buffer

#: Small messages that arrive while an answer is awaited are copied out of the ring up to this;
#: those beyond stay there, and hold up the answer: a peer cannot make us take any amount.
_COPIED_BYTES_MAX: Final = 8 * 1024 * 1024


def reply_kind(type: int) -> int:
    """The record's type of a reply. Raises INVALID_ARGUMENT."""
    if not 0 <= type <= TYPE_MAX:
        raise invalid_argument('type', type, '0 to 16383')
    return type + TYPE_REPLY


class Requests(Forwarder[M]):
    """A channel that asks and answers."""

    _last_id = 0
    #: Failures that found no space: id and payload.
    _refusals: deque[tuple[int, bytes]] | None = None

    def _put(self, data: Buffer, kind: int, id: int, publish: bool) -> bool:
        raise NotImplementedError

    def _try_ask(self, data: Buffer, type: int) -> int:
        """Sends a request; its id, or 0 when there is no space."""
        if not 0 <= type <= TYPE_MAX:
            raise invalid_argument('type', type, '0 to 16383')
        asked = self._reader.asked
        id = self._last_id % U32 + 1
        while id in asked:
            id = id % U32 + 1
        # Before it is sent: its answer may come at once.
        asked[id] = True
        sent = False
        try:
            sent = self._put(data, type + TYPE_REQUEST, id, True)
        finally:
            if not sent:
                asked.pop(id, None)
        self._last_id = id
        return id if sent else 0

    def _answer_of(self, id: int) -> M | None:
        """The reply if it is here, or None. Raises `RemoteError`, and why none can come."""
        answers = self._reader.answers
        if id not in answers:
            self._fetch_backlog(id)
        if id not in answers and self._ending():
            # As in `_last`: what was published before the end still counts.
            self._fetch_backlog(id)
            if id not in answers:
                raise self._why_ended()
        answer = answers.pop(id, None)
        if isinstance(answer, RemoteError):
            raise answer
        return answer

    def _fetch_backlog(self, id: int) -> None:
        """Takes messages in until the answer has come or none is left."""
        kept = sum(message.length_bytes for message in self._backlog if message._lease < 0)
        while kept < _COPIED_BYTES_MAX and id not in self._reader.answers:
            message = self._fetch()
            if message is None:
                break
            message._detach()
            if message._lease < 0:
                kept += message.length_bytes + 64
            self._backlog.append(message)
        if self._reader.owes_ring:
            self._reader.owes_ring = False
            self._wire.ring()

    def _give_up(self, id: int) -> None:
        """Nobody waits for the answer any more: it is dropped when it comes."""
        if id in self._reader.asked:
            self._reader.asked[id] = False
        answer = self._reader.answers.pop(id, None)
        if answer is not None and not isinstance(answer, RemoteError):
            answer.release()

    def _refuse(self, request: int, error: BaseException) -> None:
        """Answers a request with a failure: now, or when there is space."""
        if self._dead is not None or self._ending():
            return
        if self._refusals is None:
            self._refusals = deque()
        self._refusals.append((request, encode_failure(error)[: self._inline_max]))
        self._send_refusals()

    def _send_refusals(self) -> None:
        refusals = self._refusals
        while refusals and self._dead is None and not self._ending():
            id, payload = refusals[0]
            try:
                if not self._put(payload, TYPE_FAILURE, id, True):
                    return
            except UkshmError:  # a small loan is open; or the channel ends, and says so elsewhere
                return
            refusals.popleft()
