#!/bin/sh
# Create .venv with a Python 3.10 to 3.13 and install this project into it.
set -eu
cd "$(dirname "$0")/.."

usable() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

python=""
found=""
for candidate in ${PYTHON:-} python3.11 python3.12 python3.10 python3.13 python3 python; do
    version=$("$candidate" --version 2>/dev/null) || continue
    found="$found  $candidate ($version)\n"
    if usable "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "A Python 3.10 to 3.13 is needed (on 3.13 without the simulator, which has no wheels). Found:" >&2
    printf "%b" "${found:-  none\n}" >&2
    echo "Install one (Debian: apt-get install python3 python3-venv), or name it: PYTHON=/path/to/python3.11 make ..." >&2
    exit 1
fi

games=yes
"$python" -c 'import sys; sys.exit(sys.version_info[:2] > (3, 12))' || games=""
for library in ${games:+libGL.so.1 libglib-2.0.so.0}; do
    if ! "$python" -c "import ctypes; ctypes.CDLL('$library')" 2>/dev/null; then
        echo "The ProcGen simulator needs the system library $library, which is missing." >&2
        echo "Debian and Ubuntu: apt-get install libgl1 libglib2.0-0" >&2
        exit 1
    fi
done

if ! .venv/bin/python -c '' 2>/dev/null || ! usable .venv/bin/python; then
    echo "Creating .venv with $("$python" --version)"
    rm -rf .venv
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "No virtual environment could be made (Debian: apt-get install python3-venv)." >&2
        exit 1
    fi
fi
echo "Installing (a few minutes the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable ".[dev]"
touch .venv/installed
