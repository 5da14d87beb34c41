"""What is wrong with a foreign checkpoint is said by name, before weights are read."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.convert import tensors as stored
from unidiff.convert.loading import open_foreign
from unidiff.convert.writing import convert_checkpoint, export_checkpoint

from .published import TABLE, Published, write_json
from .published_bert import ROBERTA
from .published_showo import SHOWOS
from .published_soft import DREAM_VL, LLADA_V
from .published_unidisc import UNIDISC

SDAR = next(one for one in TABLE if one.name == "sdar")
LLADA = next(one for one in TABLE if one.name == "llada")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole checkpoint; reading any of its weights fails the test."""
    written = SDAR.write(tmp_path / "foreign", SDAR.model(), 2)
    monkeypatch.setattr(stored, "_read_bytes", lambda *given: pytest.fail("a weight was read"))
    return written


def change(path: Path, **fields: object) -> None:
    write_json(path, {**json.loads(path.read_text()), **fields})


def refused(folder: Path, words: str, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind, match=words):
        UniDiffForBlockDiffusion.from_pretrained(folder)


def test_an_unknown_family_is_named_with_what_there_is(folder: Path) -> None:
    change(folder / "config.json", model_type="mamba")
    refused(folder, r"model_type 'mamba'; what can be loaded is .*'llada'")


def test_a_config_without_a_type_is_named_with_what_was_looked_for(folder: Path) -> None:
    write_json(folder / "config.json", {"hidden_size": 64, "vocab_size": 320})
    for load in (UniDiffForBlockDiffusion.from_pretrained, UniDiffProcessor.from_pretrained):
        with pytest.raises(ValueError, match=r"config\.json has no model_type .* 'mask_index'"):
            load(folder)


def test_fields_that_are_not_there_are_named(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    del values["num_attention_heads"]
    write_json(folder / "config.json", values)
    refused(folder, "lacks 'num_attention_heads' in its config")


def test_fields_that_contradict_each_other_are_named_with_the_folder(folder: Path) -> None:
    change(folder / "config.json", num_attention_heads=3)
    refused(folder, "config.json of .* contradicts itself")


def test_other_formats_of_the_weights_are_not_kept(tmp_path: Path) -> None:
    folder = SDAR.write(tmp_path / "foreign", SDAR.model())
    for name in ("pytorch_model.bin", "model.gguf", "notes.txt"):
        (folder / name).write_bytes(b"large")
    kept = convert_checkpoint(folder, tmp_path / "native") / "foreign"
    assert (kept / "notes.txt").is_file()
    assert not [*kept.glob("*.bin"), *kept.glob("*.gguf"), *kept.glob("*.safetensors*")]


def test_a_padding_of_minus_one_is_none(folder: Path) -> None:
    change(folder / "config.json", pad_token_id=-1)
    assert open_foreign(folder).config.pad_token_id != -1


def test_a_mask_outside_the_rows_is_named(folder: Path) -> None:
    change(folder / "config.json", mask_token_id=5000)
    refused(folder, "the mask id 5000 lies outside the 320 rows")


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, r"model-00002-of-00002\.safetensors is missing", FileNotFoundError)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_shard_cut_short_is_named(folder: Path, share: float) -> None:
    path = folder / "model-00001-of-00002.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(folder, r"model-00001-of-00002\.safetensors")


def test_a_tensor_that_the_index_places_elsewhere_is_named(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    places = json.loads(path.read_text())["weight_map"]
    places["model.norm.weight"] = next(
        one for one in set(places.values()) if one != places["model.norm.weight"]
    )
    change(path, weight_map=places)
    refused(folder, "places 'model.norm.weight' in")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_hidden_layers": 3}, r"model\.layers\.2\..* missing, nothing not expected"),
        ({"num_hidden_layers": 1}, r"nothing missing, model\.layers\.1\..* not expected"),
        (
            {"intermediate_size": 8},
            r"mlp\.\w+_proj\.weight has the shape \(\d+, \d+\), and by config",
        ),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'; what can be loaded is 'silu'"),
        ({"use_sliding_window": True}, "use_sliding_window = True"),
    ],
)
def test_weights_and_config_that_differ_are_named(
    folder: Path, fields: dict[str, object], words: str
) -> None:
    change(folder / "config.json", **fields)
    refused(folder, words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"block_type": "sequential"}, "block_type = 'sequential'"),
        ({"activation_type": "swiglu"}, "activation_type = 'swiglu'"),
        ({"attention_layer_norm": True}, "attention_layer_norm = True"),
        ({"rope": False}, "rope = False"),
        ({"block_group_size": 4}, "groups its blocks by 4"),
        ({"scale_logits": True}, "scale_logits = True"),
    ],
)
def test_maths_that_the_model_lacks_is_named(
    tmp_path: Path, fields: dict[str, object], words: str
) -> None:
    folder = LLADA.write(tmp_path / "foreign", LLADA.model())
    change(folder / "config.json", **fields)
    refused(folder, words)


_TOWER = DREAM_VL.config["vision_config"]


@pytest.mark.parametrize(
    ("published", "cases"),
    [
        (
            ROBERTA,
            {
                "TypeError": {"pad_token_id": None},
                "ZeroDivisionError": {"num_attention_heads": 0},
                "RuntimeError": {"hidden_size": -4},
                "between instances": {"eos_token_id": "end"},
            },
        ),
        (UNIDISC, {"ZeroDivisionError": {"n_heads": 0}, "TypeError": {"img_length": "9"}}),
        (SHOWOS[0], {"TypeError": {"num_vq_tokens": "9"}}),
        (
            LLADA_V,
            {"TypeError": {"mm_projector_type": None}, "malformed": {"image_grid_pinpoints": "a"}},
        ),
        (
            DREAM_VL,
            {
                "TypeError": {"mrope_section": None},
                "AttributeError": {"vision_config": [1]},
                "KeyError: 'foo'": {"vision_config": {**_TOWER, "hidden_act": "foo"}},
                "StrictDataclass": {"vision_config": {**_TOWER, "hidden_act": None}},
                "32 .* 5 heads": {"vision_config": {**_TOWER, "num_heads": 5}},
            },
        ),
    ],
    ids=lambda one: one.name if isinstance(one, Published) else "",
)
def test_a_value_of_a_wrong_type_or_size_is_told_of_with_file_and_family(
    published: Published, cases: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    folder = published.write(tmp_path / "foreign", published.model())
    for words, fields in cases.items():
        write_json(folder / "config.json", {**published.config, **fields})
        with pytest.raises(ValueError, match=words) as caught:
            open_foreign(folder)
        path = folder / "config.json"
        says = f"{path} or what lies beside it says something that no {published.name} has: "
        assert str(caught.value).startswith(says)


def test_a_word_table_without_rows_is_told_of(folder: Path) -> None:
    weights = {"model.embed_tokens.weight": torch.zeros(())}
    for path in folder.glob("model*"):
        path.unlink()
    save_file(weights, folder / "model.safetensors")
    refused(folder, "no sdar has: IndexError")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("block_type", "block_type = 'sequential'"),
        ("activation_type", "activation_type = 'swiglu'"),
        ("layer_norm_type", "layer_norm_type = 'default'"),
        ("rope", "rope = False"),
        ("weight_tying", r"hold 'model\.transformer\.ff_out\.weight' beside"),
        ("mask_token_id", "the mask id 50256 lies outside"),
        ("eos_token_id", "the eos id 50256 lies outside the 320 rows"),
    ],
)
def test_a_field_that_llada_leaves_out_is_its_classes_default(
    tmp_path: Path, field: str, words: str
) -> None:
    folder = LLADA.write(tmp_path / "foreign", LLADA.model())
    config = {name: value for name, value in LLADA.config.items() if name != field}
    write_json(folder / "config.json", config)
    refused(folder, words)


def test_a_default_of_lladas_class_is_applied(tmp_path: Path) -> None:
    folder = LLADA.write(tmp_path / "foreign", LLADA.model())
    left_out = ("rope_theta", "max_sequence_length", "rms_norm_eps")
    config = {name: value for name, value in LLADA.config.items() if name not in left_out}
    write_json(folder / "config.json", config)
    found = open_foreign(folder).config
    assert found.rope_parameters["rope_theta"] == 10_000.0
    assert (found.max_position_embeddings, found.rms_norm_eps) == (1024, 1e-5)
    write_json(folder / "config.json", {**config, "model_type": "mmada", "num_vq_tokens": 9})
    refused(folder, "lacks 'max_sequence_length' in its config")  # its class has no defaults


def test_a_tokenizer_that_disagrees_is_refused_before_the_weights_are_read(folder: Path) -> None:
    change(folder / "tokenizer_config.json", mask_token="<|user|>")
    refused(folder, "mask_token has the id 258, and config.json says 257")
    change(folder / "tokenizer_config.json", mask_token="<|mask|>")
    tokens = json.loads((folder / "tokenizer.json").read_text())
    tokens["added_tokens"][-1]["id"] = 320
    write_json(folder / "tokenizer.json", tokens)
    refused(folder, "has 321 ids and the embedding 320 rows")


@pytest.mark.parametrize("name", ["eos", "pad", "bos"])
def test_special_ids_outside_the_rows_are_named(folder: Path, name: str) -> None:
    change(folder / "config.json", **{f"{name}_token_id": 9000})
    refused(folder, f"the {name} id 9000 lies outside the 320 rows")


def test_a_tokenizer_with_more_ids_than_rows_is_refused(tmp_path: Path) -> None:
    ids = {"mask_token_id": 5, "eos_token_id": 7, "pad_token_id": 7}
    small = Published("sdar", {**SDAR.config, **ids}, SDAR.reference, SDAR.pattern)
    model = small.model()
    model.resize_token_embeddings(200)
    folder = small.write(tmp_path / "foreign", model)
    with pytest.raises(ValueError, match="has 260 ids and the embedding 200 rows"):
        convert_checkpoint(folder, tmp_path / "native")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign"]


def test_an_interrupted_conversion_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SDAR.write(tmp_path / "foreign", SDAR.model())
    read, count = stored._read_bytes, 0

    def interrupted(*given: object) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return read(*given)

    monkeypatch.setattr(stored, "_read_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(folder, tmp_path / "native")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign"]
    monkeypatch.setattr(stored, "_read_bytes", read)
    convert_checkpoint(folder, tmp_path / "native")
    with pytest.raises(FileExistsError, match="is there already"):
        convert_checkpoint(folder, tmp_path / "native")


def test_what_was_not_converted_cannot_be_exported(tmp_path: Path) -> None:
    folder = SDAR.write(tmp_path / "foreign", SDAR.model())
    with pytest.raises(FileNotFoundError, match=r"foreign\.json is missing"):
        export_checkpoint(folder, tmp_path / "back")
    native = convert_checkpoint(folder, tmp_path / "native")
    weights = load_file(native / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, native / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks what \['model\.norm\.weight'\] are made of"):
        export_checkpoint(native, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_trained_further_weights_are_exported_as_they_are(tmp_path: Path) -> None:
    folder = LLADA.write(tmp_path / "foreign", LLADA.model())
    native = convert_checkpoint(folder, tmp_path / "native")
    model = UniDiffForBlockDiffusion.from_pretrained(native, dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight.add_(1)
    model.save_pretrained(native)
    back = load_file(export_checkpoint(native, tmp_path / "back") / "model.safetensors")
    before = load_file(folder / "model.safetensors")
    assert set(back) == set(before)
    changed = {name for name in back if not torch.equal(back[name], before[name])}
    assert changed == {"model.transformer.ln_f.weight"}
    assert open_foreign(tmp_path / "back").family.name == "llada"
