"""Putting an agent on the Hugging Face Hub: its files, and a card that the Hub reads."""

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlbilinear.agents.document import CONFIG, WEIGHTS
from rlbilinear.agents.folder import new_file, new_folder, sha256
from rlbilinear.agents.hub import (
    FILES,
    README,
    HubAddress,
    endpoint,
    huggingface_hub,
    mirror_folder,
    repository_folder,
    server_errors,
)

if TYPE_CHECKING:
    from rlbilinear.agents.agent import Agent


def push(
    agent: "Agent",
    repository: str,
    *,
    revision: str = "main",
    private: bool = False,
    dtype: torch.dtype = torch.float32,
    card: str | None = None,
    license: str = "mit",
) -> HubAddress:
    """Put an agent on the Hub; see `rlbilinear.agents.Agent.push_to_hub`."""
    target = HubAddress.parse(f"hf://{repository}@{revision}")
    if not isinstance(repository, str) or target[:2] != (repository, revision):
        raise ValueError(f"expected a repository owner/name and a branch, got {target}")
    hub = huggingface_hub()
    place = mirror_folder()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "agent"
        agent.save(folder, dtype=dtype)
        text = model_card(agent, target.repository, card=card, license=license)
        (folder / README).write_text(text)
        pin = sha256(folder / WEIGHTS)
        if place is not None:
            return target._replace(revision=_into_folder(folder, place, target), sha256=pin)
        api = hub.HfApi(endpoint=endpoint())
        with server_errors(target):
            api.create_repo(target.repository, private=private, exist_ok=True)
            if revision != "main":
                api.create_branch(target.repository, branch=revision, exist_ok=True)
            done = api.upload_folder(
                repo_id=target.repository,
                folder_path=folder,
                revision=revision,
                commit_message="Agent of rlbilinear",
                allow_patterns=list(FILES),
            )
    return target._replace(revision=done.oid, sha256=pin)


def model_card(agent: "Agent", repository: str, *, card: str | None, license: str) -> str:
    """Return the text of README.md: metadata that the Hub reads, and how the agent is loaded.

    The scores recorded with the agent become the metadata's results, as for other
    reinforcement-learning models there: ``mean_reward`` on the game.

    Args:
        agent: with its record of how it was made.
        repository: owner/name.
        card: what people should know; written from the record when None.
        license: of the weights, as the Hub abbreviates them.
    """
    hub = huggingface_hub()
    config = agent.config
    game, mode = config.game, config.made.get("options", {}).get("mode", "easy")
    results = [
        hub.EvalResult(
            task_type="reinforcement-learning",
            task_name="reinforcement learning",
            dataset_type=f"procgen-{game}",
            dataset_name=f"ProcGen {game} ({mode}), held-out levels",
            metric_type="mean_reward",
            metric_name=f"mean return, {kind} actions",
            metric_value=score["return"],
        )
        for kind, score in scores(agent).items()
    ]
    data = hub.ModelCardData(
        library_name="rlbilinear",
        license=license,
        pipeline_tag="reinforcement-learning",
        tags=["reinforcement-learning", "procgen", f"procgen-{game}", config.architecture],
        model_name=repository.split("/")[1] if results else None,
        eval_results=results or None,
    )
    text = card or _described(agent, repository)
    return f"---\n{data.to_yaml()}\n---\n\n{text}\n{_usage(repository)}"


def scores(agent: "Agent") -> dict[str, dict[str, Any]]:
    """Return the recorded scores of an agent, by how it chose its actions; none once edited."""
    if agent.config.edits:
        return {}
    kept = agent.config.made.get("scores", {})
    return {kind: kept[kind] for kind in ("sampled", "greedy") if "return" in kept.get(kind, {})}


def _described(agent: "Agent", repository: str) -> str:
    config = agent.config
    count = sum(weight.numel() for weight in agent.policy.parameters())
    parts = [
        f"# {repository.split('/')[1]}\n",
        f"A ProcGen {config.game} agent, architecture {config.architecture}, {count:,} parameters. "
        "How it was made is in `config.json`.\n",
    ]
    parts += [
        f"- {kind} actions: mean return {s['return']:.2f}" for kind, s in scores(agent).items()
    ]
    parts += [f"- edited: {edit}" for edit in config.edits]
    return "\n".join(parts) + "\n"


def _usage(repository: str) -> str:
    return f"""
## How to use it

```sh
pip install "rlbilinear[hub]"
```

```python
from rlbilinear import agents

agent = agents.load("hf://{repository}")
```

The weights are safetensors, and loading runs no code from this repository.
"""


def _into_folder(written: Path, place: Path, target: HubAddress) -> str:
    """Put a saved agent into a folder that stands for the Hub; return its commit.

    A commit is named after the contents of its files, so that the same agent is the same commit.
    """
    files = sorted(written.iterdir())
    contents = "".join(f"{file.name} {sha256(file)}\n" for file in files)
    commit = hashlib.sha256(contents.encode()).hexdigest()[:40]
    repository = repository_folder(place, target.repository)
    snapshot = repository / "snapshots" / commit
    if not snapshot.is_dir():
        with new_folder(snapshot, marker=CONFIG) as folder:
            for file in files:
                (folder / file.name).write_bytes(file.read_bytes())
    named = repository / "refs" / target.revision
    named.parent.mkdir(parents=True, exist_ok=True)
    with new_file(named) as ref:
        ref.write_text(commit)
    return commit
