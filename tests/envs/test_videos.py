import importlib.metadata
import io
import subprocess

import numpy as np
import pytest
from PIL import Image

from rlbilinear.envs import videos
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.moves import ACTIONS_OF_MOVE, Move
from rlbilinear.envs.render import agent_view, human_view
from rlbilinear.envs.solver import expert_moves, shortest_path
from rlbilinear.envs.vecenv import ProcgenVecEnv
from rlbilinear.envs.videos import Film, film, gif_bytes, play, side_by_side, write_video


def stripes(frames=3, height=40, width=60):
    """Frames of few colours, each another."""
    pictures = np.zeros((frames, height, width, 3), np.uint8)
    pictures[:, :, :20] = (128, 128, 128)
    for index, picture in enumerate(pictures):
        picture[8 * index : 8 * index + 8, 24:] = (255, 60 * (index % 5), 0)
    return pictures


def read_gif(source):
    picture = Image.open(source)
    frames = []
    for index in range(picture.n_frames):
        picture.seek(index)
        frames.append(np.asarray(picture.convert("RGB")))
    return np.stack(frames)


def read_mp4(path):
    """Decode with the same program, and its reader of containers and H.264."""
    program = videos._ffmpeg()
    said = subprocess.run([program, "-i", str(path)], capture_output=True, text=True).stderr
    width, height = map(
        int, said.split("Video: h264")[1].split("yuv420p, ")[1].split()[0].strip(",").split("x")
    )
    raw = subprocess.run(
        [
            program,
            "-loglevel",
            "error",
            "-i",
            str(path),
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-",
        ],
        capture_output=True,
        check=True,
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3), said


def expert(maze):
    """The cells of the way to the cheese, and a policy that takes it."""
    moves = expert_moves(maze, maze.cheese[0])
    cells = shortest_path(maze, maze.mouse, maze.cheese[0])
    actions = iter([ACTIONS_OF_MOVE[Move(moves[cell])][0] for cell in cells[:-1]])
    return cells, lambda observations: np.full(len(observations), next(actions, 4))


def test_gif_holds_the_frames():
    frames = stripes()
    encoded = io.BytesIO(gif_bytes(frames, frames_per_second=4))
    picture = Image.open(encoded)
    assert (picture.n_frames, picture.info["loop"], picture.info["duration"]) == (3, 0, 250)
    np.testing.assert_allclose(read_gif(encoded).astype(int), frames, atol=1)


def test_frames_that_stay_the_same_keep_their_time_in_a_gif():
    picture = Image.open(io.BytesIO(gif_bytes(stripes()[[0, 0, 1, 1, 1]], frames_per_second=10)))
    times = []
    for index in range(picture.n_frames):
        picture.seek(index)
        times.append(picture.info["duration"])
    assert times == [200, 300]


@pytest.mark.parametrize("size", [(40, 60), (41, 57)])
def test_mp4_holds_the_frames(tmp_path, size):
    frames = stripes(5, *size)
    write_video(tmp_path / "film.MP4", frames, frames_per_second=4)
    shown, said = read_mp4(tmp_path / "film.MP4")
    height, width = size
    assert shown.shape == (5, height + height % 2, width + width % 2, 3)
    assert "4 fps" in said and "Duration: 00:00:01.25" in said
    # Colours are kept at half the resolution, so compare away from edges.
    difference = np.abs(shown[:, :height, :width].astype(int) - frames)
    assert np.median(difference) <= 3 and difference[:, 2:6, 30:50].max() <= 12
    others = [np.abs(shown[0].astype(int) - shown[index]).max() for index in range(1, 5)]
    assert min(others) > 100  # each frame is another
    assert [file.name for file in tmp_path.iterdir()] == ["film.MP4"]


def test_a_gif_file_is_replaced_whole(tmp_path):
    path = tmp_path / "film.gif"
    path.write_text("older")
    write_video(str(path), stripes(2))
    np.testing.assert_allclose(read_gif(path).astype(int), stripes(2), atol=1)
    assert [file.name for file in tmp_path.iterdir()] == ["film.gif"]


@pytest.mark.parametrize("name", ["film.gif", "film.mp4"])
def test_a_failure_leaves_the_older_file(tmp_path, monkeypatch, name):
    (tmp_path / name).write_text("older")
    monkeypatch.setattr(videos, "_ffmpeg", lambda: "/bin/false")
    monkeypatch.setattr(videos, "gif_bytes", lambda *_, **__: 1 / 0)
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        write_video(tmp_path / name, stripes(400))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "older")]


def test_the_encoder_that_gym3_brought_is_found():
    assert "imageio_ffmpeg" in videos._ffmpeg()


def test_without_an_encoder_the_message_says_what_to_install(tmp_path, monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(videos.importlib.metadata, "files", absent)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"apt-get install ffmpeg.*write a \.gif"):
        write_video(tmp_path / "film.mp4", stripes())
    own = tmp_path / "ffmpeg"
    own.write_text("#!/bin/sh\necho no such codec >&2\nexit 3\n")
    own.chmod(0o755)
    with pytest.raises(RuntimeError, match="no such codec"):
        write_video(tmp_path / "film.mp4", stripes())
    assert [file.name for file in tmp_path.iterdir()] == ["ffmpeg"]


@pytest.mark.parametrize("view", [None, "rgb_array"])
@pytest.mark.parametrize("mode", ["easy", "memory"])
def test_a_film_shows_the_episode_that_was_played(view, mode):
    maze = Maze.from_seed(3, mode)
    cells, policy = expert(maze)
    env = ProcgenVecEnv("maze", 1, levels=[maze], render_mode=view)
    (shown,) = play(env, policy, side=512)
    assert shown.ending == f"completed at step {len(cells) - 1}"
    assert shown.frames.shape == (len(cells), 512, 512, 3) and shown.frames.dtype == np.uint8
    env.reset()
    env.step(policy(np.zeros((1, 3, 64, 64))))
    env.close()
    facing = "left"
    for step, cell in enumerate(cells[:-1]):
        if step and cell.column != cells[step - 1].column:
            facing = "right" if cell.column > cells[step - 1].column else "left"
        there = maze.with_mouse(cell).with_facing(facing)
        seen = human_view(there) if view else agent_view(there).repeat(8, 0).repeat(8, 1)
        np.testing.assert_array_equal(shown.frames[step], seen)
    np.testing.assert_array_equal(shown.frames[-1], shown.frames[-2])  # the last is never shown


def test_every_environment_has_its_film_and_its_ending():
    easy = next(m for m in map(Maze.from_seed, range(99)) if m.maze_dim == 3)
    cells, policy = expert(easy)
    env = ProcgenVecEnv("maze", 2, levels=[easy, easy.with_cheese()])
    done, never = play(env, policy, steps=20, side=64)
    env.close()
    assert (len(done.frames), done.ending) == (len(cells), f"completed at step {len(cells) - 1}")
    assert (len(never.frames), never.ending) == (21, "")
    np.testing.assert_array_equal(never.frames[0], agent_view(easy.with_cheese()))


def test_the_step_limit_and_a_lost_game_are_named():
    env = ProcgenVecEnv("maze", 1, levels=[Maze.from_seed(3).with_cheese()])
    (shown,) = play(env, lambda observations: np.array([4]), steps=600, side=64)
    env.close()
    assert shown.ending == "time is up at step 500"
    env = ProcgenVecEnv("ninja", 4, seed=1)
    lost = play(env, lambda observations: np.full(4, 7), steps=300, side=64)
    env.close()
    assert any(own.ending.startswith("ended with reward 0 at step") for own in lost)


def test_a_film_of_states():
    mazes = [Maze.from_seed(3, mode) for mode in ("easy", "hard", "memory")]
    shown = film([mazes[0], mazes[1], mazes[2].to_bytes()], side=128)
    assert shown.frames.shape == (3, 128, 128, 3) and shown.ending == ""
    for frame, maze in zip(shown.frames, mazes, strict=True):
        mean = human_view(maze).reshape(128, 4, 128, 4, 3).mean((1, 3))
        np.testing.assert_allclose(frame, mean, atol=1)


def test_films_side_by_side_keep_step():
    first = Film(np.full((3, 64, 64, 3), 10, np.uint8), "completed at step 2")
    second = Film(
        np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((64, 64, 3), np.uint8)
    )
    frames = side_by_side({"first": first, "second": second})
    assert frames.shape == (5, 44 + 64, 64 + 8 + 64, 3)
    for step, frame in enumerate(frames):
        assert (frame[44:, :64] == 10).all() and (frame[44:, 72:] == step).all()
        assert (frame[:, 64:72] == 255).all() or (frame[44:, 64:72] == 255).all()
    captions = frames[:, :44]
    assert (captions[0, :, :64] != captions[1, :, :64]).any()  # the step is written
    np.testing.assert_array_equal(captions[2, :, :68], captions[4, :, :68])  # and the ending stays
    assert (captions[3, :, 72:] != captions[4, :, 72:]).any()


def test_what_is_not_accepted_is_named(tmp_path):
    env = ProcgenVecEnv("maze", 1)
    good = Film(stripes())
    for call, message in (
        (lambda: film([]), "at least one maze, heist or state"),
        (lambda: film([Maze.from_seed(3)], side=100), "64, 128, 256, 512 pixels, got 100"),
        (lambda: play(env, lambda o: np.zeros(1, int), steps=0), "steps >= 1"),
        (lambda: play(env, lambda o: np.zeros(2, int)), "1 integers"),
        (lambda: side_by_side({}), "at least one film"),
        (lambda: side_by_side({"a": good, "b": Film(stripes(height=50))}), "'a': 40, 'b': 50"),
        (lambda: side_by_side({"a": Film(stripes()[0])}), "of a, got uint8 of shape"),
        (lambda: write_video(tmp_path / "film.avi", stripes()), r"\.gif or \.mp4"),
        (lambda: write_video(tmp_path / "film.gif", stripes()[:0]), "uint8 frames"),
        (lambda: gif_bytes(stripes().astype(float)), "uint8 frames"),
        (lambda: gif_bytes(stripes().transpose(0, 3, 1, 2)), "uint8 frames"),
        (lambda: gif_bytes(stripes(), frames_per_second=0), "frames_per_second <= 50"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    env.close()
    assert not list(tmp_path.iterdir())
