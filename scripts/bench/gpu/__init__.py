"""The parts of `scripts/bench_gpu.py`, which need a GPU; with --quick each also runs without one."""
