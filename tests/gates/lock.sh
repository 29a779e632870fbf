#!/usr/bin/env bash
# Pins requirements.in and everything below it, with hashes for every platform and Python from 3.11 on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[ -x build/lock/bin/uv ] || { .venv/bin/python -m venv build/lock && build/lock/bin/pip install --quiet uv; }
build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --no-annotate --no-header requirements.in --output-file requirements.txt
