import numpy as np
from stable_baselines3.common.logger import HumanOutputFormat, Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from rlbilinear.agents import events
from rlbilinear.agents.events import Events
from rlbilinear.envs.videos import gif_bytes


def read(folder):
    return EventAccumulator(str(folder), {"tensors": 0}).Reload()


def test_what_a_killed_run_wrote_beyond_its_checkpoint_is_left_out(tmp_path):
    killed = Logger(None, [Events(tmp_path)])
    for frames in (0, 10, 20, 30):
        killed.record("score", float(frames))
        killed.dump(frames)
    killed.close()
    resumed = Logger(None, [Events(tmp_path, frames=10)])
    resumed.record("score", -20.0)
    resumed.dump(20)
    resumed.close()
    curve = [(event.step, event.value) for event in read(tmp_path).Scalars("score")]
    assert curve == [(0, 0.0), (10, 10.0), (20, -20.0)]


def test_writer_is_found_behind_a_logger(tmp_path):
    own = Events(tmp_path)
    logger = Logger(None, [HumanOutputFormat(str(tmp_path / "log.txt")), own])
    assert events.writer_of(logger) is own.writer
    logger.close()
    assert events.writer_of(Logger(None, [])) is None


def test_animated_pictures_keep_their_frames_and_caption(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), np.uint8)
    encoded = gif_bytes(frames)
    own = Events(tmp_path)
    own.writer.file_writer.add_summary(events.picture("films/one", encoded, "A film."), 7)
    own.close()
    found = read(tmp_path)
    (event,) = found.Tensors("films/one")
    assert event.step == 7
    assert list(event.tensor_proto.string_val) == [b"12", b"8", encoded]
    assert found.SummaryMetadata("films/one").display_name == "A film."
    assert found.SummaryMetadata("films/one").plugin_data.plugin_name == "images"


def test_settings_are_flattened_to_numbers_and_short_texts():
    settings = {"a": {"b": 1, "c": {"d": "x"}}, "e": None, "f": [1, 2], "g": "x" * 61, "h": True}
    assert dict(events.flat(settings)) == {
        "a.b": 1,
        "a.c.d": "x",
        "e": "null",
        "f": "[1, 2]",
        "h": True,
    }


def test_runs_are_compared_by_settings_of_which_some_come_first():
    experiment, begin, _ = events.comparison(
        {"seed": 3, "game": "maze", "rate": 0.1}, ["held_out/return"], first=["game", "seed"]
    )
    compared = HParamsPluginData.FromString(
        experiment.value[0].metadata.plugin_data.content
    ).experiment
    assert {info.name: info.differs for info in compared.hparam_infos} == {
        "seed": True,
        "game": True,
        "rate": False,
    }
    assert [info.name.tag for info in compared.metric_infos] == ["held_out/return"]
    started = HParamsPluginData.FromString(begin.value[0].metadata.plugin_data.content)
    given = started.session_start_info.hparams
    assert given["game"].string_value == "maze" and given["seed"].number_value == 3
