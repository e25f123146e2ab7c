"""The callback by which a PPO run is followed: TensorBoard, held-out scores, checkpoints, a bar."""

import json
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from tensorboard.compat.proto.summary_pb2 import Summary
from tqdm import tqdm

from rlbilinear.agents import events, filming
from rlbilinear.agents.agent import Agent
from rlbilinear.agents.evaluation import evaluate, summary
from rlbilinear.agents.gradients import GradientNorms, copies, layers_of, relative_changes
from rlbilinear.agents.layer_statistics import (
    activation_statistics,
    held_out_frames,
    weight_statistics,
)
from rlbilinear.agents.run import Scores
from rlbilinear.envs.videos import gif_bytes

EPISODES = 100
"""Training scores are means over this many last episodes."""

TRAINING = ("return", "steps", "success")

COMPARED = ("held_out_levels/return", "held_out_levels/success", "training_levels/return")
LEADING = ("architecture", "game", "levels", "parameters", "seed")
"""Scores and options that TensorBoard's tab HPARAMS shows without being asked for more."""

TOGETHER = {
    name: ["Multiline", [f"training_levels/{name}", f"held_out_levels/{name}"]] for name in TRAINING
}
"""Curves that its tab CUSTOM SCALARS shows in one plot."""


class LoggingCallback(BaseCallback):
    """Follows a run; between an update and the next rollout it evaluates and saves when due.

    Evaluation is in float32, whatever the precision of training (`FastPPO` calls back outside of
    it), and does not touch the run's random generators or simulator: the weights are the same with
    and without it. Each evaluation also logs statistics of the layers on a fixed batch of
    observations of held-out levels, and films of the first of these levels.

    Args:
        agent: returns the agent as it is now.
        levels: to evaluate on, disjoint from the training levels.
        mode: the game's distribution mode.
        evaluate_every: frames between evaluations; 0 for none.
        film_every: frames between films, which are made at evaluations; 0 for none. The first
            and the last evaluation always have one.
        save: called with the held-out scores so far.
        save_every: frames between checkpoints.
        history: held-out scores of a resumed run, oldest first.
        settings: by which TensorBoard compares runs.
        progress: show a bar.
    """

    model: PPO

    def __init__(
        self,
        *,
        agent: Callable[[], Agent],
        levels: Sequence[int],
        mode: str,
        evaluate_every: int,
        film_every: int,
        save: Callable[[list[Scores]], None],
        save_every: int,
        history: list[Scores],
        settings: Mapping[str, Any],
        progress: bool,
    ) -> None:
        super().__init__()
        self.history = list(history)
        self._agent, self._levels, self._mode = agent, levels, mode
        self._evaluate_every, self._film_every = evaluate_every, film_every
        self._save, self._save_every = save, save_every
        self._settings, self._progress = settings, progress
        self._episodes: deque[tuple[float, int, bool]] = deque(maxlen=EPISODES)

    def _on_training_start(self) -> None:
        agent = self._agent()
        self._layers = layers_of(agent.policy)
        self._gradients = GradientNorms(agent.policy.optimizer, self._layers)
        if self._evaluate_every:
            self._frames = held_out_frames(agent.config.game, self._levels, mode=self._mode)
        self._begin_events(sum(weight.numel() for weight in agent.policy.parameters()))
        self._bar = tqdm(
            total=self.model._total_timesteps,
            initial=self.num_timesteps,
            desc="training",
            unit="frame",
            unit_scale=True,
            disable=not self._progress,
        )
        self._saved_at = self.num_timesteps
        self._watch = Stopwatch()
        self._watch.time_within(self.training_env, "step_wait", "simulator")

    def _on_rollout_start(self) -> None:
        self._after_update()
        if self._evaluate_every and self._unevaluated() >= self._evaluate_every:
            self._evaluate()
        self.logger.dump(self.num_timesteps)
        if self.num_timesteps - self._saved_at >= self._save_every:
            self._checkpoint()
        self._watch.lap("evaluation")

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                episode = info["episode"]
                self._episodes.append((episode["r"], episode["l"], info["prev_level_complete"]))
        self._bar.update(self.training_env.num_envs)
        return True

    def _on_rollout_end(self) -> None:
        self._watch.lap("rollout")
        if self._episodes:
            for name, values in zip(TRAINING, zip(*self._episodes, strict=True), strict=True):
                self.logger.record(f"training_levels/{name}", float(np.mean(values)))
        actions = self.model.rollout_buffer.actions.astype(int).ravel()
        shares = np.bincount(actions, minlength=len(filming.ACTIONS)) / len(actions)
        for action, (name, share) in enumerate(zip(filming.ACTIONS, shares, strict=True)):
            self.logger.record(f"rollout/action {action:02} {name}", share)
        self._before = copies(self._layers)

    def _on_training_end(self) -> None:
        self._after_update()
        if self._evaluate_every and self._unevaluated():
            self._evaluate(last=True)
        self.logger.dump(self.num_timesteps)
        if self._saved_at < self.num_timesteps:
            self._checkpoint()
        self._end_events()
        self._bar.close()

    def _after_update(self) -> None:
        """Record gradients, steps and times of the last update, if there was one."""
        self._watch.lap("update")
        norms = self._gradients.take()
        if norms is None:
            return
        whole, by_layer = norms
        self.logger.record("train/gradient_norm", whole)
        changes = relative_changes(self._before, self._layers)
        for name, norm in by_layer.items():
            self.logger.record(f"layer_gradient_norm/{name}", norm)
            self.logger.record(f"layer_update_ratio/{name}", changes[name])
        weights = torch.cat([*copies(self._layers).values()])
        self.logger.record("train/parameter_norm", weights.norm().item())
        seconds = self._watch.take()
        buffer = self.model.rollout_buffer
        frames = buffer.buffer_size * buffer.n_envs
        self.logger.record(
            "time/steps_per_second", frames / (seconds["rollout"] + seconds["update"])
        )
        network = seconds["rollout"] - seconds["simulator"]
        parts = {"simulator": seconds["simulator"], "network": network}
        parts |= {"update": seconds["update"], "evaluation": seconds["evaluation"]}
        for name, part in parts.items():
            self.logger.record(f"time/share_of_{name}", part / sum(parts.values()))

    def _unevaluated(self) -> float:
        """Return the frames since the last evaluation; infinite before the first."""
        return self.num_timesteps - self.history[-1]["frames"] if self.history else float("inf")

    def _evaluate(self, *, last: bool = False) -> None:
        agent = self._agent()
        table = summary(evaluate(agent, self._levels, mode=self._mode, progress=False))
        scores = {str(name): float(mean) for name, mean in table["mean"].items()}
        for name, score in scores.items():
            self.logger.record(f"held_out_levels/{name}", score)
        numbers, samples = activation_statistics(agent, self._frames)
        for name, value in {**numbers, **weight_statistics(agent), **samples}.items():
            self.logger.record(name, value)
        if self._film_every and (last or self._is_film_due()):
            film = filming.film(agent, self._levels[: filming.EPISODES], mode=self._mode)
            encoded = gif_bytes(film, frames_per_second=filming.RATE)
            self._add(events.picture("held_out_levels/episodes", encoded, filming.CAPTION))
        self.history.append({"frames": self.num_timesteps, **scores})
        self._bar.set_postfix({name: f"{scores[name]:.3g}" for name in ("return", "success")})

    def _is_film_due(self) -> bool:
        """Say whether a multiple of `film_every` lies since the last evaluation."""
        last = self.history[-1]["frames"] // self._film_every if self.history else -1
        return self.num_timesteps // self._film_every > last

    def _checkpoint(self) -> None:
        self._save(self.history)
        self._saved_at = self.num_timesteps

    def _begin_events(self, parameters: int) -> None:
        """Write the run's settings, for TensorBoard to compare it with others, and as text."""
        settings = {**self._settings, "parameters": parameters}
        *begin, self._end = events.comparison(settings, COMPARED, first=LEADING)
        self._add(*begin)
        if writer := events.writer_of(self.logger):
            text = json.dumps(self._settings, indent=4)
            writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()))
            writer.add_custom_scalars({"training levels, held-out levels": TOGETHER})

    def _end_events(self) -> None:
        """Mark the run as ended well; otherwise TensorBoard shows no status."""
        self._add(self._end)

    def _add(self, *summaries: Summary) -> None:
        writer = events.writer_of(self.logger)
        if writer is not None and writer.file_writer is not None:
            for one in summaries:
                writer.file_writer.add_summary(one, self.num_timesteps)


class Stopwatch:
    """Seconds spent, by activity."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap."""
        now = time.perf_counter()
        self._seconds[name] += now - self._last
        self._last = now

    def time_within(self, thing: object, method: str, name: str) -> None:
        """Add, from now on, the time that calls of an object's method take; laps include it too."""
        call = getattr(thing, method)

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self._seconds[name] += time.perf_counter() - start

        setattr(thing, method, timed)

    def take(self) -> dict[str, float]:
        """Return the seconds since the last call."""
        taken, self._seconds = self._seconds, defaultdict(float)
        return taken
