"""Stable-Baselines3's own recorder of videos, with the extra `video` (which `dev` includes)."""

import sys

import gymnasium
import imageio
import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecMonitor, VecVideoRecorder

from rlbilinear.envs.vecenv import ProcgenVecEnv

RIGHT = 7


def frames(path):
    with imageio.get_reader(path) as reader:
        return np.stack([np.asarray(frame) for frame in reader]), reader.get_meta_data()


@pytest.mark.parametrize("wrap", [lambda env: env, VecMonitor])
def test_the_stock_recorder_writes_what_is_rendered(tmp_path, wrap):
    env = ProcgenVecEnv("maze", 2, levels=[3, 5], render_mode="rgb_array", num_threads=0)
    recorder = VecVideoRecorder(
        wrap(env), str(tmp_path), lambda step: step == 0, video_length=12, name_prefix="maze"
    )
    recorder.reset()
    shown = [env.render()]
    for _ in range(12):
        recorder.step(np.full(2, RIGHT))
        shown.append(env.render())
    recorder.close()
    (path,) = tmp_path.iterdir()
    assert path.name == "maze-step-0-to-step-12.mp4"
    seen, about = frames(path)
    assert about["fps"] == 15
    assert len(shown) - len(seen) in (0, 1), "MoviePy's rounding may lose the last"
    difference = abs(seen - np.array(shown[: len(seen)], float))
    assert difference.mean() < 10, "but for the compression"


def test_gymnasiums_recorder_works_too(tmp_path):
    env = gymnasium.make("rlbilinear/procgen-maze-v0", levels=[3], render_mode="rgb_array")
    env = gymnasium.wrappers.RecordVideo(env, str(tmp_path), lambda episode: episode == 0)
    env.reset()
    for _ in range(5):
        env.step(RIGHT)
    env.close()
    (path,) = tmp_path.iterdir()
    seen, _ = frames(path)
    assert len(seen) in (5, 6) and seen.shape[1:] == (512, 512, 3)


@pytest.mark.parametrize("missing", ["moviepy", "pkg_resources"])
def test_what_is_missing_is_said_with_the_extra_that_has_it(tmp_path, monkeypatch, missing):
    env = ProcgenVecEnv("maze", 1, render_mode="rgb_array", num_threads=0)
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    with pytest.warns(UserWarning, match=rf"^{missing} cannot .*install 'rlbilinear\[video\]'"):
        assert env.metadata["render_fps"] == 15
    if missing == "moviepy":
        with pytest.raises(gymnasium.error.DependencyNotInstalled):
            VecVideoRecorder(env, str(tmp_path), lambda step: True)
    env.close()
