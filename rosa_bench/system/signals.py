"""Ctrl-C and SIGTERM: an orderly end where there is time for one, and an end in any case."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from rosa_bench.errors import EXIT_INTERRUPTED
from rosa_bench.system.console import in_utf8, warn

ORDERLY_S = 6  # for the step that is being trained to end, and its checkpoint to be written
LIMIT_S = 9.0  # for everything else, long calls of libraries included
INTERRUPTED = "rosa_bench: interrupted; the same command goes on from the last checkpoint"
WATCHED = (signal.SIGTERM, signal.SIGINT)


def _leave_to_parent() -> None:
    signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_leave_to_parent)  # a signal to a worker of the data loader is not the run's


@contextlib.contextmanager
def as_keyboard_interrupt() -> Iterator[None]:
    """SIGTERM and SIGINT raise KeyboardInterrupt inside, also in a job that a shell began in the background.

    Such a job is born deaf to SIGINT, and whoever sends it one all the same means it. What a library raises while the
    interruption goes through it, in its own tidying up, is the interruption too.
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
    """Whether an error is an interruption, or was raised while one went through."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def command(main: Callable[[], int]) -> int:
    """The exit code of `python -m rosa_bench.NAME`: of its `main`, or that of an interruption, which is one line."""
    in_utf8()
    try:
        with as_keyboard_interrupt():
            return main()
    except KeyboardInterrupt:
        warn("rosa_bench: interrupted")
        return EXIT_INTERRUPTED


class Signals:
    """Handles both signals from `begin` to `end`.

    `asked` is called in the main thread and says whether the work will end by itself; if not, or not within
    `ORDERLY_S`, KeyboardInterrupt is raised. Python runs handlers between its own instructions only, so a thread waits
    beside them: if a library has not come back within `LIMIT_S`, it calls `last_words` and ends the process.
    """

    def __init__(self, asked: Callable[[], bool], last_words: Callable[[], None]) -> None:
        self._asked, self._last_words = asked, last_words
        self._over = threading.Event()
        self._before: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None

    def begin(self) -> None:
        """Take over; outside the main thread nothing is done, as its caller handles signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in WATCHED:
            self._before[number] = signal.signal(number, self._received)
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._too_slow)
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True).start()

    def orderly_end_over(self) -> None:
        """What was asked to end has ended."""
        if self._pipe is not None:
            signal.alarm(0)

    def ignore(self) -> None:
        """Let what is being written at the end be written; it takes no time worth an interruption."""
        if self._pipe is not None:
            signal.alarm(0)
            for number in WATCHED:
                signal.signal(number, signal.SIG_IGN)

    def end(self) -> None:
        """Give back."""
        self._over.set()
        if self._pipe is None:
            return
        signal.alarm(0)
        signal.set_wakeup_fd(-1)
        os.close(self._pipe[1])  # which ends the thread
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._pipe = None

    def _received(self, number: int, frame: Any) -> None:
        if not self._asked():
            raise KeyboardInterrupt
        signal.alarm(ORDERLY_S)

    def _too_slow(self, number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    def _watch(self, source: int) -> None:
        with contextlib.suppress(OSError):
            while received := os.read(source, 1):
                if received[0] in WATCHED and not self._over.wait(LIMIT_S):
                    with contextlib.suppress(Exception):
                        self._last_words()
                    os._exit(EXIT_INTERRUPTED)
        os.close(source)
