#!/usr/bin/env bash
# Renew requirements.lock: one file for every supported Python. The CUDA packages that torch names for Linux are left
# out, as torch pins them itself where they are wanted.
set -euo pipefail
cd "$(dirname "$0")/.."
torch=$(grep -oE '^torch==[0-9.]+' requirements.lock)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv
echo "${TORCH:-$torch}" > "$work/constraints"
"$work/venv/bin/uv" pip compile pyproject.toml --all-extras --universal --python-version 3.10 --quiet \
    --constraint "$work/constraints" --no-header --no-annotate --output-file "$work/all"
{
    echo "# Every dependency at the version that is tested, for Python 3.10 to 3.13. Renew with: make lock"
    grep -viE '^(nvidia|triton|cuda)' "$work/all"
} > requirements.lock
