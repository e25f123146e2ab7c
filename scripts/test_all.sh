#!/bin/sh
# Test the wheel, not the checkout, under Python 3.10 to 3.13, those that are here.
#
#     sh scripts/test_all.sh [PATHS]      by default the whole suite
#     OLDEST=1 sh scripts/test_all.sh     with the oldest versions that pyproject.toml allows (uv)
#
# Pythons are found as python3.X, or where PYTHONS says: PYTHONS="/a/python3.10 /b/python3.13". The
# public registry's torch is, on Linux, the CUDA build of several GB: TORCH=/path/to/a.whl, or pip's
# own settings, give another. A Python that is not here is named and does not count as passed.
set -u
cd "$(dirname "$0")/.."
paths=${*:-tests}
work=$PWD/build/matrix
rm -rf "$work/wheel" && mkdir -p "$work/wheel"
failed=""

pythons=${PYTHONS:-}
if [ -z "$pythons" ]; then
    for minor in 10 11 12 13; do
        if command -v "python3.$minor" >/dev/null && "python3.$minor" -c '' 2>/dev/null; then
            pythons="$pythons python3.$minor"
        else
            echo "python3.$minor: not here"
        fi
    done
fi
[ -n "$pythons" ] || { echo "no Python 3.10 to 3.13 was found" >&2; exit 1; }

build() {
    "$1" -m venv "$work/build" && "$work/build/bin/python" -m pip wheel --quiet --no-deps \
        --wheel-dir "$work/wheel" . && rm -rf "$work/build"
}

install() {  # into the environment $1
    if [ -n "${OLDEST:-}" ]; then
        "$1/bin/python" -m pip install --quiet uv ${TORCH:-} &&
            "$1/bin/uv" pip install --quiet --python "$1/bin/python" --resolution lowest-direct \
                "$wheel" pytest hypothesis mpmath ${TORCH:-}
    else
        "$1/bin/python" -m pip install --quiet ${TORCH:-} &&
            "$1/bin/python" -m pip install --quiet "$wheel" pytest hypothesis mpmath ${TORCH:-}
    fi
}

check() {  # the environment $1, from a folder without the checkout
    rm -rf "$work/run" && mkdir "$work/run" && cp -r tests pyproject.toml "$work/run" &&
        cd "$work/run" || return 1
    "$1/bin/rlbilinear" --help >/dev/null && "$1/bin/python" -m pytest -q $paths
    status=$?
    cd "$OLDPWD" && return $status
}

for python in $pythons; do
    version=$("$python" -c 'import platform; print(platform.python_version())') || exit 1
    wheel=$(ls "$work"/wheel/*.whl 2>/dev/null) || { build "$python" || exit 1; }
    wheel=$(ls "$work"/wheel/*.whl)
    place="$work/$version${OLDEST:+-oldest}"
    echo "== Python $version"
    rm -rf "$place"
    "$python" -m venv "$place" && install "$place" && check "$place" || failed="$failed $version"
done
if [ -n "$failed" ]; then
    echo "failed under Python$failed" >&2
    exit 1
fi
echo "passed under every Python above"
