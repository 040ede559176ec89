"""`python -m rosa_bench` and the console script `rosa-bench`: one run, or with -m a sweep."""

import os
import signal
import sys

INTERRUPTED = 130
WATCHED = (signal.SIGTERM, signal.SIGINT)


def run_command() -> int:
    """Run the command line, which ends cleanly on SIGTERM and Ctrl-C from the first import on."""
    for number in WATCHED:
        signal.signal(number, signal.default_int_handler)
    code = INTERRUPTED
    try:
        from rosa_bench.system.console import in_utf8

        in_utf8()
        from rosa_bench.cli import main

        code = main()
    except ModuleNotFoundError as error:
        from rosa_bench.errors import not_installed
        from rosa_bench.system.console import complain

        code = complain(not_installed(error))
    except KeyboardInterrupt:
        print("rosa_bench: interrupted before the run started", file=sys.stderr)
    for number in WATCHED:  # the exit code is known and everything is written
        signal.signal(number, signal.SIG_IGN)
    if code == INTERRUPTED:
        sys.stdout.flush()
        os._exit(code)  # a normal exit can spend seconds unloading libraries
    return code


if __name__ == "__main__":
    sys.exit(run_command())
