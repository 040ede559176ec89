"""One process at a time in the folder of a run, on one machine or on several; and nobody is kept out by the dead.

The kernel's lock (`flock`) on a file beside the folder tells the living from the dead on one machine, and between
machines where the file system passes it on. Where it does not, or has none, a second file counts: it names the holder,
who touches it every few seconds, and is believed to be dead when it has not done so for two minutes. Ages are
differences of times that the file system gave, so no machine's clock matters.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from rosa_bench.errors import UsageError
from rosa_bench.system.files import write_json

BEAT_S = 10.0  # between two signs of life
SILENT_S = 120.0  # after which a holder on another machine counts as dead
SETTLE_S = 0.5  # for the holder's file to be seen by another machine that claims it in the same moment
PATIENCE_S = 2.0  # with those who only look whether a folder is held
ORPHANS_S = 15.0  # with processes that a dead holder has started and that end after it
NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}
Holder = dict[str, Any]


def lock_path(folder: Path) -> Path:
    """The file that a process locks while it writes to the folder of a run; beside it, so that it can be deleted."""
    return folder.with_name(f".{folder.name}.lock")


class HeldError(Exception):
    """Another process holds the folder; the text names it."""


class LostError(Exception):
    """Another machine has taken the folder over, as this process gave no sign of life."""


class Lock:
    """Holds the folder of a run from `acquire` to `release`."""

    def __init__(self, folder: Path) -> None:
        self.path = lock_path(folder)
        self.holder_path = _holder_path(folder)
        self.lost = False
        self._token = uuid.uuid4().hex
        self._descriptor: int | None = None
        self._over = threading.Event()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            HeldError: if a living process has it.
            OSError: if its file cannot be written.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            native = self._flock(descriptor)
            before = read_holder(self.holder_path)
            if before is not None and lives(before, self.path, self.holder_path, native):
                raise HeldError(_named(before))
            own = {"host": platform.node(), "machine": machine(), "pid": os.getpid(), "token": self._token}
            write_json(self.holder_path, own)
            if not native or (before is not None and before.get("machine") != machine()):
                time.sleep(SETTLE_S)
                if (now := read_holder(self.holder_path)) is not None and now.get("token") != self._token:
                    raise HeldError(_named(now))
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        threading.Thread(target=self._beat, daemon=True).start()

    def _flock(self, descriptor: int) -> bool:
        """Whether the kernel's lock was had; False where there is none. Raises HeldError if another process has it."""
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                holder = read_holder(self.holder_path)
                patience = ORPHANS_S if holder is not None and _gone(holder) else PATIENCE_S
                if time.monotonic() - began > patience:
                    raise HeldError(_named(holder)) from None
                time.sleep(0.05)
            except OSError as error:
                if error.errno in NO_FLOCK:
                    return False
                raise

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with contextlib.suppress(OSError):
                holder = read_holder(self.holder_path)
                if holder is not None and holder.get("token") != self._token:
                    self.lost = True
                    return
                os.utime(self.holder_path)

    def check(self) -> None:
        """Raise LostError if the folder is another machine's by now."""
        if self.lost:
            raise LostError(f"{self.path.name}: taken over by another machine, as this process gave no sign of life")

    def release(self) -> None:
        """Give the lock back."""
        self._over.set()
        if self._descriptor is None:
            return
        if not self.lost:
            with contextlib.suppress(OSError):
                self.holder_path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Lock]:
    """Hold the folder of a run, made if it is missing.

    Raises:
        UsageError: if a living process holds it, or it cannot be written.
    """
    lock = Lock(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except HeldError as error:
        raise UsageError(
            f"{folder} is being written by another process ({error}); wait for it, or choose another seed"
        ) from None
    except OSError as error:
        raise UsageError(f"output_dir: {folder} cannot be written ({error.strerror or error})") from error
    try:
        yield lock
    finally:
        lock.release()


def held(folder: Path) -> bool:
    """Whether a living process holds the folder of a run. Takes nothing."""
    path = lock_path(folder)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        native = True
    except BlockingIOError:
        return True
    except OSError:
        native = False
    finally:
        os.close(descriptor)
    holder = read_holder(_holder_path(folder))
    return holder is not None and lives(holder, path, _holder_path(folder), native)


def read_holder(path: Path) -> Holder | None:
    """What the holder says of itself; None if there is none, or only half of it."""
    try:
        holder = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return holder if isinstance(holder, dict) else None


def lives(holder: Holder, lock: Path, sign: Path, native: bool) -> bool:
    """Whether the holder that is named in the file `sign` lives, given whether the kernel's lock was free."""
    if holder.get("machine") == machine() and (native or _gone(holder)):
        return False
    try:
        return abs(_now(lock) - sign.stat().st_mtime) < SILENT_S
    except OSError:
        return False


def _now(lock: Path) -> float:
    """The time of the file system that holds a file; this machine's own where the file cannot be touched."""
    try:
        os.utime(lock)
        return lock.stat().st_mtime
    except OSError:
        return time.time()


def _gone(holder: Holder) -> bool:
    """Whether the holder was a process of this machine that there is no more."""
    if holder.get("machine") != machine():
        return False
    try:
        os.kill(int(holder.get("pid", 0)), 0)
    except (ProcessLookupError, ValueError, TypeError):
        return True
    except OSError:
        return False
    return False


def _named(holder: Holder | None) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}" if holder else "it has not said which"


def _holder_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.holder")


@lru_cache(maxsize=1)
def machine() -> str:
    """What tells this machine, since its last start, from every other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{platform.node()} {uuid.getnode():x}"
