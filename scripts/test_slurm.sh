#!/usr/bin/env bash
# make test-slurm: the tests of suites on a real Slurm, whichever one sbatch submits to.
missing() { echo "make test-slurm: $1; docs/howto/suites.md says how to start Slurm on one machine" >&2; exit 2; }
for tool in sbatch squeue scancel scontrol srun sinfo; do
    command -v "$tool" >/dev/null || missing "$tool is not on the PATH"
done
nodes=$(sinfo --noheader --states=idle,mixed,allocated --format=%D 2>&1) || missing "sinfo fails: $(head -1 <<<"$nodes")"
[ -n "$nodes" ] || missing "no node of this Slurm is up"
exec "$1" -m pytest -q -n 0 -m slurm tests/suite/test_slurm.py
