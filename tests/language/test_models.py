import json
import subprocess
import sys

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rlbilinear.language import extra
from rlbilinear.language.models import gated_layer, layers, load, mlps


def test_models_load_from_a_folder_in_either_precision(folder, llama, batches):
    loaded = load(folder)
    with torch.no_grad():
        assert torch.equal(loaded.model(batches[0]).logits, llama(batches[0]).logits)
    assert load(folder, dtype="bfloat16").model.dtype == torch.bfloat16


def test_gated_layers_are_the_models_own_weights(llama):
    mlp = mlps(llama)[1]
    layer = gated_layer(mlp)
    assert layer.gate.weight is mlp.gate_proj.weight
    assert layer.value.weight is mlp.up_proj.weight
    assert layer.down.weight is mlp.down_proj.weight
    x = torch.randn(5, 16)
    torch.testing.assert_close(layer(x), mlp(x))


def test_models_without_gated_mlps_are_refused(tokenizer, tmp_path):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=8, n_layer=1, n_head=2))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="GPT2LMHeadModel with transformer, lm_head"):
        load(tmp_path)


def test_an_mlp_of_another_kind_is_named(llama):
    layers(llama)[2].mlp = torch.nn.Sequential(torch.nn.Linear(16, 16))
    with pytest.raises(ValueError, match="layer 2 has no gated MLP"):
        mlps(llama)


def test_missing_shards_are_named(llama, tokenizer, tmp_path):
    llama.save_pretrained(tmp_path, max_shard_size="20KB")
    tokenizer.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shard = sorted(set(index["weight_map"].values()))[1]
    (tmp_path / shard).unlink()
    with pytest.raises(ValueError, match=f"lacks 1 of .* shards: {shard}"):
        load(tmp_path)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(folder, tokenizer):
    import copy

    larger = copy.deepcopy(tokenizer)
    larger.add_tokens(["<more>", "<and more>"])
    larger.save_pretrained(folder)
    with pytest.raises(ValueError, match="302 tokens, the model embeds 300"):
        load(folder)


@pytest.mark.parametrize("name", ["no/such/folder", "./nothing", "nothing"])
def test_what_is_no_model_is_refused(name):
    with pytest.raises(ValueError, match=r"neither a folder, a \.gguf file"):
        load(name)


def test_folders_without_a_model_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json and 0 \.gguf files"):
        load(tmp_path)


def test_files_that_are_no_gguf_are_refused(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"not a model" * 100)
    with pytest.raises(ValueError, match="is not a GGUF file"):
        load(tmp_path / "m.gguf")


def test_quantised_types_that_are_not_read_are_named(tmp_path):
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    kind = gguf.GGMLQuantizationType.IQ2_XXS
    writer.add_tensor("w", np.zeros((1, 66), np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="quantised as IQ2_XXS; these are read: F32"):
        load(tmp_path)


def test_unknown_types_of_numbers_are_refused(folder):
    with pytest.raises(ValueError, match="float32, bfloat16, float64"):
        load(folder, dtype="int8")


def test_without_the_extra_one_command_is_named(monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "gguf" else object())
    with pytest.raises(ImportError, match=r'need gguf.*pip install "rlbilinear\[language\]"'):
        extra.require()


def test_the_core_does_not_import_the_extra():
    code = (
        "import sys, rlbilinear, rlbilinear.language, rlbilinear.commands.main, "
        "rlbilinear.commands.language; "
        "print([name for name in ('transformers', 'gguf', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
