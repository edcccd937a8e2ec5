#!/usr/bin/env bash
# Makes .venv with the first Python that TensorFlow has a wheel for. Usage: make_venv.sh [PYTHON]
set -euo pipefail

found=""
for python in ${1:-python3.12 python3.11 python3.13 python3 python}; do
  # A name may be there and still not run (the shims of pyenv, for example).
  version=$("$python" -c 'import platform; print(platform.python_version())' 2>/dev/null) || continue
  case "$version" in
    3.11.* | 3.12.* | 3.13.*)
      echo "Making .venv with Python $version ..."
      # A half-made folder would look finished the next time.
      "$python" -m venv .venv || { rm -rf .venv; exit 1; }
      exit 0
      ;;
  esac
  found="$found $version"
done
{
  echo "No suitable Python: 3.11, 3.12 or 3.13 is needed (TensorFlow has no package for 3.14 yet)."
  echo "Found:${found:- none}. Install one, or name it: make PYTHON=/path/to/python3.12"
} >&2
exit 1
