"""Files from a model hub: pinned to a commit, verified against their hashes, downloaded once and then read from cache.

`huggingface_hub` downloads the files and manages the cache (HF_HOME). This module selects the files a run needs,
retries transient failures, works offline if the cache is complete, and reports each failure in one line.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import hashlib
import http.client
import io
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from rosa_bench.errors import UsageError
from rosa_bench.system import progress
from rosa_bench.system.console import counted, tell, warn_once
from rosa_bench.system.distributed import is_first
from rosa_bench.system.files import cache_dir

Kind = Literal["model", "dataset"]
Choose = Callable[[Sequence[str]], list[str]]  # selects the required files from a repository's files
T = TypeVar("T")

DEFAULT = "https://huggingface.co"
COMMIT = re.compile("[0-9a-f]{40}")
HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
TIMEOUT_S = 10  # for each step of a request, unless the user's environment sets another limit
WAITS_S = (1.0, 2.0, 4.0)  # before each retry
PATIENCE_S = 15.0  # no retry starts after this time
TRANSIENT = {408, 425, 429, *range(500, 600)}
WEIGHTS = (r"model(-\d+-of-\d+)?\.safetensors", r"pytorch_model(-\d+-of-\d+)?\.bin")  # in order of preference
SMALL = (".json", ".txt", ".jinja", ".model", ".spm", ".codes", ".tiktoken", ".tokenizer")  # configs and tokenizers
FOREIGN = (".h5", ".msgpack", ".ot", ".gguf", ".pt", ".pth", ".bin", ".ckpt", ".onnx", ".safetensors")
ADAPTER = "{} holds an adapter (adapter_config.json); merge it into its model first"


class HubError(UsageError):
    """A hub failure as one line. `gone`: the hub answered, but the repository, revision or file does not exist."""

    def __init__(self, text: str, gone: bool = False) -> None:
        super().__init__(text)
        self.gone = gone


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or DEFAULT).rstrip("/")


def prepare(needed: bool) -> None:
    """Set the environment of the hub client and of tokenizers before their import; offline unless `needed`."""
    _set_defaults()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not needed:
        os.environ["HF_HUB_OFFLINE"] = "1"


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Set the environment as `prepare` does for a block that may need the hub; afterwards it is as before."""
    before = set(os.environ)
    prepare(needed=True)
    added = os.environ.keys() - before
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def offline_unless(needed: bool) -> Iterator[None]:
    """Forbid requests to the hub in the block unless they are `needed`; afterwards they are allowed as before."""
    from huggingface_hub import constants

    name, before = "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE
    variable = os.environ.get(name)
    if not needed:
        constants.HF_HUB_OFFLINE = True
        os.environ[name] = "1"
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        os.environ.pop(name, None)
        if variable is not None:
            os.environ[name] = variable


def _set_defaults() -> None:
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # `transformers` would ask a service for it
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        os.environ.setdefault(name, str(TIMEOUT_S))


@cache
def commit(kind: Kind, name: str, revision: str | None = None) -> str:
    """The commit that a branch or tag points to (default: `main`).

    If the hub does not answer, this is the last cached commit.

    Raises:
        HubError: if the hub does not know the revision, or if it does not answer and no commit is cached.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    hub = _client()
    resolve = hub.HfApi(endpoint=endpoint()).resolve_revision  # also caches the commit
    try:
        _info(kind, name, revision or "main")
        return str(resolve(name, repo_type=kind, revision=revision).resolved)
    except Exception as error:
        if not _transient(error):
            raise _explained(error, kind, name, revision) from error
        failure = error
    try:
        cached = str(resolve(name, repo_type=kind, revision=revision, local_files_only=True).resolved)
    except hub.errors.RevisionResolutionError:
        raise _explained(failure, kind, name, revision) from failure
    if not hub.is_offline_mode():
        reason = _explained(failure, kind, name, revision)
        warn_once(f"rosa_bench: {reason}; using the cached commit {cached[:12]} of {name}@{revision or 'main'}")
    return cached


@cache
def model(name: str, commit: str, weights: bool = True) -> Path:
    """The folder of a model: configuration, tokenizer and, if `weights`, safetensors weights or else pickled ones.

    Raises:
        HubError: if a file is missing or damaged, or if the repository holds an adapter or weights of another library.
    """

    def choose(files: Sequence[str]) -> list[str]:
        top = [file for file in files if "/" not in file]
        if "adapter_config.json" in top:
            raise HubError(ADAPTER.format(name))
        if "config.json" not in top:
            raise HubError(f"{name} has no config.json, so it is not a transformers model")
        small = [file for file in top if file.endswith(SMALL)]
        return small + _weights(name, top) if weights else small

    return _snapshot("model", name, commit, choose)[0]


def _weights(name: str, files: Sequence[str]) -> list[str]:
    for pattern in WEIGHTS:
        if matches := [file for file in files if re.fullmatch(pattern, file)]:
            return matches
    others = [file for file in files if file.endswith(FOREIGN)]
    raise HubError(
        f"{name} has neither model.safetensors nor pytorch_model.bin (it has {', '.join(others[:4]) or 'no weights'}); "
        "convert it with save_pretrained and use model.path=FOLDER"
    )


def unreachable() -> str | None:
    """Why the hub does not answer now, in one line; None if it does."""
    hub = _client()
    if hub.is_offline_mode():
        return "HF_HUB_OFFLINE forbids downloads"
    try:
        _retried(lambda: _content(endpoint()))
    except Exception as error:  # noqa: BLE001 - any other error is an answer
        if _transient(error):
            status = _status(error)
            answer = f"answered {_phrase(status)}" if status else f"cannot be reached ({_message(error)})"
            return f"{endpoint()} {answer}"
    return None


@cache
def dataset(name: str, commit: str, pattern: str) -> list[Path]:
    """The files of a dataset whose names match a pattern, sorted.

    Raises:
        HubError: if no file matches, or if a file is missing or damaged.
    """

    def choose(files: Sequence[str]) -> list[str]:
        if matches := sorted(fnmatch.filter(files, pattern)):
            return matches
        raise HubError(f"{name} at revision {commit} has no file {pattern}", gone=True)

    folder, files = _snapshot("dataset", name, commit, choose)
    return [folder / file for file in files]


def cached(kind: Kind, name: str, commit: str, patterns: Sequence[str]) -> Path | None:
    """The folder of a commit in the cache; None if it lacks a file for one of the patterns."""
    hub = _client()
    try:
        folder = _cached(kind, name, commit, [])
    except hub.errors.LocalEntryNotFoundError:
        return None
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return folder if all(fnmatch.filter(files, pattern) for pattern in patterns) else None


def get(address: str) -> bytes:
    """Download the content at an address outside the hub. Raises HubError on failure."""
    try:
        return _retried(lambda: _content(address))
    except Exception as error:
        reason = f"{type(error).__name__}: {_message(error)}"
        reason = "HF_HUB_OFFLINE is set" if _is(error, "OfflineModeIsEnabled") else reason
        raise HubError(f"{address} cannot be downloaded ({reason})") from error


def _content(address: str) -> bytes:
    task = progress.Task(address.rpartition("/")[2], 0, unit="B")
    with _client().utils.get_session().stream("GET", address) as response:
        if response.is_error:
            response.read()  # for the error's message
        response.raise_for_status()
        task.total = int(response.headers.get("content-length", 0))
        content = bytearray()
        for part in response.iter_bytes():
            content += part
            task.advance(response.num_bytes_downloaded - task.done)
    return bytes(content)


def _snapshot(kind: Kind, name: str, commit: str, choose: Choose) -> tuple[Path, list[str]]:
    """The folder of a commit and the selected files in it, each verified.

    The hub is contacted only for files that the cache lacks. If it does not answer, a cache written by an older client,
    which does not record the files of the commit, is used as is.
    """
    hub = _client()
    try:
        if (names := _recorded(kind, name, commit)) is not None:
            return _verified(name, _cached(kind, name, commit, files := choose(names)), files)
    except hub.errors.LocalEntryNotFoundError:
        pass
    except hub.errors.HFValidationError as error:
        raise _explained(error, kind, name, commit) from error
    try:
        sizes = {file.rfilename: file.size or 0 for file in _info(kind, name, commit).siblings}
        return _verified(name, _download(kind, name, commit, files := choose(list(sizes)), sizes), files)
    except HubError:
        raise
    except Exception as error:
        if not _transient(error):
            raise _explained(error, kind, name, commit) from error
        failure = error
    if _recorded(kind, name, commit) is not None:
        raise _explained(failure, kind, name, commit) from failure
    try:
        folder = _cached(kind, name, commit, [])
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        files = choose(names)
    except (HubError, hub.errors.LocalEntryNotFoundError):
        raise _explained(failure, kind, name, commit) from failure
    return _verified(name, folder, files)


def _recorded(kind: Kind, name: str, commit: str) -> list[str] | None:
    """All files of a commit as the cache records them; None for a cache without a record."""
    hub = _client()
    try:
        return [file.path for file in hub.get_cached_repo_tree(name, repo_type=kind, revision=commit)]
    except hub.errors.CachedRepoTreeNotFoundError:
        return None


def _client() -> Any:
    """The `huggingface_hub` package, with a time limit on each request."""
    _set_defaults()
    import huggingface_hub
    import huggingface_hub.errors
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    hooks = get_session().event_hooks["request"]
    if _limit not in hooks:
        hooks.append(_limit)
    return huggingface_hub


def _limit(request: Any) -> None:
    """Limit the time of each step of a request; otherwise a listing waits forever for a silent hub."""
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT

    limits = request.extensions.get("timeout", {})
    steps = ("connect", "read", "write", "pool")
    request.extensions["timeout"] = {step: limits.get(step) or HF_HUB_DOWNLOAD_TIMEOUT for step in steps}


def _cached(kind: Kind, name: str, commit: str, files: Sequence[str]) -> Path:
    """The folder of a commit in the cache. Raises LocalEntryNotFoundError if it lacks one of the files."""
    hub = _client()
    options = {"repo_type": kind, "revision": commit, "local_files_only": True, "allow_patterns": []}
    folder = Path(hub.snapshot_download(name, **options))
    if missing := [file for file in files if not (folder / file).exists()]:
        raise hub.errors.LocalEntryNotFoundError(f"missing: {', '.join(missing)}")
    return folder


def _info(kind: Kind, name: str, revision: str) -> Any:
    hub = _client()
    if hub.is_offline_mode():
        raise hub.errors.OfflineModeIsEnabled
    api, seconds = hub.HfApi(endpoint=endpoint()), hub.constants.HF_HUB_ETAG_TIMEOUT
    options = {"repo_type": kind, "revision": revision, "timeout": seconds, "files_metadata": True}
    return _retried(lambda: api.repo_info(name, **options))


def _download(kind: Kind, name: str, commit: str, files: Sequence[str], sizes: Mapping[str, int]) -> Path:
    size = sum(sizes[file] for file in files)
    what = f"{name}@{commit[:12]} ({counted(len(files), 'file')}, {size / 1e6:,.1f} MB)"
    options: dict[str, Any] = {"repo_type": kind, "revision": commit, "endpoint": endpoint()}
    options["allow_patterns"] = [glob.escape(file) for file in files]
    with _progress(what) as bar:
        return Path(_retried(lambda: _client().snapshot_download(name, tqdm_class=bar, **options)))


def _retried(request: Callable[[], T]) -> T:
    start = time.monotonic()
    for wait in WAITS_S:
        try:
            return request()
        except Exception as error:
            offline = _is(error, "OfflineModeIsEnabled")
            if offline or not _transient(error) or time.monotonic() - start > PATIENCE_S:
                raise
        time.sleep(wait)
    return request()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is(error: BaseException, *names: str) -> bool:
    """Whether the class of an error or a cause has one of these names; HTTP libraries vary by version of the client."""
    return any(cls.__name__ in names for cause in _chain(error) for cls in type(cause).__mro__)


def _status(error: BaseException) -> int | None:
    """The HTTP status code of an error or its causes."""
    statuses = (getattr(getattr(cause, "response", None), "status_code", None) for cause in _chain(error))
    return next((status for status in statuses if status is not None), None)


def _transient(error: BaseException) -> bool:
    """Whether the hub was unreachable or failed, so that a retry may succeed."""
    status = _status(error)
    if status is not None:
        return status in TRANSIENT
    return _is(error, "TransportError", "OfflineModeIsEnabled") or "Consistency check failed" in str(error)


def _message(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]


def _explained(error: BaseException, kind: Kind, name: str, revision: str | None) -> HubError:
    """Explain a failed request in one line."""
    page = f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{name}"
    if _is(error, "GatedRepoError"):
        reason = "set HF_TOKEN to a token of an account with access"
        if _client().get_token() is not None:
            reason = "the account of HF_TOKEN has no access"
        return HubError(f"{name} is gated ({_status(error)}): {reason}; request access at {page}")
    if _is(error, "RepositoryNotFoundError"):
        text = f"{page} does not exist or is private ({_status(error)})"
        return HubError(f"{text}; check the name, or set HF_TOKEN to a token with access", gone=True)
    if _is(error, "RevisionNotFoundError"):
        return HubError(f"{page} has no revision {revision}", gone=True)
    if _is(error, "RemoteEntryNotFoundError"):
        return HubError(f"{page} lacks a file at revision {revision} ({_message(error)})", gone=True)
    status = _status(error)
    if status in (401, 403):
        return HubError(f"{endpoint()} refuses access to {name} ({_phrase(status)}); check HF_TOKEN")
    if status is not None:
        return HubError(f"{endpoint()} answered {_phrase(status)} to a request for {name}{_hint(error)}")
    return HubError(_without_status(error, name, revision))


def _without_status(error: BaseException, name: str, revision: str | None) -> str:
    constants = _client().constants
    if _is(error, "OfflineModeIsEnabled"):
        target = f"{name} at revision {revision or 'main'}"
        return f"{target} is not complete in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids downloads"
    if _is(error, "TimeoutException"):
        return f"{endpoint()} did not answer a request for {name} within {constants.HF_HUB_ETAG_TIMEOUT} s"
    if _is(error, "TransportError"):
        return f"{endpoint()} cannot be reached ({_message(error)})"
    if "Consistency check failed" in str(error):
        return f"{endpoint()} sent an incomplete file of {name} ({_message(error)})"
    if _is(error, "HFValidationError"):
        return f"{name!r} is not a valid repository name ({_message(error)})"
    if reason := next((e.strerror for e in _chain(error) if isinstance(e, OSError) and e.errno is not None), None):
        return f"the cache {constants.HF_HUB_CACHE} cannot be written ({reason}); set HF_HOME to a writable folder"
    return f"{endpoint()} does not respond like a hub ({type(error).__name__}: {_message(error)}){_hint(error)}"


def _hint(error: BaseException) -> str:
    about_xet = any("xet" in str(cause).lower() for cause in _chain(error))
    return "; HF_HUB_DISABLE_XET=1 downloads without xet" if about_xet else ""


def _phrase(status: int) -> str:
    return f"{status} {http.client.responses.get(status, '')}".rstrip()


def _verified(name: str, folder: Path, files: list[str]) -> tuple[Path, list[str]]:
    """Check that each file's content matches the hash that names it in the cache, and return the folder and files.

    A file is hashed again only if its size or modification time changes. A cache without symbolic links has no hashes,
    so its files are not checked.

    Raises:
        HubError: if a file is missing or damaged.
    """
    for file in files:
        pointer = folder / file
        if not pointer.exists():
            raise HubError(f"{endpoint()} lists {file} of {name} but does not send it; it does not respond like a hub")
        if not pointer.is_symlink():
            continue
        blob = Path(os.path.normpath(pointer.parent / pointer.readlink()))
        if not HASH.fullmatch(blob.name):
            continue
        status = blob.stat()
        identity = f"{blob} {status.st_size} {status.st_mtime_ns}".encode("utf-8", "surrogateescape")
        mark = cache_dir() / "verified" / hashlib.sha256(identity).hexdigest()  # empty file: it was verified
        if mark.exists():
            continue
        if blob.name not in _hashes(blob, status.st_size):
            copies = " and ".join(str(path) for path in dict.fromkeys((blob, blob.resolve())))
            raise HubError(
                f"{name}: the cached {file} is damaged: its hash is not {blob.name}. "
                f"Delete {copies} and run the command again to download it"
            )
        with contextlib.suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    return folder, files


def _hashes(path: Path, size: int) -> list[str]:
    """The hashes by which a hub may name a file: sha256 for a large file, git blob id or sha1 for others."""
    if len(path.name) == 64:
        digests = [hashlib.sha256()]
    else:
        digests = [hashlib.sha1(start, usedforsecurity=False) for start in (b"blob %d\0" % size, b"")]
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            for digest in digests:
                digest.update(chunk)
    return [digest.hexdigest() for digest in digests]


@contextlib.contextmanager
def _progress(what: str) -> Iterator[type | None]:
    """Show the progress of a download. HF_HUB_DISABLE_PROGRESS_BARS hides it."""
    hub = _client()
    if not is_first() or hub.constants.HF_HUB_DISABLE_PROGRESS_BARS:
        yield None
        return
    start = time.monotonic()
    tell(f"downloading {what} from {endpoint()}")
    yield _counter(progress.Task(what.partition(" ")[0], 0, unit="B"))
    tell(f"downloaded {what} in {time.monotonic() - start:.0f} s")


def _counter(task: progress.Task) -> type:
    """A class for the client's progress bars: the one that counts bytes advances the task, others show nothing."""
    from tqdm import tqdm

    class Counter(tqdm):
        monitor_interval = 0  # no monitor thread

        def __init__(self, *args: Any, **options: Any) -> None:
            self.counts = str(options.get("desc")).startswith("Reconstructing")
            super().__init__(*args, **{**options, "file": io.StringIO()})

        def display(self, *_: Any, **__: Any) -> None:
            if self.counts and self.total:
                task.total = self.total
                task.advance(self.n - task.done)

    return Counter
