"""Training by Stable-Baselines3's PPO, made fast: presets, runs that resume, one folder a run."""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize

from agents import training_state
from agents.checkpoint import Agent, CheckpointError, load
from agents.fast_ppo import FastPPO, Precision
from agents.folder import check_free, new_folder, provenance, write_json
from agents.policy import AgentPolicy
from agents.recorder import Recorder, Scores
from envs import EVALUATION, TRAINING, Levels, ProcgenVecEnv

OPTIONS, RESULTS, AGENT, CHECKPOINTS = "options.json", "results.json", "agent", "checkpoints"

CPU_MICRO_BATCH = 64
"""Samples that a processor takes through the network at once; what it gains:
``python scripts/benchmark.py training``."""


@dataclass(frozen=True)
class Hyperparameters:
    """PPO's. The defaults are those of the ProcGen literature (Cobbe et al. 2020, table 2)."""

    learning_rate: float = 5e-4
    num_envs: int = 64
    """copies of the game"""
    num_steps: int = 256
    """steps of each copy in a rollout"""
    minibatches: int = 8
    """an epoch is split into"""
    epochs: int = 3
    """times that a rollout is used"""
    gamma: float = 0.999
    """discount"""
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    """of policy and value"""
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    max_grad_norm: float = 0.5


PRESETS = {
    "published": Hyperparameters(),
    "bilinear": Hyperparameters(learning_rate=1e-4),
    "cpu": Hyperparameters(num_envs=32, num_steps=128, minibatches=16),
}
"""``published`` for ReLU networks; ``bilinear`` from the bilinear paper's code; ``cpu`` has the
rollouts and minibatches that two cores run fastest."""


@dataclass(frozen=True)
class TrainOptions:
    """A training run. Running the same options with ``resume`` continues it."""

    out: Path
    """folder of the run"""
    game: str = "coinrun"
    """one of ProcGen's 16"""
    architecture: str | None = None
    """of the network; bimpala when not given, or that of ``init_from``"""
    architecture_options: str = "{}"
    """its own, as JSON: {"kernel_size": 7, "gate": "silu"}"""
    init_from: str | None = None
    """agent to continue from: a name of the zoo or a folder"""
    preset: str = "published"
    """published | bilinear | cpu: hyperparameters"""
    learning_rate: float | None = None
    """instead of the preset's"""
    num_envs: int | None = None
    """instead of the preset's"""
    num_steps: int | None = None
    """instead of the preset's"""
    minibatches: int | None = None
    """instead of the preset's"""
    epochs: int | None = None
    """instead of the preset's"""
    frames: int = 25_000_000
    """to train for, in whole rollouts"""
    mode: str = "easy"
    """the game's distribution mode"""
    levels: int = 0
    """number of training levels; 0 for all that are set apart for training"""
    held_out: int = 100
    """number of levels to evaluate on, disjoint from the training levels"""
    evaluate_every: int = 500_000
    """frames between evaluations; 0 for none"""
    save_every: int = 200_000
    """frames between checkpoints"""
    seed: int = 0
    precision: Precision = "float32"
    """float32 | bfloat16: of the network's body. bfloat16 is faster where it is in hardware
    (recent GPUs, avx512_bf16), and far slower elsewhere: compare steps a second"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    progress: bool = True
    """show a bar"""

    def hyperparameters(self) -> Hyperparameters:
        """Return the preset with what was given instead.

        Raises:
            ValueError: unknown preset; the choices are listed.
        """
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; choose from {', '.join(PRESETS)}")
        names = ("learning_rate", "num_envs", "num_steps", "minibatches", "epochs")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(PRESETS[self.preset], **given)

    def architecture_arguments(self) -> dict[str, Any]:
        """Return the architecture's options as a dictionary.

        Raises:
            ValueError: they are no JSON object.
        """
        try:
            arguments = json.loads(self.architecture_options)
        except ValueError as error:
            arguments = error
        if not isinstance(arguments, dict):
            raise ValueError(
                'architecture_options are a JSON object, such as {"kernel_size": 7}; '
                f"got {self.architecture_options!r}"
            )
        return arguments


def train(options: TrainOptions, *, overwrite: bool = False, resume: bool = False) -> Agent:
    """Train an agent by PPO, from scratch or from another, and return it.

    The run's folder holds ``options.json`` (with command, hardware and versions), TensorBoard's
    events, ``checkpoints/``, ``results.json`` (held-out scores so far) and, when it has ended,
    ``agent/``. Stopped at any moment it resumes from its last checkpoint, on the same machine to
    the same weights as if it had not been stopped. What resuming does not bring back is the
    returns and lengths of episodes under way: in TensorBoard, they count from there.

    Args:
        options: the run.
        overwrite: replace a run that is in the folder.
        resume: continue the run that is in the folder; frames, device and progress may be others.

    Raises:
        FileExistsError: the folder has something, and neither ``overwrite`` nor ``resume`` is on.
        ValueError: an option is not accepted, or not the resumed run's.
        FloatingPointError: gradients that are not finite; the last checkpoint stays.
    """
    if overwrite and resume:
        raise ValueError("choose one of overwrite and resume")
    if resume:
        checkpoint = _last_checkpoint(options)
        agent = load(checkpoint / AGENT, options.device)
    else:
        checkpoint = None
        check_free(options.out, overwrite=overwrite, marker=OPTIONS)
        agent = _first_agent(options)
    model = _model(options, agent)
    history: list[Scores] = []
    if checkpoint is not None:
        training_state.restore(model, checkpoint)
        history = _read(options.out / RESULTS)["held_out"]
        history = [scores for scores in history if scores["frames"] <= model.num_timesteps]
    elif overwrite:
        shutil.rmtree(options.out, ignore_errors=True)
    lineage = {"from": agent.config.made["from"]} if "from" in agent.config.made else {}
    made = {"options": _recorded(options), **provenance(), **lineage}
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / OPTIONS, made)
    model.set_logger(configure(str(options.out / "tensorboard"), ["tensorboard"]))

    def current(history: list[Scores]) -> Agent:
        facts = {"frames": model.num_timesteps, "scores": history[-1] if history else None}
        return Agent(agent.policy, replace(agent.config, made={**made, **facts}))

    def save(history: list[Scores]) -> None:
        write_json(options.out / RESULTS, {"frames": model.num_timesteps, "held_out": history})
        _write_checkpoint(options.out, model, current(history))

    recorder = Recorder(
        agent=lambda: current([]),
        levels=EVALUATION.first(options.held_out),
        mode=options.mode,
        evaluate_every=options.evaluate_every,
        save=save,
        save_every=options.save_every,
        history=history,
        progress=options.progress,
    )
    try:
        model.learn(
            options.frames - model.num_timesteps, callback=recorder, reset_num_timesteps=False
        )
    finally:
        model.logger.close()
        training_state.environments(model)[0].close()
    trained = current(recorder.history)
    trained.save(options.out / AGENT, overwrite=True)
    return trained


def _first_agent(options: TrainOptions) -> Agent:
    """Make or load the agent to be trained.

    Raises:
        ValueError: unknown architecture or agent, or options that do not go together.
    """
    arguments = options.architecture_arguments()
    if options.init_from is None:
        name = options.architecture or "bimpala"
        return Agent.new(
            name, game=options.game, seed=options.seed, device=options.device, **arguments
        )
    if options.architecture is not None or arguments:
        raise ValueError("init_from says the architecture: do not give another beside it")
    given = load(options.init_from, options.device)
    config = replace(given.config, game=options.game, made={"from": given.config.made})
    return Agent(given.policy, config)


def _model(options: TrainOptions, agent: Agent) -> FastPPO:
    """Make PPO around the agent's own policy."""
    chosen = options.hyperparameters()
    rollout = chosen.num_envs * chosen.num_steps
    if rollout % chosen.minibatches:
        raise ValueError(f"a rollout of {rollout} frames has no {chosen.minibatches} equal parts")
    for name in ("frames", "save_every", "held_out"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be positive, got {getattr(options, name)}")
    levels = Levels(TRAINING.start, options.levels) if options.levels else TRAINING
    env = ProcgenVecEnv(
        options.game,
        chosen.num_envs,
        num_levels=levels.count,
        start_level=levels.start,
        mode=options.mode,
        seed=options.seed,
    )
    model = FastPPO(
        AgentPolicy,
        VecNormalize(env, norm_obs=False, gamma=chosen.gamma),
        learning_rate=chosen.learning_rate,
        n_steps=chosen.num_steps,
        batch_size=rollout // chosen.minibatches,
        n_epochs=chosen.epochs,
        gamma=chosen.gamma,
        gae_lambda=chosen.gae_lambda,
        clip_range=chosen.clip_range,
        clip_range_vf=chosen.clip_range,
        ent_coef=chosen.entropy_coefficient,
        vf_coef=chosen.value_coefficient,
        max_grad_norm=chosen.max_grad_norm,
        policy_kwargs={"architecture": agent.config.architecture},
        micro_batch_size=CPU_MICRO_BATCH if agent.device.type == "cpu" else None,
        precision=options.precision,
        seed=options.seed,
        device=agent.device,
    )
    model.policy = agent.policy
    return model


def _write_checkpoint(run: Path, model: FastPPO, agent: Agent) -> None:
    """Write the agent and the state of the run; older checkpoints keep their agents only."""
    older = [*(run / CHECKPOINTS).glob("[0-9]*")]
    place = run / CHECKPOINTS / f"{model.num_timesteps:012d}"
    with new_folder(place, overwrite=True, marker=training_state.NUMBERS) as folder:
        agent.save(folder / AGENT)
        training_state.write(model, folder)
    for folder in older:
        if folder != place:
            for name in (training_state.NUMBERS, training_state.TENSORS):
                (folder / name).unlink(missing_ok=True)


def _last_checkpoint(options: TrainOptions) -> Path:
    """Find the newest checkpoint of a run, if it is the run that the options describe."""
    recorded = _read(options.out / OPTIONS)["options"]
    given = json.loads(json.dumps(_recorded(options)))
    free = ("frames", "device")
    others = [
        f"{name} was {recorded.get(name)!r}, is {value!r}"
        for name, value in given.items()
        if name not in free and recorded.get(name) != value
    ]
    if others:
        raise ValueError(f"{options.out} is another run: {'; '.join(others)}")
    found = sorted((options.out / CHECKPOINTS).glob(f"[0-9]*/{training_state.NUMBERS}"))
    if not found:
        raise CheckpointError(f"{options.out} holds no checkpoint yet: start it with overwrite")
    return found[-1].parent


def _recorded(options: TrainOptions) -> dict[str, Any]:
    """Return the options that make the run what it is, with the hyperparameters in full."""
    kept = {k: v for k, v in asdict(options).items() if k not in ("out", "progress")}
    return {
        **kept,
        "architecture_options": options.architecture_arguments(),
        "hyperparameters": asdict(options.hyperparameters()),
    }


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"no run to resume: {error}") from error
