#!/usr/bin/env bash
# From a fresh clone to a trained model: makes .venv-quickstart, installs r1jax, runs R1-Zero on the tiny base.
#
#   tools/quickstart.sh [--workdir DIR] [--set key.path=value ...]
#
# The arguments go to `r1jax run configs/tiny/r1_zero.yaml`; the work directory (default: runs/r1_zero) is the last line.
# Running it again goes on where it stopped. Exit code 75: stopped by Ctrl-C, with the state saved.
set -euo pipefail
here="$PWD"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/environment.sh

began=$SECONDS
make_environment .venv-quickstart "-e ." || exit $?
echo "install: $((SECONDS - began)) s"

r1jax="$PWD/.venv-quickstart/bin/r1jax"
recipe="$PWD/configs/tiny/r1_zero.yaml"
cd "$here"
# exec: signals reach the run itself, and its exit code is this script's.
exec "$r1jax" run "$recipe" "$@"
