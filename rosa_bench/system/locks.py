"""Exclusive lock on a run folder, on one machine or several; stale locks are taken over.

The kernel's lock (`flock`) on a file next to the folder detects dead holders on one machine, and across machines if the
file system supports it. Otherwise a second file decides: it names the holder, which touches it every few seconds and
counts as dead after two minutes without a heartbeat. Ages are differences of file system timestamps, so the clocks of
the machines need not agree.
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

BEAT_S = 10.0  # between two heartbeats
SILENT_S = 120.0  # time without a heartbeat after which a holder on another machine counts as dead
SETTLE_S = 0.5  # time for a machine that claims the folder at the same moment to see the holder file
PATIENCE_S = 2.0  # to wait for processes that only check whether the folder is locked
ORPHANS_S = 15.0  # to wait for child processes that outlive a dead holder
NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}
Holder = dict[str, Any]


def lock_path(folder: Path) -> Path:
    """The lock file of a run folder, next to the folder so that the folder can be deleted."""
    return folder.with_name(f".{folder.name}.lock")


class HeldError(Exception):
    """Another process holds the lock; the message names it."""


class LostError(Exception):
    """Another machine has taken over the lock because this process missed its heartbeats."""


class Lock:
    """Exclusive lock on a run folder, held from `acquire` to `release`."""

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
            HeldError: if a live process holds it.
            OSError: if the lock file cannot be written.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            native = self._flock(descriptor)
            previous = read_holder(self.holder_path)
            if previous is not None and lives(previous, self.path, self.holder_path, native):
                raise HeldError(_name(previous))
            own = {"host": platform.node(), "machine": machine(), "pid": os.getpid(), "token": self._token}
            write_json(self.holder_path, own)
            if not native or (previous is not None and previous.get("machine") != machine()):
                time.sleep(SETTLE_S)
                if (holder := read_holder(self.holder_path)) is not None and holder.get("token") != self._token:
                    raise HeldError(_name(holder))
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        threading.Thread(target=self._beat, daemon=True).start()

    def _flock(self, descriptor: int) -> bool:
        """Whether flock is supported; if so, it is acquired. Raises HeldError if another process holds it."""
        start = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                holder = read_holder(self.holder_path)
                patience = ORPHANS_S if holder is not None and _is_dead(holder) else PATIENCE_S
                if time.monotonic() - start > patience:
                    raise HeldError(_name(holder)) from None
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
        """Raise LostError if another machine has taken over the lock."""
        if self.lost:
            raise LostError(f"{self.path.name}: taken over by another machine after this process missed its heartbeats")

    def release(self) -> None:
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
    """Lock a run folder for a `with` block; create the folder if it is missing.

    Raises:
        UsageError: if a live process holds the lock, or the folder cannot be written.
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
    """Whether a live process holds the lock of a run folder. Does not acquire it."""
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
    """The contents of a holder file; None if it is missing or incomplete."""
    try:
        holder = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return holder if isinstance(holder, dict) else None


def lives(holder: Holder, lock: Path, sign: Path, native: bool) -> bool:
    """Whether the holder is alive, judging by its heartbeat file `sign`; `native`: flock works and was free."""
    if holder.get("machine") == machine() and (native or _is_dead(holder)):
        return False
    try:
        return abs(_now(lock) - sign.stat().st_mtime) < SILENT_S
    except OSError:
        return False


def _now(lock: Path) -> float:
    """The current time of the file system that holds `lock`; this machine's time if the file cannot be touched."""
    try:
        os.utime(lock)
        return lock.stat().st_mtime
    except OSError:
        return time.time()


def _is_dead(holder: Holder) -> bool:
    """Whether the holder was a process on this machine that no longer exists."""
    if holder.get("machine") != machine():
        return False
    try:
        os.kill(int(holder.get("pid", 0)), 0)
    except (ProcessLookupError, ValueError, TypeError):
        return True
    except OSError:
        return False
    return False


def _name(holder: Holder | None) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}" if holder else "unknown process"


def _holder_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.holder")


@lru_cache(maxsize=1)
def machine() -> str:
    """An identifier of this machine, unique per boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{platform.node()} {uuid.getnode():x}"
