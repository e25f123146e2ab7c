"""The states along rollouts, kept exactly and in little memory."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnvObs,
    VecEnvStepReturn,
    VecEnvWrapper,
)

from rlbilinear.envs.vecenv import ProcgenVecEnv

_LARGEST_CHANGE = 1 / 16
"""Of a state's bytes: what changes more than that is a reference for those that follow."""


class Recording:
    """States of several environments, step after step; any of them is given back byte for byte.

    A state is kept as what differs from a reference, the state at the beginning of its episode (a
    later one, when too much differs). References are kept as what differs from the environment's
    first one. What differs is the stretch between the first and the last changed byte, compressed
    against the same stretch of the reference.

    A step of a maze takes some 75 bytes instead of 21 kB, a level that the simulator generates
    3.5 kB (its random generator is new), a given level 0.1 kB, an environment 10 kB;
    `scripts/benchmark.py envs` measures the whole. Giving a state back takes at most three
    decompressions.

    Args:
        num_envs: number of environments.
    """

    def __init__(self, num_envs: int) -> None:
        self._tracks = [_Track() for _ in range(num_envs)]

    @property
    def num_envs(self) -> int:
        """Number of environments."""
        return len(self._tracks)

    @property
    def nbytes(self) -> int:
        """Bytes that the states take, without the room that growing buffers keep ready."""
        return sum(track.nbytes for track in self._tracks)

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._tracks[0])

    def append(
        self, states: Sequence[bytes], begun: Bool[np.ndarray, " envs"] | None = None
    ) -> None:
        """Add a step: the state of each environment.

        Args:
            states: one for each environment.
            begun: where an episode begins; knowing it saves memory.

        Raises:
            ValueError: not one state for each environment.
        """
        if len(states) != self.num_envs:
            raise ValueError(f"got {len(states)} states for {self.num_envs} environments")
        begins = np.zeros(self.num_envs, bool) if begun is None else begun
        for track, state, begin in zip(self._tracks, states, begins, strict=True):
            track.append(state, bool(begin))

    def state(self, step: int, env: int = 0) -> bytes:
        """Return the state of an environment at a step; negative steps count from the end.

        Raises:
            IndexError: there is no such step or environment.
        """
        if not 0 <= env < self.num_envs:
            raise IndexError(f"no environment {env}; there are 0..{self.num_envs - 1}")
        if not -len(self) <= step < len(self):
            raise IndexError(f"no step {step}; there are {len(self)}")
        return self._tracks[env][step % len(self)]


class RecordStates(VecEnvWrapper):
    """A `ProcgenVecEnv` that records, at each step, the state in which the actions are chosen.

    `recording.state(t, i)` is what environment i was in when the action of step t was given:
    observations, actions and states of a rollout go together one to one. What `set_states` puts in
    between steps is seen, too. The state after the last step is `get_states()`.

    Reading the states takes longer than stepping does (see `scripts/benchmark.py envs`).

    Args:
        venv: the environments.
    """

    venv: ProcgenVecEnv

    def __init__(self, venv: ProcgenVecEnv) -> None:
        super().__init__(venv)
        self.recording = Recording(venv.num_envs)
        """What has been recorded; set another one to start again."""
        self._begun = np.ones(venv.num_envs, bool)

    def reset(self) -> VecEnvObs:
        """Reset the environments; nothing is recorded until they are stepped."""
        self._begun[:] = True
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Record the states, then start a step."""
        self.recording.append(self.venv.get_states(), self._begun)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step."""
        result = self.venv.step_wait()
        self._begun = result[2].astype(bool)
        return result


class _Track:
    """The states of one environment."""

    def __init__(self) -> None:
        self._first = b""
        self._references = _Changes()
        self._changes = _Changes()
        self._reference_of = array("i")
        self._reference = b""
        """The last one, unpacked."""

    @property
    def nbytes(self) -> int:
        own = len(self._first) + len(self._reference) + self._reference_of.itemsize * len(self)
        return own + self._references.nbytes + self._changes.nbytes

    def __len__(self) -> int:
        return len(self._changes)

    def append(self, state: bytes, begun: bool) -> None:
        begun = begun or not len(self)
        if not len(self):
            self._first = zlib.compress(state)
        change = b"" if begun else _change(self._reference, state)
        if begun or len(change) > _LARGEST_CHANGE * len(state):
            self._references.append(_change(self._origin(), state))
            self._reference, change = state, b""
        self._changes.append(change)
        self._reference_of.append(len(self._references) - 1)

    def __getitem__(self, step: int) -> bytes:
        reference = self._references[self._reference_of[step]]
        return _changed(_changed(self._origin(), reference), self._changes[step])

    def _origin(self) -> bytes:
        return zlib.decompress(self._first)


class _Changes:
    """Byte strings, one behind the other."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    @property
    def nbytes(self) -> int:
        return len(self._bytes) + self._ends.itemsize * len(self._ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        return bytes(self._bytes[self._ends[index] : self._ends[index + 1]])

    def append(self, change: bytes) -> None:
        self._bytes += change
        self._ends.append(len(self._bytes))


def _change(old: bytes, new: bytes) -> bytes:
    """Return what makes one state of another; see `_changed`."""
    if old == new:
        return b""
    shared = min(len(old), len(new))
    one, two = (np.frombuffer(raw, np.uint8) for raw in (old, new))
    differ = one[:shared] != two[:shared]
    start = int(differ.argmax()) if differ.any() else shared
    differ = one[len(old) - shared :][start:][::-1] != two[len(new) - shared :][start:][::-1]
    end = int(differ.argmax()) if differ.any() else shared - start
    packer = _packer(old[start : len(old) - end])
    packed = packer.compress(new[start : len(new) - end]) + packer.flush()
    return start.to_bytes(4, "little") + end.to_bytes(4, "little") + packed


def _changed(old: bytes, change: bytes) -> bytes:
    if not change:
        return old
    start, end = (int.from_bytes(change[at : at + 4], "little") for at in (0, 4))
    stop = len(old) - end
    unpacker = zlib.decompressobj(-15, zdict=old[start:stop])
    return old[:start] + unpacker.decompress(change[8:]) + unpacker.flush() + old[stop:]


def _packer(dictionary: bytes) -> zlib._Compress:
    return zlib.compressobj(6, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY, dictionary)
