"""Ctrl-C and SIGTERM: a graceful shutdown if it completes in time, a forced exit otherwise."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rosa_bench.errors import EXIT_INTERRUPTED, not_installed
from rosa_bench.system.console import complain, in_utf8, plain_os, warn

ORDERLY_S = 6  # to finish the current training step and write its checkpoint
SAME_S = 2.0  # after the first signal, within which SIGTERM is ignored
LIMIT_S = 9.0  # until the process is ended, even inside a long library call
INTERRUPTED = "rosa_bench: interrupted; rerun the same command to resume from the last checkpoint"
WATCHED = (signal.SIGTERM, signal.SIGINT)


# A signal to a data loader worker must not stop the run.
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


@contextlib.contextmanager
def as_keyboard_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGINT in the block, also in a job that a shell started in the background.

    The shell makes such a job ignore SIGINT; here it is handled. An exception that a library raises while it cleans up
    after the interruption is also converted to KeyboardInterrupt.
    """
    try:
        before = {number: signal.signal(number, signal.default_int_handler) for number in WATCHED}
    except ValueError:  # not in the main thread: the caller handles signals
        yield
        return
    try:
        yield
    except Exception as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupted(error: BaseException | None) -> bool:
    """Whether an error is a KeyboardInterrupt or was raised while handling one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def command(main: Callable[[], int]) -> int:
    """Run `main` of `python -m rosa_bench.NAME` and return its exit code.

    Prints one line if it is interrupted, if a file cannot be read or written, or if a Python package is missing.
    """
    in_utf8()
    try:
        with as_keyboard_interrupt():
            return main()
    except KeyboardInterrupt:
        warn("rosa_bench: interrupted")
        return EXIT_INTERRUPTED
    except OSError as error:
        return complain(plain_os(error))
    except ModuleNotFoundError as error:
        return complain(not_installed(error))


class Signals:
    """Handle SIGTERM and SIGINT from `begin` to `end`.

    `request_stop` is called in the main thread and returns whether the work will stop by itself; if not, or not within
    `ORDERLY_S`, KeyboardInterrupt is raised. Python runs handlers only between its own instructions, so under a command
    a thread also watches: if a library call does not return within `LIMIT_S`, it calls `last_words` and ends the
    process, which would be wrong for a notebook or another program. An alarm of the caller continues after `end`.

    SIGTERM within `SAME_S` of the first signal is ignored: a cluster signals every process of a job, and the parents of
    a run pass the signal on.
    """

    def __init__(self, request_stop: Callable[[], bool], last_words: Callable[[], None]) -> None:
        self._request_stop, self._last_words = request_stop, last_words
        self._over = threading.Event()
        self._before: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._wakeup = -1  # the caller's file descriptor for signals
        self._alarm = (0.0, 0.0, 0.0)  # the caller's timer: when it was set aside, seconds left, interval
        self._first: float | None = None

    def begin(self) -> None:
        """Install the handlers. Does nothing outside the main thread, where the caller handles signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in WATCHED:
            self._before[number] = signal.signal(number, self._received)
        if self._before[signal.SIGTERM] is not signal.default_int_handler:  # not inside `as_keyboard_interrupt`
            return
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True).start()

    def orderly_end_over(self) -> None:
        """Cancel the time limit of the stop request: the work has stopped."""
        if signal.SIGALRM in self._before:
            signal.alarm(0)

    def ignore(self) -> None:
        """Ignore further signals, so that the final writes, which are short, complete."""
        self.orderly_end_over()
        for number in WATCHED if self._before else ():
            signal.signal(number, signal.SIG_IGN)

    def end(self) -> None:
        """Restore the previous handlers and the caller's alarm."""
        self._over.set()
        self.orderly_end_over()
        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._pipe[1])  # which ends the thread
            self._pipe = None
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        since, left, interval = self._alarm
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(1e-6, left - (time.monotonic() - since)), interval)

    def _received(self, number: int, frame: Any) -> None:
        if number == signal.SIGTERM and self._first is not None and time.monotonic() - self._first < SAME_S:
            return
        self._first = self._first or time.monotonic()
        if not self._request_stop():
            raise KeyboardInterrupt
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, signal.default_int_handler)
        self._alarm = (time.monotonic(), *signal.setitimer(signal.ITIMER_REAL, ORDERLY_S))

    def _watch(self, source: int) -> None:
        with contextlib.suppress(OSError):
            while received := os.read(source, 1):
                if received[0] in WATCHED and not self._over.wait(LIMIT_S):
                    with contextlib.suppress(Exception):
                        self._last_words()
                    os._exit(EXIT_INTERRUPTED)
        os.close(source)
