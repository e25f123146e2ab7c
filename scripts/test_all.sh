#!/bin/sh
# Test the wheel, not the checkout, under Python 3.10 to 3.13, those that are here.
#
#     sh scripts/test_all.sh [PATHS]      by default the whole suite but the checkout's own tests
#     FAST=1 sh scripts/test_all.sh       install, start every part once, and a minute of tests
#     OLDEST=1 sh scripts/test_all.sh     with the oldest versions that pyproject.toml allows (uv)
#
# Pythons are found as python3.X, or where PYTHONS says: PYTHONS="/a/python3.10 /b/python3.13". A
# Python that is not here is named and does not count as passed. The public registry's torch is, on
# Linux, the CUDA build of several GB: TORCH=torch==2.13.0 or TORCH=/path/to/a.whl chooses another.
# KEEP=1 goes on with the environments of the last run. PYTEST_ADDOPTS="-n 2" uses two cores.
set -u
cd "$(dirname "$0")/.."
whole="tests --ignore=tests/test_docs.py --ignore=tests/test_packages.py"  # those read the checkout
part="tests/commands/test_main.py tests/commands/test_running.py tests/rlbilinear/test_layers.py
    tests/rlbilinear/test_quadratic.py tests/rlbilinear/test_convolution.py
    tests/rlbilinear/test_moments.py tests/agents/test_agent.py tests/agents/test_to_zip.py
    tests/envs/test_maze.py tests/envs/test_vecenv.py tests/probes/test_page.py"
paths=$whole
extras="[dev]"
[ -z "${FAST:-}" ] || { paths=$part && extras=""; }
[ $# -eq 0 ] || paths=$*
work=$PWD/build/matrix
rm -rf "$work/wheel"
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

copy() {  # what git knows of the checkout, into the new folder $1
    rm -rf "$1" && mkdir -p "$1" && git ls-files | tar -cf - -T - | tar -xf - -C "$1"
}

build() {  # from a copy: setuptools would also pack what an older build has left in the checkout
    copy "$work/source" && "$1" -m venv "$work/build" &&
        "$work/build/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$work/wheel" \
            "$work/source" && rm -rf "$work/build" "$work/source"
}

install() {  # into the environment $1, instead of the wheel of the last run
    "$1/bin/python" -m pip uninstall --quiet --yes rlbilinear 2>/dev/null || return 1
    what="rlbilinear$extras@file://$wheel"
    if [ -n "${OLDEST:-}" ]; then
        "$1/bin/python" -m pip install --quiet uv &&
            "$1/bin/uv" pip install --quiet --python "$1/bin/python" --resolution lowest-direct \
                "$what" "pytest>=8" "hypothesis>=6.90" "mpmath>=1.3" ${TORCH:-}
    else
        "$1/bin/python" -m pip install --quiet "$what" pytest hypothesis mpmath ${TORCH:-}
    fi
}

check() {  # the environment $1, in a copy without the package's own folder, which would come first
    copy "$work/run" && rm -r "$work/run/rlbilinear" && cd "$work/run" || return 1
    "$1/bin/rlbilinear" agents && "$1/bin/rlbilinear" doctor && "$1/bin/pytest" -q $paths
    status=$?
    cd "$OLDPWD" && return $status
}

for python in $pythons; do
    version=$("$python" -c 'import platform; print(platform.python_version())') || exit 1
    wheel=$(ls "$work"/wheel/*.whl 2>/dev/null) || { build "$python" || exit 1; }
    wheel=$(ls "$work"/wheel/*.whl)
    place="$work/$version${OLDEST:+-oldest}"
    echo "== Python $version"
    [ -n "${KEEP:-}" ] || rm -rf "$place"
    [ -x "$place/bin/pip" ] || "$python" -m venv "$place"
    install "$place" && check "$place" || failed="$failed $version"
done
if [ -n "$failed" ]; then
    echo "failed under Python$failed" >&2
    exit 1
fi
echo "passed under every Python above"
