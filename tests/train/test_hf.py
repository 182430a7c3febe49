"""Export and import: what transformers loads is our model, and what it saved is read; a stranger's folder is refused by name."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPTBigCodeConfig, Starcoder2Config

from stackbuild.errors import InputError, StackbuildError, UsageError
from stackbuild.train import hf_export
from stackbuild.train.hf import Ids, check_vocabulary, export_model, import_model
from stackbuild.train.hf_config import from_hf, to_hf
from stackbuild.train.hf_names import shapes
from stackbuild.train.model import Decoder
from tests.train.worlds import new, pair, row_of_tokens, tiny, tiny_bigcode

CONFIGS = {
    "grouped": tiny(window=8),
    "untied-no-bias": tiny(tied=False, bias=False, activation="gelu", rope_theta=999_999.4420358813),
    "bigcode": tiny_bigcode(residual_dropout=0.1),
    "many-heads": tiny_bigcode(kv_heads=4, tied=False, activation="gelu"),
}


def weights(model: Decoder) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def load(folder: Path) -> Decoder:
    config, found = import_model(folder)
    model = Decoder(config)
    model.load_state_dict(dict(found))
    return model


def logits(model: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(tokens, None, model.mask()))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """Bytes in 64 tokens and two special ones; numbers are cut digit by digit, as GPT-2's tokenizer does not."""
    vocabulary = {chr(code): code - 33 for code in range(33, 95)} | {"<|endoftext|>": 62, "<fim_prefix>": 63, "12": 64}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("1", "2")]))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>", "<fim_prefix>"])
    folder = tmp_path / "tokens"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.mark.parametrize("shard_bytes", [None, 6_000])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_we_export_is_the_same_model_to_transformers_and_back(name, shard_bytes, tmp_path):
    config = CONFIGS[name]
    model, other = pair(config)
    options = {"shard_bytes": shard_bytes} if shard_bytes else {}
    export_model(weights(model), config, None, tmp_path / "out", dtype="float32", ids=Ids(0, 0), **options)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    assert type(loaded) is type(other) and loaded.dtype == torch.float32
    tokens = row_of_tokens(2, 40, 97)
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, other(tokens).logits)
    assert loaded.config.tie_word_embeddings == config.tied
    again = load(tmp_path / "out")
    assert again.config == config and torch.equal(logits(again, tokens), logits(model, tokens))
    assert list(weights(again)) == list(weights(model))
    assert all(torch.equal(weights(again)[key], value) for key, value in weights(model).items())
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert ("model.safetensors" in files) == (shard_bytes is None) == ("model.safetensors.index.json" not in files)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_transformers_saved_is_read_and_the_names_are_its_own(name, tmp_path):
    config = CONFIGS[name]
    model, other = pair(config)
    for folder, size in (("whole", "5GB"), ("sharded", "6KB")):
        other.save_pretrained(tmp_path / folder, max_shard_size=size)
        again = load(tmp_path / folder)
        assert all(torch.equal(weights(again)[key], value) for key, value in weights(model).items())
        assert again.config == config.model_copy(update={"residual_dropout": 0.0})
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    export_model(weights(model), config, None, tmp_path / "ours", dtype="float32", ids=Ids(0, 0))
    ours, theirs = (load_file(tmp_path / folder / "model.safetensors") for folder in ("ours", "whole"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], value) for key, value in theirs.items())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_configuration_has_no_field_that_transformers_does_not_know(name, tmp_path):
    config = CONFIGS[name]
    told = to_hf(config, "bfloat16", 0, 7)
    (tmp_path / "config.json").write_text(json.dumps(told))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = AutoConfig.from_pretrained(tmp_path)
    kind = Starcoder2Config if config.family == "starcoder2" else GPTBigCodeConfig
    assert type(loaded) is kind and vars(loaded).keys() - {"model_type"} == vars(kind()).keys()
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.dtype) == (0, 7, torch.bfloat16)
    assert from_hf(json.loads(json.dumps(loaded.to_dict())), "") == config


def test_version_4_of_transformers_finds_the_base_where_it_looks():
    told = to_hf(CONFIGS["untied-no-bias"], "float32", 0, 0)
    assert told["rope_theta"] == told["rope_parameters"]["rope_theta"] == 999_999.4420358813
    del told["rope_parameters"]
    assert from_hf(told, "").rope_theta == 999_999.4420358813


def test_weights_in_bf16_are_the_default_and_rounded_once(tmp_path):
    model = new(tiny())
    export_model(weights(model), tiny(), None, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert loaded.dtype == torch.bfloat16
    assert all(torch.equal(found, weights(model)[name].bfloat16()) for name, found in import_model(tmp_path / "out")[1])


def test_the_tokenizer_goes_with_the_model_and_cuts_as_its_file_says(tokenizer, tmp_path):
    export_model(weights(new(tiny())), tiny(), tokenizer, tmp_path / "out")
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (tokenizer / "tokenizer.json").read_bytes()
    assert not (tmp_path / "out/manifest.json").exists()
    told = json.loads((tmp_path / "out/config.json").read_text())
    assert (told["bos_token_id"], told["eos_token_id"]) == (62, 62)
    assert json.loads((tmp_path / "out/generation_config.json").read_text()) == {"bos_token_id": 62, "eos_token_id": 62}
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    right = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode("A12<fim_prefix>B").ids
    assert loaded.encode("A12<fim_prefix>B") == right == [32, 16, 17, 63, 33]
    assert loaded.eos_token_id == 62


def test_files_of_a_tokenizer_of_transformers_are_copied_as_they_are(tokenizer, tmp_path):
    (tokenizer / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2TokenizerFast"}')
    export_model(weights(new(tiny())), tiny(), tokenizer, tmp_path / "out")
    assert (tmp_path / "out/tokenizer_config.json").read_text() == '{"tokenizer_class": "GPT2TokenizerFast"}'
    export_model(weights(new(tiny())), tiny(), tokenizer / "tokenizer.json", tmp_path / "two")
    assert (tmp_path / "two/tokenizer.json").exists()


def test_a_vocabulary_may_be_larger_than_the_tokenizer_and_not_smaller(tokenizer, tmp_path):
    check_vocabulary(tiny(), 97)
    check_vocabulary(tiny(), 90)
    with pytest.raises(UsageError, match=r"vocab_size = 97 .* 98 tokens"):
        check_vocabulary(tiny(), 98)
    with pytest.raises(UsageError, match=r"vocab_size = 64 .* 65 tokens .*tokenizer.json"):
        export_model(weights(new(tiny(vocab_size=64))), tiny(vocab_size=64), tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parameters_are_asked_for_one_after_another_and_written_at_once(tmp_path, monkeypatch):
    """Export holds the parts of one tensor: when one is asked for, the tensors before it are in the file."""
    config = CONFIGS["many-heads"]
    model, asked, written = new(config), [], []
    real = hf_export._made

    def made(*given):
        written.append(len(asked))
        return real(*given)

    def give(name):
        asked.append(name)
        return weights(model)[name]

    monkeypatch.setattr(hf_export, "_made", made)
    export_model(give, config, None, tmp_path / "out", dtype="float32")
    assert sorted(asked) == sorted(shapes(config))
    assert max(later - before for before, later in itertools.pairwise(written)) == 3  # q, k, v of a fused one


def test_a_file_ends_before_it_grows_too_large(tmp_path):
    model = new(tiny())
    export_model(weights(model), tiny(), None, tmp_path / "out", dtype="float32", shard_bytes=10_000)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    held = {name: path.name for path in files for name in load_file(path)}
    assert index["weight_map"] == held and files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    sizes = {path: sum(4 * tensor.numel() for tensor in load_file(path).values()) for path in files}
    assert (
        index["metadata"]["total_size"]
        == sum(sizes.values())
        == 4 * sum(value.numel() for value in weights(model).values())
    )
    assert all((8 + int.from_bytes(path.read_bytes()[:8], "little")) % 8 == 0 for path in files)  # numbers are aligned
    assert all(size <= 10_000 or len(load_file(path)) == 1 for path, size in sizes.items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda given: given.pop("layers.1.mlp.up.bias"), "lacks layers.1.mlp.up.bias"),
        (lambda given: given.update({"norm.bias": torch.zeros(3)}), "norm.bias has shape"),
        (lambda given: given.update({"norm.bias": torch.full((32,), torch.nan)}), "norm.bias holds numbers"),
    ],
)
def test_a_model_that_is_not_whole_leaves_nothing_behind(change, told, tmp_path):
    given = weights(new(tiny()))
    change(given)
    with pytest.raises(InputError, match=told):
        export_model(given, tiny(), None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_written_over(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        export_model(weights(new(tiny())), tiny(), None, tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="exists already"):
        export_model(weights(new(tiny())), tiny(), None, tmp_path / "link")


# ---------------------------------------------------------------- a stranger's folder


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A good folder, of one file, to be spoilt."""
    export_model(weights(new(tiny())), tiny(), None, tmp_path / "foreign", dtype="float32")
    return tmp_path / "foreign"


def change_config(folder: Path, **changes) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({key: value for key, value in (told | changes).items() if value != "left out"})
    )


def change_weights(folder: Path, **changes) -> None:
    told = {
        key: changes.get(key.replace(".", "_"), value) for key, value in load_file(folder / "model.safetensors").items()
    }
    told |= changes.get("more", {})
    save_file({key: value for key, value in told.items() if value is not None}, folder / "model.safetensors")


def shard(folder: Path, file: object) -> None:
    """Put an index in the place of the one file."""
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, file)}))


SPOILT = {
    "no config": (lambda folder: (folder / "config.json").unlink(), r"config.json: cannot be read"),
    "not JSON": (lambda folder: (folder / "config.json").write_text("{"), r"is not JSON"),
    "deep JSON": (lambda folder: (folder / "config.json").write_text("[" * 100_000), r"is not JSON"),
    "no object": (lambda folder: (folder / "config.json").write_text("[1]"), r"no JSON object"),
    "other architecture": (lambda folder: change_config(folder, model_type="llama"), r"model_type = 'llama'"),
    "list for a type": (lambda folder: change_config(folder, model_type=["starcoder2"]), r"model_type"),
    "shape left out": (lambda folder: change_config(folder, hidden_size="left out"), r"lacks hidden_size"),
    "shape no number": (lambda folder: change_config(folder, num_hidden_layers="many"), r"layers"),
    "endless layers": (lambda folder: change_config(folder, num_hidden_layers=10**9), r"layers"),
    "activation": (lambda folder: change_config(folder, hidden_act="relu"), r"activation 'relu'"),
    "scaled angles": (lambda folder: change_config(folder, rope_parameters={"rope_type": "yarn"}), r"'yarn'"),
    "part of the angles": (
        lambda folder: change_config(folder, rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}),
        r"rotary",
    ),
    "head_dim": (lambda folder: change_config(folder, head_dim=16), r"head_dim = 16"),
    "quantised": (lambda folder: change_config(folder, quantization_config={"bits": 4}), r"quantization_config"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"neither model.safetensors"),
    "pickles": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        r"pytorch_model.bin.*[Pp]ickles",
    ),
    "torn": (lambda folder: (folder / "model.safetensors").write_bytes(b"\x01" * 40), r"cannot be read as safetensors"),
    "missing": (lambda folder: change_weights(folder, model_norm_bias=None), r"lacks 'model.norm.bias'"),
    "extra": (lambda folder: change_weights(folder, more={"model.extra": torch.ones(1)}), r"holds 'model.extra'"),
    "misshaped": (
        lambda folder: change_weights(folder, model_norm_bias=torch.ones(31)),
        r"model.norm.bias has shape \(31,\)",
    ),
    "integers": (
        lambda folder: change_weights(folder, model_norm_bias=torch.ones(32, dtype=torch.int8)),
        r"is of type I8",
    ),
    "index up": (lambda folder: shard(folder, "../part.safetensors"), r"not a safetensors file of this folder"),
    "index absolute": (
        lambda folder: shard(folder, str(folder / "part.safetensors")),
        r"not a safetensors file of this folder",
    ),
    "index to pickle": (lambda folder: shard(folder, "part.bin"), r"not a safetensors file of this folder"),
    "index no name": (lambda folder: shard(folder, 7), r"not a safetensors file of this folder"),
    "index to nothing": (lambda folder: shard(folder, "other.safetensors"), r"lacks other.safetensors"),
    "index empty": (
        lambda folder: (shard(folder, ""), (folder / "model.safetensors.index.json").write_text("{}")),
        r"has no weight_map",
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_folder_that_cannot_be_imported_is_refused_before_anything_is_read(how, foreign):
    spoil, told = SPOILT[how]
    import_model(foreign)
    spoil(foreign)
    with pytest.raises(StackbuildError, match=told):
        import_model(foreign)


def test_an_index_is_believed_only_where_its_file_agrees(foreign):
    shard(foreign, "part.safetensors")
    import_model(foreign)
    index = foreign / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    save_file({"something": torch.ones(1)}, foreign / "other.safetensors")
    told["weight_map"]["model.norm.bias"] = "other.safetensors"
    index.write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"other.safetensors holds 'model.norm.bias', and it does not"):
        import_model(foreign)


def test_the_head_of_a_tied_model_may_be_there_and_must_be_the_embedding(foreign):
    embedding = load_file(foreign / "model.safetensors")["model.embed_tokens.weight"]
    change_weights(foreign, more={"lm_head.weight": embedding.clone()})
    load(foreign)
    change_weights(foreign, more={"lm_head.weight": embedding + 1})
    with pytest.raises(InputError, match="tie_word_embeddings"):
        load(foreign)


def test_masks_among_old_weights_are_left_out_and_old_fields_read(tmp_path):
    """As in released checkpoints of 2023: buffers, `n_inner` null, activation by its older name."""
    config = CONFIGS["bigcode"].model_copy(update={"ffn": 128})
    model = new(config)
    export_model(weights(model), config, None, tmp_path / "out", dtype="float32")
    change_weights(
        tmp_path / "out",
        more={
            "transformer.bias": torch.ones((8, 8), dtype=torch.bool),
            "transformer.h.0.attn.bias": torch.ones((1, 8, 8), dtype=torch.bool),
            "transformer.h.1.attn.masked_bias": torch.tensor(-1e4),
        },
    )
    change_config(
        tmp_path / "out", n_inner=None, activation_function="gelu_fast", torch_dtype="float32", summary_type="cls_index"
    )
    again = load(tmp_path / "out")
    assert again.config == config
    assert all(torch.equal(weights(again)[key], value) for key, value in weights(model).items())
