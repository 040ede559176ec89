"""The parts of `scripts/bench_gpu.py`: what a GPU alone can show. In toy size each runs without one too."""
