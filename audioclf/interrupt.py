"""Ctrl-C and SIGTERM that wait for a good moment."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from .distributed import largest, num_ranks

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While entered, Ctrl-C raises `KeyboardInterrupt` and SIGTERM `SystemExit(143)`: at once, or after `deferred`.

    A second signal raises at once wherever it comes. While `together` is entered, one that came to any process of a job
    raises in all of them, at the next `check` or end of `deferred`. A signal that is ignored (as in a shell's
    background job) stays so. Does nothing outside the main thread, where Python handles no signals. Earlier handlers
    come back at the end.

    Attributes:
        requested: The signal that came, if any.
        insisted: Whether a second one came.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.insisted = False
        self._deferred = self._together = False
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: it is not Python's to change
                    self._earlier[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, _type: Any, error: BaseException | None, _traceback: Any) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        # Python makes another exception of it in some places: while a class is created, during an import.
        if self.requested is not None and isinstance(error, Exception) and _came_of_a_signal(error):
            raise _exception(self.requested) from error

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """What is inside is finished first; it may look at `requested` to be quick about it."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Inside, no process of a job stops before the others do."""
        self._together = num_ranks() > 1
        try:
            yield
        finally:
            self._together = False

    def share(self) -> bool:
        """Whether a signal has come, to any process of the job. For all of them."""
        if self._together:
            self.requested = largest([self.requested or 0])[0] or None
        return self.requested is not None

    def check(self) -> None:
        """Raises when a signal has come, to any process of the job. For all of them."""
        if self.share():
            raise _exception(self.requested)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.insisted = self.requested is not None
        self.requested = number
        if self.insisted or not (self._deferred or self._together):
            raise _exception(number)


def _exception(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def _came_of_a_signal(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
        error = error.__cause__ or error.__context__
    return error is not None
