#!/usr/bin/env bash
# The tests, in an environment of their own (.venv-test).
#
#   tools/test.sh                 the fast layer, then, if it passed, the slow one
#   tools/test.sh fast|slow|long  one layer; long: proofs of many minutes, never run otherwise
#
# Arguments after the layer go to pytest. Each layer ends with pytest's summary: what was skipped and why, the counts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/environment.sh

layers="fast slow"
case "${1:-}" in
  fast | slow | long) layers="$1"; shift ;;
  -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac

# torch first and by itself, with plain pip: the tests compare with it on the CPU.
make_environment .venv-test "torch==2.13.0" "-e .[test]" || exit $?

for layer in $layers; do
  order=""
  case "$layer" in
    fast) marks="not slow and not long" ;;
    slow) marks="slow and not long"; order="--no-loadscope-reorder" ;;  # as tests/conftest.py has them: the longest first
    long) marks="long" ;;
  esac
  echo "== $layer layer"
  # Whole files go to a worker, since the tests of a file share what they compile. Two workers, whatever the machine:
  # each test has eight virtual devices already.
  status=0
  .venv-test/bin/python -m pytest -q -rs -n 2 --dist loadfile $order -m "$marks" "$@" || status=$?
  # 5: no test of that layer (or under that -k)
  [ "$status" -eq 0 ] || [ "$status" -eq 5 ] || exit "$status"
done
