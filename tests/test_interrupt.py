"""Ctrl-C: the first asks, the second insists, and the handler of before comes back."""

import signal
import threading

import pytest

from audioclf.interrupt import Interrupt


@pytest.fixture(autouse=True)
def earlier():
    """A handler that notes its calls stands for the caller's; Python's own comes back in the end."""
    calls = []

    def handler(number, frame):
        calls.append(number)

    before = signal.signal(signal.SIGINT, handler)
    yield handler, calls
    signal.signal(signal.SIGINT, before)


def test_nothing_is_requested_without_a_signal():
    with Interrupt() as interrupt:
        assert not interrupt.requested
    assert not interrupt.requested


def test_first_signal_asks_second_raises(earlier):
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
    assert earlier[1] == []


def test_handler_is_restored(earlier):
    handler, calls = earlier
    with Interrupt():
        assert signal.getsignal(signal.SIGINT) is not handler
    assert signal.getsignal(signal.SIGINT) is handler
    signal.raise_signal(signal.SIGINT)
    assert calls == [signal.SIGINT]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_handler_is_restored_after_an_error_that_passes_through(earlier, error):
    with pytest.raises(error), Interrupt():
        raise error
    assert signal.getsignal(signal.SIGINT) is earlier[0]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL, signal.default_int_handler])
def test_special_handlers_are_restored(handler):
    signal.signal(signal.SIGINT, handler)
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
    assert signal.getsignal(signal.SIGINT) is handler


def test_nested():
    with Interrupt() as outer:
        with Interrupt() as inner:
            signal.raise_signal(signal.SIGINT)
        assert inner.requested
        assert not outer.requested
        signal.raise_signal(signal.SIGINT)
        assert outer.requested


def test_another_thread_is_left_alone(earlier):
    """Only the main thread may set handlers: elsewhere it must neither fail nor change anything."""
    seen = []

    def run():
        with Interrupt() as interrupt:
            seen.append((interrupt.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, earlier[0])]
    assert signal.getsignal(signal.SIGINT) is earlier[0]
