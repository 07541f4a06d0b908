# Sourced by quickstart.sh and test.sh: a Python environment of its own, made once and made again when setup.py changes.
# Caches and indexes are pip's own business: what the user's pip is set to, holds here too.

# find_python: prints a Python that r1jax runs on; 3.11 to 3.13 are tested, a newer one is the last choice.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  for candidate in python3 python; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  {
    echo "error: no Python 3.11 or newer with venv and pip was found."
    echo "remedy: install one (Debian, Ubuntu: apt install python3.12 python3.12-venv; macOS: brew install python@3.12)"
    echo "        or name one: PYTHON=/path/to/python3.12 $0"
  } >&2
  return 2
}

# make_environment FOLDER COMMAND...: makes the environment FOLDER unless it is as setup.py asks; then runs each COMMAND
# (a line of pip's arguments) in it. The stamp is written last, so that a broken-off installation is done again.
make_environment() {
  local folder="$1" python stamp
  shift
  python="$(find_python)" || return $?
  stamp="$(printf '%s\n' "$@" "$("$python" -VV)" | cat - setup.py pyproject.toml r1jax/__init__.py | "$python" -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
  if [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && "$folder/bin/python" -c '' 2>/dev/null; then
    return 0
  fi
  echo "Installing into $folder with $("$python" -V) ..."
  if [ "$("$folder/bin/python" -VV 2>/dev/null)" != "$("$python" -VV)" ]; then  # none yet, or another Python's
    "$python" -m venv --clear "$folder" || return 2
  fi
  local arguments
  for arguments in "$@"; do
    # shellcheck disable=SC2086  # the words of a line are pip's arguments
    if ! "$folder/bin/python" -m pip install --quiet --disable-pip-version-check $arguments; then
      echo "error: pip install $arguments failed; run the same command again when the cause above is gone" >&2
      return 2
    fi
  done
  echo "$stamp" >"$folder/.stamp"
}
