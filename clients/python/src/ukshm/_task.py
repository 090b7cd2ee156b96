"""Work on a thread of its own, for whatever a stranger might make hang."""

from __future__ import annotations

import threading
from typing import Callable, Generic, TypeVar

from ._errors import timeout_error

T = TypeVar('T')


class Task(Generic[T]):
    """Runs `work` on a daemon thread. Nobody has to wait: what comes too late is discarded.

    `on_done` is called on that thread when the result is there and was not abandoned.
    """

    def __init__(
        self,
        work: Callable[[], T],
        discard: Callable[[T], None],
        on_done: Callable[[Task[T]], None] | None = None,
    ) -> None:
        self._work = work
        self._discard = discard
        self._on_done = on_done
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._abandoned = False
        self._result: T | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name='ukshm-meeting', daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # handed to whoever waits
            self._error = error
        with self._lock:
            abandoned = self._abandoned
            self._done.set()
        if abandoned:
            self._throw_away()
        elif self._on_done is not None:
            self._on_done(self)

    def wait(self, seconds: float, what: str) -> T:
        """Blocks for the result. Raises TIMEOUT, and what `work` raised."""
        try:
            self._done.wait(seconds)
        except BaseException:
            self.abandon()
            raise
        if not self._done.is_set():
            self.abandon()
            raise timeout_error(what, seconds)
        return self.result()

    def result(self) -> T:
        """The result of a task that is done."""
        if self._error is not None:
            raise self._error
        result, self._result = self._result, None
        assert result is not None
        return result

    def abandon(self) -> None:
        """Nobody wants the result any more."""
        with self._lock:
            self._abandoned = True
            if not self._done.is_set():
                return
        self._throw_away()

    def _throw_away(self) -> None:
        result, self._result = self._result, None
        if result is not None:
            self._discard(result)
