#!/usr/bin/env bash
# The test suite with the oldest versions that pyproject.toml allows, or with the newest that the index has, in an
# environment of its own: scripts/versions.sh oldest|newest [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
    oldest) resolution=lowest-direct ;;
    newest) resolution=highest ;;
    *) echo "usage: scripts/versions.sh oldest|newest [arguments of pytest]" >&2; exit 2 ;;
esac
venv=.venv-$1
shift
test -x "$venv/bin/python" || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade uv
into=(--python "$venv/bin/python" --quiet)
"$venv/bin/uv" pip compile pyproject.toml --extra dev --extra nlg --extra peft --extra plot --resolution "$resolution" \
    "${into[@]}" --upgrade --no-header --no-annotate --output-file "$venv/requirements.txt"
"$venv/bin/uv" pip install "${into[@]}" --requirement "$venv/requirements.txt"
"$venv/bin/uv" pip install "${into[@]}" --no-deps --editable .
"$venv/bin/uv" pip freeze "${into[@]}" --exclude-editable > "$venv/installed.txt"
echo "versions: $venv/installed.txt"
OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest -q -n auto --maxprocesses 4 -m 'not slow' "$@"
