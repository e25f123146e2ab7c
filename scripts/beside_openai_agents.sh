#!/bin/sh
# Install the wheel beside the package openai-agents, which installs a module `agents`: before it and
# after it, each in a fresh environment, outside the checkout. Both must work either way.
#
#     sh scripts/beside_openai_agents.sh [PYTHON]
#
# TORCH=torch==2.13.0 or TORCH=/path/to/a.whl chooses the torch; ORDER=before or ORDER=after does one
# of the two. WORK=FOLDER keeps the environments there, so that what was stopped can go on.
set -eu
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
work=${WORK:-$(mktemp -d)}
[ -n "${WORK:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work" && work=$(cd "$work" && pwd)
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$work" .
cd "$work"

for order in ${ORDER:-before after}; do
    place="$work/$order"
    [ -x "$place/bin/pip" ] || "$python" -m venv "$place"
    install="$place/bin/python -m pip install --quiet --no-compile"
    [ -z "${TORCH:-}" ] || $install "$TORCH"
    [ "$order" = after ] || $install openai-agents
    $install "$work"/rlbilinear-*.whl
    [ "$order" = before ] || $install openai-agents
    "$place/bin/python" - <<'CHECK'
import agents
from importlib.metadata import files
from rlbilinear.agents import load
from rlbilinear.envs import Maze, observe

assert agents.Agent.__module__.startswith("agents."), agents.Agent
assert "rlbilinear" not in agents.__file__, agents.__file__
agent = load("maze-bimpala-compact")
assert type(agent).__module__ == "rlbilinear.agents.agent"
print("logits", tuple(agent.logits(observe([Maze.from_seed(0)])).shape), "of the simulator's maze")
tops = {file.parts[0] for file in files("rlbilinear")} - {".."}
assert tops == {"rlbilinear"} | {top for top in tops if top.endswith(".dist-info")}, tops
CHECK
    "$place/bin/rlbilinear" agents | head -3
    echo "both work: openai-agents was installed $order rlbilinear"
done
