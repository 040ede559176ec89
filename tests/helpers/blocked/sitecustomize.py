"""Blocks sockets of tests to other machines: refuses and records every address except the loopback.

Python imports a module of this name when it starts, so it also covers processes that tests start. Programs
other than Python are checked in `tests/trust/test_no_network.py`, with proxies and, if allowed, without a network.
"""

import errno
import os
import socket

OWN = {"", "localhost", "localhost.localdomain", "0.0.0.0", "::", "::1", socket.gethostname()}


def is_own(host: object) -> bool:
    """Whether a host is this machine."""
    name = host.decode(errors="replace") if isinstance(host, bytes) else host
    return name is None or (isinstance(name, str) and (name in OWN or name.startswith(("127.", "::ffff:127."))))


def note(host: object) -> None:
    """Record the host."""
    if path := os.environ.get("ROSA_BENCH_TEST_ATTEMPTS"):
        with open(path, "a", encoding="utf-8") as stream:  # noqa: PTH123 - runs at the start of every process
            stream.write(f"{os.getpid()} {host!r}\n")


def guarded(original):
    """Guard a method of sockets whose last argument is an address."""

    def call(self, *arguments):
        address = arguments[-1]
        if self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple) and not is_own(address[0]):
            note(address[0])
            raise OSError(errno.ENETUNREACH, f"tests have no network ({address[0]})")
        return original(self, *arguments)

    return call


def names(original):
    """Guard a function that resolves a name."""

    def call(host, *arguments, **options):
        if not is_own(host):
            note(host)
            raise socket.gaierror(socket.EAI_AGAIN, f"tests have no network ({host})")
        return original(host, *arguments, **options)

    return call


if not hasattr(socket, "kept_in"):
    socket.kept_in = True
    for method in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, method, guarded(getattr(socket.socket, method)))
    for function in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        setattr(socket, function, names(getattr(socket, function)))
