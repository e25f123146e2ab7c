#!/bin/sh
# Type-check under the installed names: mypy finds packages by their folders, so it gets a tree of
# links in which agents, envs, ... lie where they are installed, inside rlbilinear.
set -eu
cd "$(dirname "$0")/.."
python=$PWD/${1:-.venv/bin/python}
tree=build/types
rm -rf $tree
mkdir -p $tree/rlbilinear
ln -s "$PWD"/rlbilinear/* $tree/rlbilinear/
for package in envs agents language probes testing studies benchmarks commands; do
    ln -s "$PWD/$package" $tree/rlbilinear/
done
ln -s "$PWD/scripts" $tree/
cd $tree
"$python" -m mypy --config-file "$OLDPWD/pyproject.toml" --cache-dir "$OLDPWD/.mypy_cache" -p rlbilinear -p scripts
