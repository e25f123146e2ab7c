"""`rlbilinear compare`: a tiny matrix for real, and its tables and words where they are known."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlbilinear import agents
from rlbilinear.agents.evaluation import evaluate
from rlbilinear.agents.options import TrainOptions
from rlbilinear.agents.ppo import train
from rlbilinear.agents.run import Run
from rlbilinear.agents.scores import score_range
from rlbilinear.envs import EVALUATION

TINY = "impala-small,channels=[2,2],features=8"
TRAINING = {
    "num_envs": 2,
    "num_steps": 16,
    "minibatches": 2,
    "epochs": 1,
    "frames": 64,
    "levels": 3,
    "held_out": 2,
    "evaluate_every": 64,
    "film_every": 0,
    "save_every": 32,
    "device": "cpu",
}
SHARED = [f"--{name.replace('_', '-')}={value}" for name, value in TRAINING.items()]


@pytest.fixture(scope="module")
def compare():
    """Call the command's `main` as from a command line."""

    def call(out, *options):
        from rlbilinear.commands import compare

        compare.main(["--out", str(out), "--final-levels=3", "--no-progress", *options])

    return call


@pytest.fixture(scope="module")
def results(compare, tmp_path_factory):
    """Two architectures, of which one has another learning rate, and two seeds; two commands."""
    out = tmp_path_factory.mktemp("compare") / "runs"
    matrix = ("--games=fruitbot", "--architectures", TINY, f"{TINY},learning_rate=1e-3")
    compare(out, *matrix, "--seeds=0", "--no-ray", *SHARED)
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    compare(out, *matrix, "--seeds", "0", "1", "--no-ray", *SHARED)
    assert {path: path.stat().st_mtime_ns for path in first} == first
    return out


def test_a_run_is_what_train_makes(results, tmp_path):
    options = TrainOptions(
        out=tmp_path / "run",
        game="fruitbot",
        architecture="impala-small",
        architecture_options='{"channels": [2, 2], "features": 8}',
        learning_rate=1e-3,
        seed=1,
        progress=False,
        **TRAINING,
    )
    train(options)
    ours, theirs = (
        (run / "agent" / "model.safetensors").read_bytes()
        for run in (results / "fruitbot" / f"{TINY},learning_rate=1e-3" / "seed1", options.out)
    )
    assert ours == theirs


def test_the_report_has_every_file(results):
    report = results / "report"
    assert {path.stem for path in report.glob("*.png")} == {
        "curves",
        "returns",
        "normalised",
        "differences",
    }
    for path in report.glob("*.png"):
        assert imread(path)[::2, ::2, 0].std() > 0.05, path
    made = json.loads((report / "report.json").read_text())
    assert made["frames"] == 64 and made["versions"]["torch"]


def test_scores_are_those_of_the_final_agents(results):
    rows = pd.read_csv(results / "report" / "evaluations.csv")
    agent = agents.load(results / "fruitbot" / TINY / "seed1" / "agent", device="cpu")
    played = evaluate(agent, EVALUATION.first(3), progress=False)["return"].mean()
    row = rows[
        (rows.architecture == TINY)
        & (rows.seed == 1)
        & (rows.measured == "final agent")
        & (rows.levels == "held_out")
    ]
    assert row["return"].item() == pytest.approx(played)
    low, high = score_range("fruitbot")
    assert row["normalised"].item() == pytest.approx((played - low) / (high - low))
    # one row for each run and evaluation: held-out levels at 0 and 64 frames, a moving average
    # after each of two rollouts (if an episode had ended), and the final agent on both sets
    counts = rows.groupby(["architecture", "seed", "measured"]).size().unstack()
    assert (counts["evaluation"] == 2).all() and (counts["final agent"] == 2).all()
    runs = pd.read_csv(results / "report" / "runs.csv")
    parameters = sum(weight.numel() for weight in agent.policy.parameters())
    assert (runs.parameters == parameters).all() and (runs.state == "finished").all()
    assert (runs.hours > 0).all()


def test_the_gap_is_training_minus_held_out(results):
    summary = pd.read_csv(results / "report" / "summary.csv")
    assert len(summary) == 2 and (summary.seeds == 2).all()
    gap = summary.training_return - summary.held_out_return
    np.testing.assert_allclose(summary.gap_return, gap, atol=1e-9)


def test_tensorboard_has_curves_figures_and_hyperparameters(results):
    folder = results / "report" / "tensorboard"
    means = EventAccumulator(str(folder / "means" / TINY)).Reload()
    rows = pd.read_csv(results / "report" / "evaluations.csv")
    of = rows[(rows.architecture == TINY) & (rows.measured == "evaluation")]
    shown = {e.step: e.value for e in means.Scalars("fruitbot/held_out_levels/return")}
    assert shown == pytest.approx(of.groupby("frames")["return"].mean().to_dict())
    report = EventAccumulator(str(folder / "report")).Reload()
    assert set(report.Tags()["images"]) == {"curves", "returns", "normalised", "differences"}
    run = EventAccumulator(str(folder / "runs" / "fruitbot" / TINY / "seed0")).Reload()
    assert "final/held_out_normalised" in run.Tags()["scalars"]
    assert "_hparams_/session_start_info" in run.summary_metadata


def test_the_report_is_made_again_without_training(results, compare, capsys):
    before = (results / "report" / "summary.csv").read_bytes()
    compare(results, "--report-only", "--device=cpu")
    said = capsys.readouterr().out
    assert "1 game, 2 architectures, 2 seeds: 4 of 4 runs finished (64 frames)" in said
    assert f"learning_rate: {TINY} 0.0005, {TINY},learning_rate=1e-3 0.001" in said
    assert (results / "report" / "summary.csv").read_bytes() == before


def test_what_a_record_says_of_a_run_stands(results, compare, tmp_path, capsys, ends):
    """Also where it is no option, and where a preset is gone or has changed."""
    out = tmp_path / "runs"
    shutil.copytree(results, out)
    file = out / "fruitbot" / TINY / "seed1" / "options.json"
    record = json.loads(file.read_text())
    record["options"]["preset"] = "gone"
    record["options"]["hyperparameters"] |= {"value_coefficient": 0.5, "clip_range_vf": 0.2}
    file.write_text(json.dumps(record))
    compare(out, "--report-only", "--device=cpu")
    said = capsys.readouterr().out
    assert "3 of 4 runs finished" in said
    assert (
        f"made differently: fruitbot {TINY} seed 1 "
        "(clip_range_vf is 0.2, not None; value_coefficient is 0.5, not 0.25)"
    ) in said
    matrix = ("--games=fruitbot", f"--architectures={TINY}", "--seeds=1")
    said = ends(2, compare, out, *matrix, "--no-ray", *SHARED)
    assert "run: clip_range_vf was 0.2, is None; value_coef" in said


def report_of(compare, out, capsys):
    """Return the text and the tables of a new report on what is in a folder."""
    compare(out, "--report-only", "--device=cpu")
    tables = {file.stem: pd.read_csv(file) for file in (out / "report").glob("*.csv")}
    return capsys.readouterr().out, tables


def test_runs_that_are_missing_or_of_other_code_are_named_and_left_out(
    results, compare, tmp_path, capsys
):
    out, other = tmp_path / "runs", f"{TINY},learning_rate=1e-3"
    shutil.copytree(results, out)
    shutil.rmtree(out / "fruitbot" / TINY / "seed1")
    file = out / "fruitbot" / other / "seed1" / "options.json"
    record = json.loads(file.read_text())
    record["versions"]["rlbilinear"] = "0.0.1"
    file.write_text(json.dumps(record))
    said, tables = report_of(compare, out, capsys)
    assert "1 game, 2 architectures, 2 seeds: 2 of 4 runs finished (64 frames)" in said
    assert f"\n  missing: fruitbot {TINY} seed 1\n" in said
    assert f"made differently: fruitbot {other} seed 1 (version of rlbilinear is '0.0.1'" in said
    assert "leave these runs out" in said
    states = tables["runs"].set_index(["architecture", "seed"])["state"].to_dict()
    assert states == {
        (TINY, 0): "finished",
        (other, 0): "finished",
        (TINY, 1): "missing",
        (other, 1): "made differently",
    }
    assert set(tables["evaluations"]["seed"]) == {0}
    assert (tables["summary"]["seeds"] == 1).all() and (tables["differences"]["seeds"] == 1).all()
    before = pd.read_csv(results / "report" / "evaluations.csv")
    kept = before[before["seed"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(tables["evaluations"].reset_index(drop=True), kept)


def test_short_runs_are_named_and_in_no_mean(results, compare, tmp_path, capsys):
    out = tmp_path / "runs"
    shutil.copytree(results, out)
    short = Run(out / "fruitbot" / TINY / "seed1")
    train(replace(short.options(), frames=32, progress=False), overwrite=True)
    said, tables = report_of(compare, out, capsys)
    assert f"short: fruitbot {TINY} seed 1 (32 of 64 frames)" in said
    assert tables["summary"].set_index("architecture")["seeds"].to_dict()[TINY] == 1
    means = EventAccumulator(str(out / "report" / "tensorboard" / "means" / TINY)).Reload()
    rows = tables["evaluations"]
    rows = rows[(rows.architecture == TINY) & (rows.measured == "evaluation")]
    finished = rows[rows.seed == 0].set_index("frames")["return"].to_dict()
    assert set(rows.seed) == {0, 1} and 64 in finished
    shown = {e.step: e.value for e in means.Scalars("fruitbot/held_out_levels/return")}
    assert shown == pytest.approx(finished)


def test_of_two_ways_to_make_runs_the_more_frequent_counts(results, tmp_path):
    from rlbilinear.agents.comparison.alike import made_differently
    from rlbilinear.agents.comparison.matrix import Entry

    entries = []
    for seed, rate in enumerate((1e-4, 5e-4, 5e-4)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        record = json.loads((results / "fruitbot" / TINY / "seed0" / "options.json").read_text())
        record["options"] |= {"seed": seed}
        record["options"]["hyperparameters"] |= {"learning_rate": rate}
        (folder / "options.json").write_text(json.dumps(record))
        entries.append(Entry("fruitbot", TINY, seed, Run(folder).options()))
    assert made_differently(entries) == {entries[0]: "learning_rate is 0.0001, not 0.0005"}
    assert made_differently(entries[:2]) == {entries[1]: "learning_rate is 0.0005, not 0.0001"}
    assert made_differently(entries[1:]) == {}


def test_runs_of_other_code_are_left_out_and_runs_that_do_not_say_are_kept(
    results, compare, tmp_path, capsys
):
    """Code is told apart by its digest, also where all of one version."""
    out, other = tmp_path / "runs", f"{TINY},learning_rate=1e-3"
    shutil.copytree(results, out)
    digests = set()
    for file in out.glob("*/*/seed*/options.json"):
        digests.add(tuple(json.loads(file.read_text())["code"]))
    ((code,),) = digests
    resumed_by_other_code = out / "fruitbot" / other / "seed1" / "options.json"
    record = json.loads(resumed_by_other_code.read_text())
    record["code"].append("0123456789abcdef" * 4)
    resumed_by_other_code.write_text(json.dumps(record))
    unknown = out / "fruitbot" / TINY / "seed0" / "options.json"
    record = json.loads(unknown.read_text())
    del record["code"]
    unknown.write_text(json.dumps(record))
    said, tables = report_of(compare, out, capsys)
    assert "3 of 4 runs finished" in said
    assert (
        f"made differently: fruitbot {other} seed 1 "
        f"(code is ['{code[:12]}', '0123456789ab'], not ['{code[:12]}'])"
    ) in said
    assert f"code: {TINY} None and ['{code[:12]}'], {other} ['{code[:12]}']" in said
    assert tables["summary"].set_index("architecture")["seeds"].to_dict() == {TINY: 2, other: 1}


def test_a_report_is_of_the_runs_asked_for(results):
    from rlbilinear.commands.compare import CompareOptions, chosen

    def places(**axes):
        runs = chosen(CompareOptions(results, report_only=True, **axes))
        return [(run.architecture, run.seed) for run in runs]

    other = f"{TINY},learning_rate=1e-3"
    assert places() == [(TINY, 0), (TINY, 1), (other, 0), (other, 1)]
    assert places(seeds=(1,)) == [(TINY, 1), (other, 1)]
    assert places(architectures=(other, TINY), seeds=(0,)) == [(other, 0), (TINY, 0)]
    with pytest.raises(ValueError, match=r"seeds: .* has no runs of 7; it has 0, 1"):
        places(seeds=(0, 7))


def test_another_run_is_refused_before_anything_starts(results, compare, ends):
    matrix = ("--games", "coinrun", "fruitbot", f"--architectures={TINY}", "--seeds=0")
    said = ends(2, compare, results, *matrix, *SHARED, "--epochs=2")
    assert "nothing was started" in said and "epochs was 1, is 2" in said
    assert not (results / "coinrun").exists()


@pytest.mark.parametrize("how", ["--no-ray", "--ray"])
def test_a_run_that_fails_does_not_lose_the_others(results, compare, tmp_path, how, ends):
    if how == "--ray":
        pytest.importorskip("ray", reason="Ray is an optional extra")
    out = tmp_path / "runs"
    broken = out / "fruitbot" / TINY / "seed0"
    broken.parent.mkdir(parents=True)
    subprocess.run(["cp", "-r", results / "fruitbot" / TINY / "seed0", broken], check=True)
    subprocess.run(["rm", "-r", broken / "agent"], check=True)
    (state,) = broken.glob("checkpoints/*/training.safetensors")
    state.write_bytes(state.read_bytes()[:-1])
    matrix = ("--games=fruitbot", f"--architectures={TINY}", "--seeds", "0", "1", how)
    said = ends(1, compare, out, *matrix, *SHARED)
    assert "seed 0: " in said and "truncated" in said
    assert "1 of 2 runs failed; the same command retries them" in said
    assert "1 of 2 runs finished" in said
    assert (out / "fruitbot" / TINY / "seed1" / "agent").is_dir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--games=pong",), "unknown game 'pong'; choose one of bigfish"),
        (("--architectures=vgg",), "unknown architecture 'vgg'; choose from impala"),
        (("--architectures=impala,depth=3",), "impala has no option depth; choose from channels"),
        (("--architectures=impala,pool=",), "got 'pool='"),
        (
            ("--architectures", "impala", "impala"),
            "architectures: expected one or more distinct",
        ),
        (("--seeds", "1", "1"), "seeds: expected one or more distinct values"),
        (("--seeds=-1",), "seeds are 0 or more"),
        (("--mode=memory", "--games=maze"), "modes easy and hard"),
        (("--epochs=0",), "epochs must be positive, got 0"),
        (("--preset=fast",), "unknown preset 'fast'; choose from published"),
        (("--final-levels=1",), "final_levels must be 2 or more"),
        (("--margin=0",), "margin must be positive"),
        (("--cpus-per-run=0",), "cpus_per_run must be 1 or more"),
        (("--gpus-per-run=-1",), "gpus_per_run must be 0 or more"),
        (("--no-ray", "--gpus-per-run=1"), "--gpus-per-run is for Ray"),
        (("--no-ray", "--address=auto"), "--address is for Ray"),
        (("--report-only",), "has no runs"),
    ],
)
def test_bad_input_is_named(compare, tmp_path, options, message, ends):
    matrix = ("--games=fruitbot", "--architectures=impala", "--seeds=0")
    left = [o for o in matrix if o.split("=")[0] not in [given.split("=")[0] for given in options]]
    left = [] if "--report-only" in options else left
    assert message in ends(2, compare, tmp_path / "runs", *left, *options)
    assert not (tmp_path / "runs").exists()


def test_ray_chooses_the_gpu_of_a_run():
    from rlbilinear.agents.comparison import spread

    with pytest.raises(ValueError, match="device cuda:1: Ray chooses the GPU of each run"):
        spread.resources("cuda:1", cpus=None, gpus=None)


def test_ray_gives_the_same_weights(results, compare, tmp_path, capsys):
    pytest.importorskip("ray", reason="Ray is an optional extra")
    out = tmp_path / "runs"
    compare(out, "--games=fruitbot", f"--architectures={TINY}", "--seeds", "0", "1", *SHARED)
    assert "Ray" in capsys.readouterr().out
    for seed in ("seed0", "seed1"):
        ours, theirs = (
            (where / "fruitbot" / TINY / seed / "agent" / "model.safetensors").read_bytes()
            for where in (out, results)
        )
        assert ours == theirs


# Tables and words, of scores that are made up


def collected(returns, levels=40):
    """Pretend that runs of A and B in games had these final returns on held-out levels."""
    from rlbilinear.agents.comparison.tables import Collected

    rows, status, played = [], [], []
    random = np.random.default_rng(0)
    for (game, architecture), values in returns.items():
        low, high = score_range(game)
        for seed, value in enumerate(values):
            key = {"game": game, "architecture": architecture, "seed": seed}
            status.append(
                {
                    **key,
                    "state": "finished",
                    "why": "",
                    "frames": 64,
                    "hours": 1.0,
                    "parameters": 100,
                }
            )
            scores = {"training": value + 1, "held_out": value, "gap": 1.0}
            for measure, score in scores.items():
                shift = 0 if measure == "gap" else low
                normal = (score - shift) / (high - low)
                rows.append({**key, "measure": measure, "return": score, "normalised": normal})
            noise = random.normal(size=levels)
            for name in ("training", "held_out"):
                for level, extra in enumerate(noise - noise.mean()):
                    entry = {"levels": name, "mode": "easy", "level": level, "unplayable": False}
                    played.append({**key, **entry, "return": scores[name] + extra})
    entry = SimpleNamespace(
        architecture="A",
        options=TrainOptions(Path("run"), levels=200),
        run=SimpleNamespace(record=dict, identity=dict),
    )
    evaluations = pd.DataFrame(columns=["game", "measured", "frames", "architecture", "return"])
    return Collected(
        [entry], 64, pd.DataFrame(status), evaluations, pd.DataFrame(rows), pd.DataFrame(played)
    )


def held_out(table, game):
    return table[(table["game"] == game) & (table["measure"] == "held_out")].iloc[0]


def test_differences_are_paired_by_seed():
    from rlbilinear.agents.comparison.summary import paired_differences

    a, b = np.array([7.0, 8.0, 9.5]), np.array([6.0, 7.5, 8.0])
    found = collected({("maze", "A"): a, ("maze", "B"): b})
    row = held_out(paired_differences(found, margin=0.1), "maze")
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (row["one"], row["other"], row["seeds"]) == ("A", "B", 3)
    assert row["return_difference"] == pytest.approx((a - b).mean())
    assert row["return_difference_low"] == pytest.approx(expected.low)
    assert row["difference_low"] == pytest.approx(expected.low / 5)  # maze goes from 5 to 10
    assert row["difference_high"] == pytest.approx(expected.high / 5)
    assert row["of_these_agents"] == pytest.approx((a - b).mean() / 5)
    assert row["of_these_agents_low"] < row["of_these_agents"] < row["of_these_agents_high"]


def test_only_seeds_of_both_are_compared():
    from rlbilinear.agents.comparison.summary import paired_differences, summarise

    found = collected({("maze", "A"): [7.0, 8.0, 100.0], ("maze", "B"): [6.0, 7.5]})
    row = held_out(paired_differences(found, margin=0.1), "maze")
    assert row["seeds"] == 2 and row["return_difference"] == pytest.approx(0.75)
    assert summarise(found)["seeds"].tolist() == [3, 2]


def test_games_are_averaged_on_one_scale():
    from rlbilinear.agents.comparison.summary import aggregate, paired_differences

    found = collected(
        {
            ("maze", "A"): [10.0, 9.0],
            ("starpilot", "A"): [64.0, 60.0],
            ("maze", "B"): [5.0, 6.0],
            ("starpilot", "B"): [2.5, 3.0],
        }
    )
    row = held_out(paired_differences(found, margin=0.1), "all games")
    maze, starpilot = (1 + 0.6) / 2, (1 + (60 - 3) / 61.5) / 2
    assert row["difference"] == pytest.approx((maze + starpilot) / 2)
    assert np.isnan(row["return_difference"]) and np.isnan(row["of_these_agents"])
    assert row["iqm_difference_low"] <= row["iqm_difference"] <= row["iqm_difference_high"]
    table = aggregate(found).set_index(["architecture", "measure"])
    a = table.loc[("A", "held_out")]
    assert a["mean"] == pytest.approx(np.mean([1, 0.8, 1, (60 - 2.5) / 61.5]))
    assert a["iqm"] == pytest.approx(np.mean([1, (60 - 2.5) / 61.5]))
    assert (a["games"], a["seeds"]) == (2, 2)


@pytest.mark.parametrize(
    ("interval", "seeds", "said"),
    [
        ((0.2, 0.1, 0.3), 3, "A is higher"),
        ((0.05, 0.01, 0.09), 3, "A is higher, by less than 0.1"),
        ((-0.2, -0.3, -0.1), 3, "B is higher"),
        ((0.0, -0.09, 0.09), 3, "comparable (within 0.1)"),
        ((0.0, -0.2, 0.09), 3, "undecided"),
        ((0.0, np.nan, np.nan), 2, "undecided: seeds show no spread"),
        ((0.3, np.nan, np.nan), 1, "one seed says nothing of the architectures"),
    ],
)
def test_verdicts(interval, seeds, said):
    from rlbilinear.agents.comparison.summary import verdict
    from rlbilinear.statistics import Interval

    assert verdict(Interval(*interval), seeds, 0.1, "A", "B") == said


def words(found, margin=0.1):
    from rlbilinear.agents.comparison.summary import aggregate, paired_differences, summarise
    from rlbilinear.agents.comparison.text import report

    pairs = paired_differences(found, margin=margin)
    return report(found, summarise(found), aggregate(found), pairs, margin)


def test_the_words_say_what_seeds_leave_open():
    said = words(collected({("maze", "A"): [7.0, 8.0], ("maze", "B"): [6.5, 6.0]}))
    low, high = stats.t.interval(0.95, 1, loc=0.25, scale=0.15)
    assert (
        f"Whether A and B differ, and which is better, in maze ({low:+.2g} to {high:+.2g})" in said
    )
    assert "this many seeds to show it: maze (20). Measured on 2 seeds" in said
    assert "0.45 to 32 times" in said
    assert "differ where these very agents do, in maze ([+0." in said
    one = words(collected({("maze", "A"): [7.0], ("maze", "B"): [6.5]}))
    assert "Anything of A and B in maze: one seed each compares two agents" in one
    assert "[" not in one.split("maze  A")[1].splitlines()[0]
    sure = words(collected({("maze", "A"): [9.0, 9.1, 9.05], ("maze", "B"): [6.0, 6.1, 6.03]}))
    assert "A is higher" in sure and "Whether A and B differ" not in sure


def test_unplayable_levels_are_counted_in_words_and_can_be_left_out():
    from rlbilinear.agents.comparison.summary import paired_differences

    found = collected({("jumper", "A"): [5.0, 6.0], ("jumper", "B"): [4.0, 4.5]})
    assert "Unplayable" not in words(found)
    found.levels.loc[found.levels["level"] < 3, "unplayable"] = True
    held_out_only = (found.levels["levels"] == "training") & (found.levels["level"] == 2)
    found.levels.loc[held_out_only, "unplayable"] = False
    said = words(found)
    assert "2 of 40 training levels of jumper, 3 of 40 held-out levels of jumper: over at" in said
    assert "They count like others." in said and "40 held-out levels" in said
    without = found._replace(skip_unplayable=True)
    assert "They are left out." in words(without) and "37 held-out levels" in words(without)
    assert len(without.counted) == len(found.levels) - 2 * 2 * (2 + 3)
    played = without.counted[without.counted["levels"] == "held_out"]
    means = played.groupby("architecture")["return"].mean()
    row = held_out(paired_differences(without, margin=0.1), "jumper")
    assert row["of_these_agents"] == pytest.approx((means["A"] - means["B"]) / 7)  # from 3 to 10


def test_figures_are_drawn_of_many_seeds_and_games(tmp_path):
    from rlbilinear.agents.comparison import figures
    from rlbilinear.agents.comparison.summary import aggregate, paired_differences

    random = np.random.default_rng(1)
    found = collected(
        {(game, name): random.normal(7, 1, 4) for game in ("maze", "coinrun") for name in "ABC"}
    )
    pairs = paired_differences(found, margin=0.1)
    assert len(pairs) == 3 * 3 * 3  # pairs, measures, two games and both
    drawn = {
        "returns": figures.returns(found),
        "normalised": figures.normalised(found, aggregate(found)),
        "differences": figures.differences(found, pairs, 0.1),
    }
    for name, figure in drawn.items():
        figure.savefig(tmp_path / f"{name}.png", dpi=50)
        assert imread(tmp_path / f"{name}.png")[..., 0].std() > 0.05
