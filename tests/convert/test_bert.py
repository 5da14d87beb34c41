"""What is particular to BERT's files: old names, a trainer's file, a text between two ids."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertForMaskedLM

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.convert.loading import open_foreign
from unidiff.convert.writing import convert_checkpoint, export_checkpoint

from .published import ROWS, WIDTH, write_json
from .published_bert import BERT, ROBERTA

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "capital", "of", "is", "pa", "##ris"]
CLS, SEP, MASK = (WORDS.index(name) for name in ("[CLS]", "[SEP]", "[MASK]"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BERT whose tokenizer is a list of words, as the first ones were published."""
    folder = BERT.write(tmp_path / "foreign", BERT.model())
    for path in [*folder.glob("*token*"), *folder.glob("*.jinja")]:
        path.unlink()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    named = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "mask_token": "[MASK]"}
    write_json(folder / "tokenizer_config.json", named)
    return folder


def rewritten(folder: Path, change: Any) -> dict[str, Tensor]:
    """The weights of a folder, changed and written again."""
    path = folder / "model.safetensors"
    weights = change(load_file(path))
    save_file(weights, path, metadata={"format": "pt"})
    return weights


def as_pretrained(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the first checkpoints, and what else pretraining left in them."""
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): weight
        for name, weight in weights.items()
        if ".decoder." not in name
    }
    return old | {
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "bert.pooler.dense.weight": torch.randn(WIDTH, WIDTH),
        "bert.pooler.dense.bias": torch.randn(WIDTH),
        "cls.seq_relationship.weight": torch.randn(2, WIDTH),
        "cls.seq_relationship.bias": torch.randn(2),
    }


def test_the_first_checkpoints_names_are_read_and_written(folder: Path, tmp_path: Path) -> None:
    one = UniDiffForBlockDiffusion.from_pretrained(folder)
    rewritten(folder, as_pretrained)
    two = UniDiffForBlockDiffusion.from_pretrained(folder).state_dict()
    assert all(torch.equal(weight, two[name]) for name, weight in one.state_dict().items())
    back = export_checkpoint(convert_checkpoint(folder, tmp_path / "native"), tmp_path / "back")
    for path in folder.iterdir():
        assert (back / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_trainers_file_is_read(folder: Path) -> None:
    one = UniDiffForBlockDiffusion.from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    saved = {"model": {f"module.{n}": w for n, w in weights.items()}, "optimizer": {"state": {}}}
    torch.save(saved, folder / "best(1799).th")
    with pytest.raises(ValueError, match=r"best\(1799\)\.th.*use_safetensors=False"):
        UniDiffForBlockDiffusion.from_pretrained(folder)
    two = UniDiffForBlockDiffusion.from_pretrained(folder, use_safetensors=False)
    assert all(torch.equal(w, two.state_dict()[name]) for name, w in one.state_dict().items())


def test_layers_that_read_the_time_are_refused(folder: Path) -> None:
    extra = {"bert.encoder.layer.0.timestep_embedding.0.weight": torch.zeros(2 * WIDTH, WIDTH)}
    rewritten(folder, lambda weights: weights | extra)
    with pytest.raises(ValueError, match="layers read the time"):
        UniDiffForBlockDiffusion.from_pretrained(folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        ({"is_decoder": True}, "is_decoder = True"),
        ({"hidden_act": "silu"}, "hidden_act = 'silu'"),
        ({"max_position_embeddings": 32}, r"positions\.weight has the shape \(64, 32\)"),
    ],
)
def test_what_cannot_be_is_named(folder: Path, fields: dict[str, Any], words: str) -> None:
    write_json(folder / "config.json", {**BERT.config, **fields})
    with pytest.raises(ValueError, match=words):
        UniDiffForBlockDiffusion.from_pretrained(folder)


def test_a_roberta_whose_head_has_another_activation_is_refused(tmp_path: Path) -> None:
    """transformers' class has gelu in the head whatever config.json says."""
    folder = ROBERTA.write(tmp_path / "foreign", ROBERTA.model())
    write_json(folder / "config.json", {**ROBERTA.config, "hidden_act": "relu"})
    with pytest.raises(ValueError, match=r"= 'relu'; what can be loaded is 'gelu'$"):
        open_foreign(folder)


def test_the_table_of_a_trained_head_goes_into_both_copies(folder: Path, tmp_path: Path) -> None:
    native = convert_checkpoint(folder, tmp_path / "native")
    model = UniDiffForBlockDiffusion.from_pretrained(native)
    with torch.no_grad():
        model.model.embed_tokens.weight.add_(1)
    model.save_pretrained(native)
    back = load_file(export_checkpoint(native, tmp_path / "back") / "model.safetensors")
    table = back["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(table, model.model.embed_tokens.weight)
    assert torch.equal(table, back["cls.predictions.decoder.weight"])


def test_a_hole_is_filled_between_the_ids_of_a_text(folder: Path) -> None:
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    processor = UniDiffProcessor.from_pretrained(folder)
    request = processor.for_text_infill(["the capital of", 1, "is paris"])
    the, capital, of, is_, pa, ris = range(5, 11)
    row = [CLS, the, capital, of, MASK, is_, pa, ris, SEP]
    assert [*request["input_ids"][0], *request["canvas"][0]] == row
    logits = BERT.logits(BERT.model(), torch.tensor([row]))[0, 4]
    logits[MASK] = -torch.inf
    found = model.generate(**request, do_sample=False)[0].tolist()
    assert found == [*row[:4], int(logits.argmax()), *row[5:]]


def test_texts_begin_as_in_training(folder: Path) -> None:
    processor = UniDiffProcessor.from_pretrained(folder)
    said = processor.for_chat([{"role": "user", "content": "the [MASK] of"}])["input_ids"][0]
    assert said[0] == CLS
    assert MASK not in said
    assert processor.for_completion("the")["input_ids"].tolist() == [[CLS, WORDS.index("the")]]
    opened = open_foreign(folder)
    assert opened.config.eos_token_id == [SEP]
    assert opened.config.mask_token_id == MASK


def test_a_row_longer_than_the_table_is_named(tmp_path: Path) -> None:
    for published in (BERT, ROBERTA):
        folder = published.write(tmp_path / published.name, published.model())
        model = UniDiffForBlockDiffusion.from_pretrained(folder)
        model(torch.zeros(1, 64, dtype=torch.int64))
        with pytest.raises(ValueError, match="has learned 64 positions, and a row has 65"):
            model(torch.zeros(1, 65, dtype=torch.int64))


DECODER, BIAS = "cls.predictions.decoder", "cls.predictions.bias"
TABLE = "bert.embeddings.word_embeddings.weight"


def heads_of_their_own(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A decoder whose weight and bias are not those beside it."""
    own = {f"{DECODER}.weight": weights[TABLE] + 0.1, f"{DECODER}.bias": weights[BIAS] + 1}
    return weights | own


def the_decoders_bias_alone(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    own = {f"{DECODER}.bias": weights[BIAS] + 1}
    return {n: weight for n, weight in weights.items() if n != BIAS} | own


def both_biases(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights | {f"{DECODER}.bias": weights[BIAS].clone()}


@pytest.mark.parametrize(
    ("change", "is_tied"),
    [(heads_of_their_own, False), (the_decoders_bias_alone, True), (both_biases, True)],
)
def test_the_decoders_own_bias_is_read_as_transformers_reads_it(
    change: Any, is_tied: bool, folder: Path, tmp_path: Path
) -> None:
    write_json(folder / "config.json", {**BERT.config, "tie_word_embeddings": is_tied})
    rewritten(folder, change)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        found = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)(ids).logits
        expected = BertForMaskedLM.from_pretrained(folder).eval()(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    back = export_checkpoint(convert_checkpoint(folder, tmp_path / "native"), tmp_path / "back")
    name = "model.safetensors"
    assert (back / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({f"{DECODER}.bias": torch.full((ROWS,), 9.0)}, f"{DECODER}.bias' beside '{BIAS}'"),
        (
            {"bert.embeddings.LayerNorm.gamma": torch.ones(WIDTH)},
            r"both 'model\.embed_inputs\.norm\.weight', by .*LayerNorm\.weight.*LayerNorm\.gamma",
        ),
    ],
)
def test_two_tensors_for_one_place_are_named(
    extra: dict[str, Tensor], words: str, folder: Path
) -> None:
    rewritten(folder, lambda weights: weights | extra)
    with pytest.raises(ValueError, match=words):
        UniDiffForBlockDiffusion.from_pretrained(folder)
