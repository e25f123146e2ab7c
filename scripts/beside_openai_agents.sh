#!/bin/sh
# Install the wheel beside the package openai-agents, which installs a module `agents`: before it and
# after it, each in a fresh environment, outside the checkout. Both must work either way.
#
#     sh scripts/beside_openai_agents.sh [PYTHON]
#
# TORCH=/path/to/a.whl takes another torch than the registry's.
set -eu
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/first"
"$python" -m venv "$work/second"
"$work/first/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$work" .
for place in first second; do
    pip="$work/$place/bin/python -m pip install --quiet"
    [ -z "${TORCH:-}" ] || $pip "$TORCH"
    if [ $place = first ]; then
        $pip openai-agents
        $pip "$work"/rlbilinear-*.whl
    else
        $pip "$work"/rlbilinear-*.whl
        $pip openai-agents
    fi
    cd "$work"
    "$work/$place/bin/python" - <<END
import agents
import rlbilinear
from importlib.metadata import files
from rlbilinear.agents import load

assert agents.Agent.__module__.startswith("agents."), agents.Agent
assert "rlbilinear" not in agents.__file__, agents.__file__
assert type(load("maze-bimpala-compact")).__module__ == "rlbilinear.agents.agent"
tops = {file.parts[0] for file in files("rlbilinear")} - {".."}
assert tops == {"rlbilinear"} | {top for top in tops if top.endswith(".dist-info")}, tops
print("$place: both work; openai-agents was installed",
      "before" if "$place" == "first" else "after", "rlbilinear")
END
    "$work/$place/bin/rlbilinear" agents | head -3
    cd "$OLDPWD"
done
