"""`rlbilinear language` on a model of a few thousand parameters."""

import json
import sys

import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from rlbilinear.agents.folder import locked
from rlbilinear.commands.language import main
from rlbilinear.language import extra, replacing
from rlbilinear.language.models import load
from rlbilinear.language.sae import SparseAutoencoder

QUIET = ["--no-progress", "--device", "cpu"]
SIZES = ["--vocabulary", "300", "--width", "16", "--layers", "2", "--heads", "2", "--hidden", "24"]


@pytest.fixture(scope="module")
def book(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("text") / "book.txt"
    file.write_text(text)
    return str(file)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, book):
    out = tmp_path_factory.mktemp("runs") / "small"
    main(train(book, out))
    return out


def train(book, out):
    """Return the words of a command that trains four models."""
    runs = f"train --text {book} --out {out} --seeds 2 --steps 12 --context 16 --batch 4"
    return [*runs.split(), "--mlps", "bilinear", "relu", *SIZES, *QUIET]


def ends(code, capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    said = capsys.readouterr()
    assert ended.value.code == code, said.err
    return " ".join((said.out + said.err).replace("│", " ").split())


def test_losses_have_intervals_over_seeds(trained):
    table = pd.read_csv(trained / "losses.csv").set_index("mlp")
    assert list(table["seeds"]) == [2, 2]
    assert (table["low"] < table["held_out_loss"]).all()
    gap = table.loc["bilinear", "held_out_loss"] - table.loc["relu", "held_out_loss"]
    assert table.loc["relu", "bilinear_minus_this"] == pytest.approx(gap)
    curves = pd.read_csv(trained / "curves.csv")
    assert curves["parameters"].nunique() == 1
    assert (trained / "curves.png").stat().st_size > 5000
    assert list(trained.glob("bilinear-1/tensorboard/events*"))


def test_a_run_resumes_as_it_was_begun(trained, book, capsys):
    words = [word if word != "12" else "13" for word in train(book, trained)]
    said = ends(2, capsys, *words, "--resume")
    assert "was begun with --steps 12, not 13; choose another folder" in said


def test_two_do_not_train_in_one_folder(trained, book, capsys):
    with locked(trained):
        said = ends(1, capsys, *train(book, trained), "--resume")
    assert f"{trained} is in use by process" in said


def test_finished_runs_resume_to_the_same_losses(trained, book):
    before = (trained / "losses.csv").read_text()
    main([*train(book, trained), "--resume"])
    assert (trained / "losses.csv").read_text() == before


def test_circuits_are_read_and_tested(trained, book, tmp_path, capsys):
    out = tmp_path / "read"
    command = f"read --model {trained / 'bilinear-0'} --text {book} --out {out} --layer 1"
    command += " --tokens e --context 16 --windows 60 --train-windows 100 --features 24"
    command += " --active 3 --sae-steps 30 --studied 5 --circuits 1 --places 8 --controls 5"
    main([*command.split(), *QUIET])
    assert "logit of 'e' (layer 1): not validated" in capsys.readouterr().out
    tables = {path.stem for path in out.glob("*.csv")}
    assert tables == {"correlations", "gates", "sparsity", "truncation", "validation"}
    assert {path.stem for path in out.glob("*.png")} == {"correlations", "truncation"}
    record = json.loads((out / "language.json").read_text())
    assert record["circuits"][0].startswith("logit of 'e'")
    assert record["options"]["out"] == "read"
    again = command.replace(str(out), str(tmp_path / "again"))
    saes = f"--input-sae {out / 'inputs.safetensors'} --output-sae {out / 'outputs.safetensors'}"
    main([*again.split(), *saes.split(), *QUIET, "--sae-steps", "1", "--features", "7"])
    for table in ("correlations", "gates", "sparsity"):
        found = (tmp_path / "again" / f"{table}.csv").read_text()
        assert found == (out / f"{table}.csv").read_text()
    record = json.loads((tmp_path / "again" / "language.json").read_text())
    assert record["options"]["input_sae"] == "inputs.safetensors"


def test_a_model_is_converted_and_loads_again(folder, book, tmp_path):
    out = tmp_path / "converted"
    command = f"convert --model {folder} --text {book} --out {out} --context 16 --counts 2"
    command += " --curve 1 3 --statistics-windows 20 --held-out-windows 8 --regression-steps 6"
    main([*command.split(), "--steps", "6", "--batch", "2", *QUIET])
    alone = pd.read_csv(out / "alone.csv")
    methods = {"zero", "mean", "linear", "quadratic", "least squares", "regressed"}
    assert set(alone["method"]) == methods
    assert len(alone) == 3 * 6
    explained = pd.read_csv(out / "explained.csv").pivot(index="layer", columns="method")
    shares = explained["explained"]
    assert set(shares) == methods and len(shares) == 3
    assert (shares["mean"] < shares["linear"]).all()
    assert explained["largest_tokens"].stack().between(0.05, 1).all()
    together = pd.read_csv(out / "together.csv")
    assert set(together["layers"]) == {0, 1, 2, 3}
    assert together.loc[together["method"] == "original", "kl"].item() == 0
    order = json.loads((out / "order.json").read_text())
    loaded = load(out / "model2").model
    assert {*loaded.config.bilinear_sizes} == {str(index) for index in order[:2]}
    with torch.no_grad():
        assert loaded(torch.arange(6)[None]).logits.isfinite().all()


@pytest.mark.parametrize("done", [0, 1, 12, 21])
def test_a_stopped_conversion_scores_nothing_twice(done, folder, book, tmp_path, monkeypatch):
    """Stopped after so many scores: the original's, 18 of layers alone, 12 of layers together."""
    command = f"convert --model {folder} --text {book} --context 16 --counts 2 --curve 1 3"
    command += " --statistics-windows 20 --held-out-windows 8 --regression-steps 6 --steps 6"
    words = [*command.split(), "--batch", "2", "--no-save-model", *QUIET, "--out"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    score_replaced, scored = replacing.score_replaced, []

    def counted(*arguments):
        if len(scored) == limit:
            raise KeyboardInterrupt
        scored.append(arguments)
        return score_replaced(*arguments)

    monkeypatch.setattr(replacing, "score_replaced", counted)
    limit = None
    main([*words, str(whole)])
    assert len(scored) == 1 + 18 + 12
    scored, limit = [], done
    with pytest.raises(SystemExit):
        main([*words, str(stopped)])
    scored, limit = [], None
    main([*words, str(stopped), "--resume"])
    assert len(scored) == 1 + 18 + 12 - max(0, done - 1)
    for table in ("alone.csv", "together.csv", "explained.csv", "regression.csv"):
        ours, theirs = (pd.read_csv(out / table) for out in (stopped, whole))
        assert_frame_equal(ours, theirs, rtol=1e-3, atol=1e-5)


def test_models_write_texts(folder, tmp_path, capsys):
    out = tmp_path / "texts.txt"
    command = ["write", "--model", folder, "--out", out, "--kind", "general", "--count", "3"]
    main([*map(str, command), "--tokens", "5", "--batch", "2", "--device", "cpu"])
    assert out.read_text().count("<|endoftext|>") == 3
    assert "exists" in ends(2, capsys, *command)


def test_bad_input_is_refused_before_long_work(trained, folder, book, tmp_path, capsys):
    out = ["--out", tmp_path / "new"]
    convert = ["convert", "--text", book, *out]
    assert "neither a folder" in ends(2, capsys, *convert, "--model", "./nothing")
    counts = [*convert, "--model", folder, "--context", "16", "--counts", "4", *QUIET]
    assert "the model has 3 layers, got [4]" in ends(2, capsys, *counts)
    assert "no device 'tpu'" in ends(2, capsys, *convert, "--model", folder, "--device", "tpu")
    read = ["read", "--text", book, *out, "--context", "16", *QUIET]
    assert "LlamaMLP, not bilinear" in ends(2, capsys, *read, "--model", folder)
    places = [*read, "--model", trained / "bilinear-0", "--windows", "5"]
    assert "64 are more than 5 windows" in ends(2, capsys, *places)
    several = [*read, "--model", trained / "bilinear-0", "--tokens", "xyz"]
    assert "'xyz' is 3 tokens" in ends(2, capsys, *several)
    narrow = tmp_path / "narrow.safetensors"
    SparseAutoencoder(5, 8, 2).save(narrow)
    sae = [*read, "--model", trained / "bilinear-0", "--input-sae", narrow, "--places", "4"]
    assert "inputs: the autoencoder is of width 5, layer 0 of 16" in ends(2, capsys, *sae)
    assert not (tmp_path / "new").exists()


def test_bfloat16_changes_the_rounding_and_little_else(trained, book, tmp_path):
    main([*train(book, tmp_path / "low"), "--precision", "bfloat16", "--seeds", "1"])
    low = pd.read_csv(tmp_path / "low" / "curves.csv")["held_out_loss"].dropna()
    exact = pd.read_csv(trained / "curves.csv").query("seed == 0")["held_out_loss"].dropna()
    assert low.to_numpy() == pytest.approx(exact.to_numpy(), abs=0.05)
    assert (low.to_numpy() != exact.to_numpy()).any()


def test_without_the_extra_one_command_is_named(monkeypatch, capsys, book, tmp_path):
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    for name in [name for name in sys.modules if name.startswith("rlbilinear.commands.language_")]:
        monkeypatch.delitem(sys.modules, name)
    said = ends(1, capsys, "train", "--text", book, "--out", tmp_path / "new")
    assert 'pip install "rlbilinear[language]"' in said
