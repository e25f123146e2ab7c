"""Training by Stable-Baselines3's PPO, made fast: presets, runs that resume, one folder a run."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
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
from rlbilinear.agents.folder import provenance
from rlbilinear.agents.logging_callback import LoggingCallback
from rlbilinear.agents.options import (
    TrainOptions,
    check,
    check_length,
    check_same_run,
    compared,
    recorded,
)
from rlbilinear.agents.policy import AgentPolicy
from rlbilinear.agents.run import AGENT, FAILURES, TENSORBOARD, Run, Scores
from rlbilinear.agents.signals import Stopped, StopRequest, stop_on_signals
from rlbilinear.agents.source import code_digest
from rlbilinear.agents.stop_callback import StopCallback
from rlbilinear.envs import EVALUATION, TRAINING, Levels, ProcgenVecEnv

LINEAGE = ("from", "critic")
"""What is recorded of a run that began from another agent: how that agent was made, and the slope
and offset that its critic was given."""

CPU_MICRO_BATCH = 64
"""Samples that the network processes at once on a CPU; ``python scripts/benchmark.py training``
measures what this gains."""


def train(options: TrainOptions, *, overwrite: bool = False, resume: bool = False) -> Agent:
    """Train an agent by PPO, from scratch or from another, and return it.

    The run's folder holds

    - ``options.json``, with command, hardware, versions, and the digest of the code
      (`agents.source`), or of each when it was resumed by another;
    - ``tensorboard/``, and ``results.json``, the held-out scores so far;
    - ``checkpoints/``, of which the newest is kept: the run resumes from there;
    - ``trajectory/``, agents along training, in half precision where that holds their weights:
      untrained and after 1, 2, 4, 8, ... rollouts, however long the run is;
    - ``agent/``, when it has ended.

    Stopped at any moment, the run resumes from its last checkpoint. On the same processor with as
    many threads, a resumed run ends with bit-identical weights. Only the returns and lengths of
    unfinished episodes are not restored: in TensorBoard, they count from the resumption.

    Args:
        options: the run.
        overwrite: replace the run that is in the folder.
        resume: continue the run that is in the folder; frames, device, films and progress may
            differ. (Precision tf32 stays on CUDA.)

    Raises:
        FileExistsError: the folder is not empty, and neither ``overwrite`` nor ``resume`` is on.
        BlockingIOError: another process runs in the folder.
        OSError: the folder cannot be written, or no longer (a full disk); the last checkpoint
            stays, and is named.
        ValueError: an option is not accepted, or differs from the resumed run's, or the resumed
            run has had more frames.
        CheckpointError: there is nothing to resume, or its files are damaged.
        FloatingPointError: the run diverged, as `StopCallback` judges, or its gradients are not
            finite; the last checkpoint is from before, stays, and is named.
        Stopped: SIGINT or SIGTERM (in the main thread); all was saved but the current rollout.
    """
    check(options)
    with (
        Run.open(options.out, overwrite=overwrite, resume=resume) as run,
        stop_on_signals() as stop,
    ):
        training = _build(run, options)
        with closing(training_state.environments(training.model)[0]):
            try:
                trained = training.learn(stop)
                run.finish(trained)
            except FAILURES as error:
                raise run.failure(error, training.model.num_timesteps) from error
    return trained


@dataclass
class _Training:
    """A run that is built: its agent, PPO around it, what is recorded, and its scores so far."""

    run: Run
    options: TrainOptions
    agent: Agent
    model: FastPPO
    record: dict[str, Any]
    held_out: list[Scores]

    def now(self, held_out: Sequence[Scores] = ()) -> Agent:
        """Return the agent with its record, frames and last scores."""
        facts = {"frames": self.model.num_timesteps, "scores": held_out[-1] if held_out else None}
        made = {**self.record, **facts}
        return Agent(self.agent.policy, replace(self.agent.config, made=made))

    def learn(self, stop: StopRequest) -> Agent:
        """Train to the end, saving on the way, and return the trained agent.

        Raises:
            Stopped: as asked for; the run is saved, or has not begun.
        """
        run, model, options = self.run, self.model, self.options
        stopping = StopCallback(stop, lambda: run.keep(self.now(), model.num_timesteps))

        def save(held_out: list[Scores]) -> None:
            run.save(self.now(held_out), stopping.snapshot, held_out)

        logging = LoggingCallback(
            agent=self.now,
            levels=EVALUATION.first(options.held_out),
            mode=options.mode,
            evaluate_every=options.evaluate_every,
            film_every=options.film_every,
            save=save,
            save_every=options.save_every,
            history=self.held_out,
            settings=compared(options, self.agent.config),
            progress=options.progress,
        )
        run.begin()
        with stopping.watching(self.agent.policy):
            if not run.resumed:
                self.record |= _calibrate(model, options, stop)
            run.write_record(self.record)
            events = Events(run.folder / TENSORBOARD, frames=model.num_timesteps)
            model.set_logger(Logger(str(run.folder), [events]))
            with closing(model.logger):
                try:
                    model.learn(
                        options.frames - model.num_timesteps,
                        callback=CallbackList([stopping, logging]),
                        reset_num_timesteps=False,
                    )
                except Stopped as stopped:
                    training_state.rewind(model, stopping.snapshot)
                    save(logging.history)
                    frames, checkpoint = model.num_timesteps, run.newest_checkpoint()
                    message = f"stopped after {frames:,} frames, saved in {checkpoint}"
                    raise Stopped(stopped.signal, message) from None
        return self.now(logging.history)


def _build(run: Run, options: TrainOptions) -> _Training:
    """Build a new run, or the resumed one as it was at its last checkpoint.

    Raises:
        ValueError: options that are not accepted, or not those of the resumed run.
        CheckpointError: nothing to resume, or damaged files.
    """
    if options.compile:
        torch.compiler.reset()  # in a process, PyTorch compiles the same code for 8 models only
    checkpoint = _last_checkpoint(run, options) if run.resumed else None
    agent = load(checkpoint / AGENT, options.device) if checkpoint else _first_agent(options)
    model = _model(options, agent)
    held_out: list[Scores] = []
    if checkpoint:
        training_state.restore(model, checkpoint)
        if model.num_timesteps != int(checkpoint.name):
            raise CheckpointError(f"{checkpoint} says that it has {model.num_timesteps:,} frames")
        held_out = [one for one in run.held_out() if one["frames"] <= model.num_timesteps]
    lineage = {name: agent.config.made[name] for name in LINEAGE if name in agent.config.made}
    made_by = agent.config.made.get("code", []) if checkpoint else []
    code = [*dict.fromkeys([*made_by, code_digest(__name__)])]
    record = {"options": recorded(options), **provenance(), "code": code, **lineage}
    return _Training(run, options, agent, model, record, held_out)


def _last_checkpoint(run: Run, options: TrainOptions) -> Path:
    """Return the newest checkpoint of the run that the options describe.

    Raises:
        ValueError: the folder has another run, or one that was trained for longer.
        CheckpointError: it has no run, or one without a checkpoint.
    """
    check_same_run(run.folder, run.record()["options"], options)
    checkpoint = run.newest_checkpoint()
    if checkpoint is None:
        raise CheckpointError(f"{run.folder} holds no checkpoint yet: start it with overwrite")
    check_length(run.folder, int(checkpoint.name), options)
    return checkpoint


def _first_agent(options: TrainOptions) -> Agent:
    """Make or load the agent to be trained.

    Raises:
        ValueError: unknown architecture or agent, or options that do not go together.
    """
    arguments = options.architecture_arguments()
    if options.init_from is None:
        return Agent.new(
            options.new_architecture,
            game=options.game,
            seed=options.seed,
            device=options.device,
            **arguments,
        )
    if options.architecture is not None or arguments:
        raise ValueError(
            "the architecture comes from init_from: remove architecture and its options"
        )
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
    """Fit a given critic or an untrained body's scale to the game; return what is recorded of it.

    Raises:
        Stopped: as asked for; nothing was saved yet.
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
