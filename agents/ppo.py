"""Training by Stable-Baselines3's PPO, made fast: presets, runs that resume, one folder a run."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecNormalize

from agents import training_state
from agents.checkpoint import Agent, CheckpointError, load
from agents.events import Events
from agents.fast_ppo import FastPPO, Precision
from agents.folder import (
    check_free,
    clear,
    locked,
    new_folder,
    provenance,
    remove_leftovers,
    write_json,
)
from agents.keeper import Keeper
from agents.policy import AgentPolicy
from agents.recorder import Recorder, Scores
from agents.signals import Stopped, StopRequest, stop_on_signals
from agents.training_state import State
from agents.trunks import Polynomial
from envs import EVALUATION, TRAINING, Levels, ProcgenVecEnv

OPTIONS, RESULTS, AGENT = "options.json", "results.json", "agent"
CHECKPOINTS, TRAJECTORY = "checkpoints", "trajectory"

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
    film_every: int = 1_000_000
    """frames between films of held-out episodes, taken at evaluations; 0 for none"""
    save_every: int = 200_000
    """frames between checkpoints"""
    seed: int = 0
    precision: Precision = "float32"
    """float32 | tf32 | bfloat16: of the network's body. tf32 is for CUDA. bfloat16 is faster where
    it is in hardware (recent GPUs, avx512_bf16), far slower elsewhere: compare steps a second"""
    compile: bool = False
    """the network's body, by torch.compile (on CUDA as CUDA graphs): a minute at the start"""
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

    The run's folder holds

    - ``options.json``, with command, hardware and versions;
    - ``tensorboard/``, and ``results.json``, the held-out scores so far;
    - ``checkpoints/``, of which the newest is kept: from there the run goes on;
    - ``trajectory/``, agents along training, in half precision where that holds their weights:
      untrained and after 1, 2, 4, 8, ... rollouts, wherever the run is to end;
    - ``agent/``, when it has ended.

    Stopped at any moment the run resumes from its last checkpoint, on the same machine with as
    many threads to the same weights as if it had not been stopped. What resuming does not bring
    back is the returns and lengths of episodes under way: in TensorBoard, they count from there.

    Args:
        options: the run.
        overwrite: replace a run that is in the folder.
        resume: continue the run that is in the folder; frames, device, films and progress may be
            others.

    Raises:
        FileExistsError: the folder has something, and neither ``overwrite`` nor ``resume`` is on.
        BlockingIOError: another process runs in the folder.
        OSError: the folder cannot be written, or no longer (a full disk); the last checkpoint
            stays, and is named.
        ValueError: an option is not accepted, or not the resumed run's.
        FloatingPointError: the run diverged, as `Keeper` judges, or its gradients are not finite;
            the last checkpoint is from before, stays, and is named.
        Stopped: SIGINT or SIGTERM (in the main thread); what was done is saved, but for the
            rollout under way.
    """
    if overwrite and resume:
        raise ValueError("choose one of overwrite and resume")
    with locked(options.out), stop_on_signals() as stop:
        return _train(options, stop, overwrite=overwrite, resume=resume)


def _train(options: TrainOptions, stop: StopRequest, *, overwrite: bool, resume: bool) -> Agent:
    out = options.out
    if resume:
        checkpoint = _last_checkpoint(options)
        agent = load(checkpoint / AGENT, options.device)
    else:
        checkpoint = None
        check_free(out, overwrite=overwrite, marker=OPTIONS)
        agent = _first_agent(options)
    model = _model(options, agent)
    history: list[Scores] = []
    if checkpoint is not None:
        training_state.restore(model, checkpoint)
        history = _read(out / RESULTS)["held_out"]
        history = [scores for scores in history if scores["frames"] <= model.num_timesteps]
        for folder in (out, out / CHECKPOINTS, out / TRAJECTORY):
            remove_leftovers(folder)
    else:
        clear(out, marker=OPTIONS)
        _calibrate(model, options)
    lineage = {"from": agent.config.made["from"]} if "from" in agent.config.made else {}
    made = {"options": _recorded(options), **provenance(), **lineage}

    def current(history: list[Scores]) -> Agent:
        facts = {"frames": model.num_timesteps, "scores": history[-1] if history else None}
        return Agent(agent.policy, replace(agent.config, made={**made, **facts}))

    def keep() -> None:
        place = out / TRAJECTORY / _numbered(model.num_timesteps)
        largest = max(weight.abs().max().item() for weight in agent.policy.parameters())
        fits = largest <= torch.finfo(torch.float16).max
        dtype = torch.float16 if fits else torch.float32
        current([]).save(place, overwrite=True, dtype=dtype)

    def save(history: list[Scores]) -> None:
        write_json(out / RESULTS, {"frames": model.num_timesteps, "held_out": history})
        _write_checkpoint(out, keeper.state, current(history))

    keeper = Keeper(stop, keep)
    recorder = Recorder(
        agent=lambda: current([]),
        levels=EVALUATION.first(options.held_out),
        mode=options.mode,
        evaluate_every=options.evaluate_every,
        film_every=options.film_every,
        save=save,
        save_every=options.save_every,
        history=history,
        settings=_compared(options, agent),
        progress=options.progress,
    )
    with closing(training_state.environments(model)[0]), _failures_explained(model, out):
        write_json(out / OPTIONS, made)
        events = Events(out / "tensorboard", frames=model.num_timesteps)
        model.set_logger(Logger(str(out), [events]))
        with closing(model.logger), keeper.watching(agent.policy):
            try:
                model.learn(
                    options.frames - model.num_timesteps,
                    callback=CallbackList([keeper, recorder]),
                    reset_num_timesteps=False,
                )
            except Stopped as stopped:
                training_state.rewind(model, keeper.state)
                save(recorder.history)
                where = f"after {model.num_timesteps:,} frames, saved in {_newest(out)}"
                raise Stopped(stopped.signal, f"stopped {where}") from None
        trained = current(recorder.history)
        trained.save(out / AGENT, overwrite=True)
    return trained


@contextmanager
def _failures_explained(model: FastPPO, run: Path) -> Iterator[None]:
    """Say in an error that ends a run how far it was, and from where it can go on."""
    try:
        yield
    except (FloatingPointError, OSError, SafetensorError) as error:
        found = _newest(run)
        last = f"the last good checkpoint is {found}" if found else "no checkpoint was written yet"
        frames = f"{model.num_timesteps:,} frames"
        if isinstance(error, FloatingPointError):
            raise FloatingPointError(f"diverged after {frames}: {error}; {last}") from error
        raise OSError(f"cannot write in {run} after {frames}: {error}; {last}") from error


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
    for name in ("evaluate_every", "film_every"):
        if getattr(options, name) < 0:
            raise ValueError(
                f"{name} must be positive, or 0 for none, got {getattr(options, name)}"
            )
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
        compile=options.compile,
        seed=options.seed,
        device=agent.device,
    )
    model.policy = agent.policy
    return model


def _calibrate(model: FastPPO, options: TrainOptions) -> None:
    """Scale the untrained weights of a body that asks for it on the game's first frames."""
    body = model.policy.features_extractor
    if options.init_from is None and isinstance(body, Polynomial):
        env, _ = training_state.environments(model)
        body.calibrate(torch.as_tensor(env.observe()) / 255)


def _write_checkpoint(run: Path, state: State, agent: Agent) -> None:
    """Write the agent and the state of the run, then remove the checkpoint before."""
    older = _resumable(run)
    place = run / CHECKPOINTS / _numbered(state.frames)
    if place in older:  # the run was stopped where it had been resumed
        return
    with new_folder(place, marker=training_state.NUMBERS) as folder:
        agent.save(folder / AGENT)
        state.write(folder)
    for folder in older:
        leaving = folder.with_name(f".{folder.name}.old")  # no checkpoint any more, all at once
        shutil.rmtree(folder.rename(leaving))


def _numbered(frames: int) -> str:
    return f"{frames:012d}"


def _resumable(run: Path) -> list[Path]:
    """Return the checkpoints that hold the state of a run, oldest first."""
    files = (run / CHECKPOINTS).glob(f"[0-9]*/{training_state.NUMBERS}")
    return sorted(file.parent for file in files)


def _newest(run: Path) -> Path | None:
    """Return the newest checkpoint, if there is one."""
    return next(reversed(_resumable(run)), None)


def _last_checkpoint(options: TrainOptions) -> Path:
    """Find the newest checkpoint of a run, if it is the run that the options describe."""
    run = options.out
    recorded, given = _identity(_read(run / OPTIONS)["options"]), identity(options)
    # a run of an older version has the defaults of the options that came later
    recorded = {**_identity(_recorded(TrainOptions(run))), **recorded}
    others = [
        f"{name} was {recorded[name]!r}, is {given[name]!r}"
        if name in given
        else f"this version has no option {name}, it was {recorded[name]!r}"
        for name in recorded
        if recorded[name] != given.get(name)
    ]
    if others:
        raise ValueError(f"{run} is another run: {'; '.join(others)}")
    found = _newest(run)
    if found is None:
        raise CheckpointError(f"{run} holds no checkpoint yet: start it with overwrite")
    return found


def identity(options: TrainOptions) -> dict[str, Any]:
    """Return what makes a run another run: its options, but for those that may be others later."""
    return _identity(_recorded(options))


def _identity(recorded: dict[str, Any]) -> dict[str, Any]:
    """Return what makes a run another run, of what `_recorded` returns; presets are resolved."""
    hyperparameters = {**asdict(Hyperparameters()), **recorded.get("hyperparameters", {})}
    left_out = {"hyperparameters", "preset", "frames", "device", "film_every", *hyperparameters}
    options = {name: value for name, value in recorded.items() if name not in left_out}
    return {**options, **hyperparameters}


def _recorded(options: TrainOptions) -> dict[str, Any]:
    """Return the options for the record, with the hyperparameters in full."""
    kept = {k: v for k, v in asdict(options).items() if k not in ("out", "progress")}
    return {
        **kept,
        "architecture_options": options.architecture_arguments(),
        "hyperparameters": asdict(options.hyperparameters()),
    }


def _compared(options: TrainOptions, agent: Agent) -> dict[str, Any]:
    """Return what tells runs apart, with the same names in every run."""
    hyperparameters = asdict(options.hyperparameters())
    left_out = {"hyperparameters", "frames", "device", *hyperparameters}
    left_out |= {"evaluate_every", "film_every", "save_every"}
    kept = {k: v for k, v in _recorded(options).items() if k not in left_out}
    return {
        **kept,
        "init_from": options.init_from or "",
        "architecture": agent.config.architecture,
        "architecture_options": json.dumps(agent.config.architecture_kwargs),
        **hyperparameters,
    }


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"no run to resume: {error}") from error
