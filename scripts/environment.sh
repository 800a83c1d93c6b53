# shellcheck shell=bash
# Sourced by demo, test and .ci/run: finds a Python and keeps one environment per purpose.
# Needs bash, Python 3.11 or later with its venv module, and a package index.

# Print the first interpreter that is new enough and can make an environment. A name may exist and not run (pyenv's shims).
find_python() {
  local name found=""
  for name in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
    if ! command -v "$name" >/dev/null || ! "$name" -c "" 2>/dev/null; then continue; fi
    found="$found $name ($("$name" -c 'import platform; print(platform.python_version())'))"
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && "$name" -c 'import ensurepip, venv' 2>/dev/null; then
      "$name" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  {
    echo "This needs Python 3.11 or later with its venv module (Debian, Ubuntu: apt-get install python3-venv)."
    echo "Found:${found:- none}. Another one: PYTHON=/path/to/python3.13 $0"
  } >&2
  return 1
}

# environment DIRECTORY PIP-ARGUMENTS…: make it, or make it again if pyproject.toml, the place or the arguments have changed.
environment() {
  local directory=$1 python stamp
  shift
  stamp="$(cksum <pyproject.toml) $PWD $*"
  if [[ -x $directory/bin/python && -f $directory/stamp && $(<"$directory/stamp") == "$stamp" ]]; then return; fi
  python=$(find_python) || return
  echo "Making $directory with $python …" >&2
  "$python" -m venv --clear "$directory" &&
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" && # knows --group
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check "$@" &&
    echo "$stamp" >"$directory/stamp" # last: an interrupted installation begins again
}
