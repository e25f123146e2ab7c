"""Training by Stable-Baselines3's PPO, made fast: presets, runs that resume, one folder a run."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecNormalize

from rlbilinear.agents import training_state
from rlbilinear.agents.agent import Agent
from rlbilinear.agents.bodies import PolynomialBody
from rlbilinear.agents.checkpoint import CheckpointError, load
from rlbilinear.agents.critic import adopt_critic
from rlbilinear.agents.events import Events
from rlbilinear.agents.fast_ppo import FastPPO
from rlbilinear.agents.folder import (
    check_free,
    clear,
    locked,
    new_folder,
    provenance,
    remove_leftovers,
    write_json,
)
from rlbilinear.agents.logging_callback import Recorder, Scores
from rlbilinear.agents.options import TrainOptions, check, check_same_run, compared, recorded
from rlbilinear.agents.policy import AgentPolicy
from rlbilinear.agents.signals import Stopped, StopRequest, stop_on_signals
from rlbilinear.agents.stop_callback import Keeper
from rlbilinear.agents.training_state import State
from rlbilinear.envs import EVALUATION, TRAINING, Levels, ProcgenVecEnv

OPTIONS, RESULTS, AGENT = "options.json", "results.json", "agent"
CHECKPOINTS, TRAJECTORY = "checkpoints", "trajectory"

LINEAGE = ("from", "critic")
"""What is recorded of a run that began from another agent: how that was made, and the slope and
offset that its critic was given."""

CPU_MICRO_BATCH = 64
"""Samples that a processor takes through the network at once; what it gains:
``python scripts/benchmark.py training``."""


def train(options: TrainOptions, *, overwrite: bool = False, resume: bool = False) -> Agent:
    """Train an agent by PPO, from scratch or from another, and return it.

    The run's folder holds

    - ``options.json``, with command, hardware and versions;
    - ``tensorboard/``, and ``results.json``, the held-out scores so far;
    - ``checkpoints/``, of which the newest is kept: from there the run goes on;
    - ``trajectory/``, agents along training, in half precision where that holds their weights:
      untrained and after 1, 2, 4, 8, ... rollouts, wherever the run is to end;
    - ``agent/``, when it has ended.

    Stopped at any moment the run resumes from its last checkpoint, on the same processor with as
    many threads to the same weights as if it had not been stopped. What resuming does not bring
    back is the returns and lengths of episodes under way: in TensorBoard, they count from there.

    Args:
        options: the run.
        overwrite: replace a run that is in the folder.
        resume: continue the run that is in the folder; frames, device, films and progress may be
            others. (Precision tf32 stays on CUDA.)

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
    check(options)
    with locked(options.out), stop_on_signals() as stop:
        return _train(options, stop, overwrite=overwrite, resume=resume)


def _train(options: TrainOptions, stop: StopRequest, *, overwrite: bool, resume: bool) -> Agent:
    out = options.out
    if options.compile:
        # Of all runs of a process PyTorch compiles 8 graphs of one code; more are not compiled.
        torch.compiler.reset()
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
    lineage = {name: agent.config.made[name] for name in LINEAGE if name in agent.config.made}
    made = {"options": recorded(options), **provenance(), **lineage}

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
        settings=compared(options, agent.config),
        progress=options.progress,
    )
    with (
        closing(training_state.environments(model)[0]),
        _failures_explained(model, out),
        keeper.watching(agent.policy),
    ):
        if checkpoint is None:
            made |= _calibrate(model, options, stop)
        write_json(out / OPTIONS, made)
        events = Events(out / "tensorboard", frames=model.num_timesteps)
        model.set_logger(Logger(str(out), [events]))
        with closing(model.logger):
            try:
                model.learn(
                    options.frames - model.num_timesteps,
                    callback=CallbackList([keeper, recorder]),
                    reset_num_timesteps=False,
                )
            except Stopped as stopped:
                training_state.rewind(model, keeper.state)
                save(recorder.history)
                where = f"after {model.num_timesteps:,} frames, saved in {newest_checkpoint(out)}"
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
        found = newest_checkpoint(run)
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
        batch_size=chosen.num_envs * chosen.num_steps // chosen.minibatches,
        n_epochs=chosen.epochs,
        gamma=chosen.gamma,
        gae_lambda=chosen.gae_lambda,
        clip_range=chosen.clip_range,
        clip_range_vf=chosen.clip_range_vf,
        ent_coef=chosen.entropy_coefficient,
        vf_coef=chosen.value_coefficient,
        max_grad_norm=chosen.max_grad_norm,
        bootstrap_time_limits=chosen.bootstrap_time_limits,
        policy_kwargs={"architecture": agent.config.architecture},
        micro_batch_size=CPU_MICRO_BATCH if agent.device.type == "cpu" else None,
        precision=options.precision,
        compile=options.compile,
        seed=options.seed,
        device=agent.device,
    )
    model.policy = agent.policy
    return model


def _calibrate(model: FastPPO, options: TrainOptions, stop: StopRequest) -> dict[str, Any]:
    """Fit to the game a given critic, or an untrained body's scale; return what is to be recorded.

    Raises:
        Stopped: as asked for, before anything was saved.
    """
    body = model.policy.features_extractor
    if options.init_from is not None:
        try:
            return {"critic": adopt_critic(model, model.n_steps, stop.check)._asdict()}
        except Stopped as stopped:
            raise Stopped(stopped.signal, "stopped before the first frame") from None
    if isinstance(body, PolynomialBody):
        env, _ = training_state.environments(model)
        body.calibrate(torch.as_tensor(env.observe()) / 255)
    return {}


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


def newest_checkpoint(run: Path) -> Path | None:
    """Return the newest checkpoint, if there is one."""
    return next(reversed(_resumable(run)), None)


def _last_checkpoint(options: TrainOptions) -> Path:
    """Find the newest checkpoint of a run, if it is the run that the options describe."""
    run = options.out
    check_same_run(run, _read(run / OPTIONS)["options"], options)
    found = newest_checkpoint(run)
    if found is None:
        raise CheckpointError(f"{run} holds no checkpoint yet: start it with overwrite")
    return found


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"no run to resume: {error}") from error
