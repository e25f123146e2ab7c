#!/bin/sh
# Make build/types: a tree of links in which agents, envs, ... lie where they are installed, inside
# rlbilinear. mypy and the documentation find packages by their folders.
set -eu
cd "$(dirname "$0")/.."
tree=build/types
rm -rf $tree
mkdir -p $tree/rlbilinear
ln -s "$PWD"/rlbilinear/* $tree/rlbilinear/
for package in $(sed -n 's/^"rlbilinear\.[a-z]*" = "\([a-z]*\)"$/\1/p' pyproject.toml); do
    ln -s "$PWD/$package" $tree/rlbilinear/
done
ln -s "$PWD/scripts" $tree/
