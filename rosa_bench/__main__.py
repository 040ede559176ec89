"""`python -m rosa_bench`: one run, or with -m a sweep."""

import sys

from rosa_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
