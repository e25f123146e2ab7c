#!/bin/sh
# Type-check under the installed names: mypy finds packages by their folders, so it gets a tree of
# links in which agents, envs, ... lie where they are installed, inside rlbilinear.
set -eu
cd "$(dirname "$0")/.."
python=$PWD/${1:-.venv/bin/python}
sh scripts/package_tree.sh
cd build/types
"$python" -m mypy --config-file "$OLDPWD/pyproject.toml" --cache-dir "$OLDPWD/.mypy_cache" -p rlbilinear -p scripts
