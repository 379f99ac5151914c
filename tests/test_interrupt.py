"""Ctrl-C and SIGTERM: at once or after what is deferred, a second one insists, and earlier handlers come back."""

import signal
import threading

import pytest

from audioclf.interrupt import SIGNALS, Interrupt

RAISED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}


@pytest.fixture(autouse=True)
def earlier():
    """A handler that notes its calls stands for the caller's; Python's own come back in the end."""
    calls = []

    def handler(number, frame):
        calls.append(number)

    before = [signal.signal(number, handler) for number in SIGNALS]
    yield handler, calls
    for number, original in zip(SIGNALS, before, strict=True):
        signal.signal(number, original)


def test_nothing_is_requested_without_a_signal():
    with Interrupt() as interrupt, interrupt.deferred():
        assert interrupt.requested is None
    assert interrupt.requested is None


@pytest.mark.parametrize("number", SIGNALS)
def test_at_once(earlier, number):
    with Interrupt() as interrupt, pytest.raises(RAISED[number]) as caught:
        signal.raise_signal(number)
    assert number == signal.SIGINT or caught.value.code == 143
    assert interrupt.requested == number
    assert not interrupt.insisted
    assert earlier[1] == []


@pytest.mark.parametrize("number", SIGNALS)
def test_deferred(number):
    done = []

    def work(interrupt):
        with interrupt.deferred():
            signal.raise_signal(number)
            done.append(interrupt.requested)

    with Interrupt() as interrupt, pytest.raises(RAISED[number]):
        work(interrupt)
    assert done == [number]
    assert not interrupt.insisted


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_one_interrupts_what_is_deferred(first, second):
    def work(interrupt):
        with interrupt.deferred():
            signal.raise_signal(first)
            with pytest.raises(RAISED[second]):
                signal.raise_signal(second)

    with Interrupt() as interrupt, pytest.raises((KeyboardInterrupt, SystemExit)):
        work(interrupt)
    assert interrupt.insisted


def test_after_deferred_it_is_at_once_again():
    with Interrupt() as interrupt:
        with interrupt.deferred():
            pass
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_error_inside_goes_before_the_signal():
    def work(interrupt):
        with interrupt.deferred():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("its own")

    with Interrupt() as interrupt, pytest.raises(ValueError, match="its own"):
        work(interrupt)


@pytest.mark.parametrize("number", SIGNALS)
def test_handlers_are_restored(earlier, number):
    handler, calls = earlier
    with Interrupt():
        assert signal.getsignal(number) is not handler
    assert signal.getsignal(number) is handler
    signal.raise_signal(number)
    assert calls == [number]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_handlers_are_restored_after_an_error_that_passes_through(earlier, error):
    with pytest.raises(error), Interrupt():
        raise error
    assert signal.getsignal(signal.SIGINT) is earlier[0]


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.default_int_handler])
def test_special_handlers_are_restored(handler):
    signal.signal(signal.SIGINT, handler)
    with Interrupt(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_ignored_signal_stays_ignored():
    """As a shell does for a script's background jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested is None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_is_left_alone(earlier):
    """Only the main thread may set handlers: elsewhere it must neither fail nor change anything."""
    seen = []

    def run():
        with Interrupt() as interrupt, interrupt.deferred():
            seen.append((interrupt.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(None, earlier[0])]
    assert signal.getsignal(signal.SIGINT) is earlier[0]


@pytest.mark.parametrize("number", SIGNALS)
def test_what_python_makes_of_it_is_the_interrupt_again(number):
    """Up to Python 3.11 an exception in `__set_name__`, so in many an import, comes out as a RuntimeError."""

    class Signals:
        def __set_name__(self, owner, name):
            try:
                signal.raise_signal(number)
            except BaseException as error:
                raise RuntimeError("Error calling __set_name__") from error

    with pytest.raises(RAISED[number]) as caught, Interrupt():
        type("Imported", (), {"attribute": Signals()})
    assert number == signal.SIGINT or caught.value.code == 143


def test_an_error_of_its_own_stays():
    def work(interrupt):
        with interrupt.deferred():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("another")

    with pytest.raises(ValueError, match="another"), Interrupt() as interrupt:
        work(interrupt)
