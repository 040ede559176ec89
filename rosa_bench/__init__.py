"""Config-driven experiments that reproduce the benchmarks of the ROSA, DyLoRA, MEFT and LoRA papers."""
