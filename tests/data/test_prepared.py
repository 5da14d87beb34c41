"""Prepared parts: what they hold, how they are guarded, how an interrupted run continues."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import unidiff.data.prepared as prepared
from unidiff.data.prepared import (
    MANIFEST,
    PrepareOptions,
    encode_images,
    fingerprint,
    load_arrays,
    prepare,
    save_arrays,
    token_documents,
    training_scene,
)
from unidiff.data.sources.scenes import render_scene
from unidiff.tokens.image import FSQImageTokenizer, FSQImageTokenizerConfig
from unidiff.tokens.text import decode_plain

SMALL = PrepareOptions(num_scenes=3, num_demonstrations=4, seed=1)
TEXTS = ["def f(x):\n    return x\n", "an empty line\n\nand <|mask|> as text"]
PARTS = {
    "garments_train",
    "garments_test",
    "scenes_train",
    "demonstrations_train",
    "text_train",
}


def tiny_image_tokenizer(seed: int = 0) -> FSQImageTokenizer:
    torch.manual_seed(seed)
    config = FSQImageTokenizerConfig(
        levels=[5, 5, 5], hidden_sizes=[8, 16], num_encoder_blocks=1, num_decoder_blocks=1
    )
    return FSQImageTokenizer(config).eval()


@pytest.fixture(scope="module")
def tokenizer(repository_root: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(repository_root / "tokenizers" / "text")


@pytest.fixture(autouse=True)
def small_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five photographs in each split and two documents."""
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    labels = np.arange(5, dtype=np.uint8)
    monkeypatch.setattr(prepared, "load_fashion_mnist", lambda split: (images, labels))
    documents = [(f"module{n}", text) for n, text in enumerate(TEXTS)]
    monkeypatch.setattr(prepared, "iter_documents", lambda split: iter(documents))


def test_prepared_parts_hold_codes_ids_and_facts(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    images = tiny_image_tokenizer()
    steps: list[tuple[str, int, int]] = []
    prepare(tmp_path, images, tokenizer, SMALL, lambda *step: steps.append(step))
    assert {path.stem for path in tmp_path.glob("*.npz")} == PARTS
    assert [done for _, done, _ in steps] == list(range(6))
    assert {name for name, _, _ in steps} == PARTS | {"done"}
    garments = load_arrays(tmp_path, "garments_train")
    assert garments["codes"].shape == garments["mirrored"].shape == (5, 64)
    assert garments["labels"].tolist() == list(range(5))
    assert garments["codes"].max() < 125
    scenes = load_arrays(tmp_path, "scenes_train")
    for seed in range(3):
        scene = training_scene(seed)
        assert scenes["num_objects"][seed] == len(scene.objects)
        codes = encode_images(images, render_scene(scene)[None])[0]
        assert scenes["codes"][seed].tolist() == codes.tolist()
    shown = load_arrays(tmp_path, "demonstrations_train")
    assert shown["codes"].shape == (4, 64)
    assert shown["states"].shape == (4, 2)
    assert shown["chunks"].shape == (4, 8, 2)
    assert len(shown["instructions"]) == len(shown["tasks"]) == 4
    text = load_arrays(tmp_path, "text_train")
    for number, expected in enumerate(TEXTS):
        ids = text["ids"][text["starts"][number] : text["starts"][number + 1]]
        assert decode_plain(tokenizer, ids.tolist()) == expected


def test_an_interrupted_run_makes_the_missing_parts_only(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    images = tiny_image_tokenizer()
    prepare(tmp_path, images, tokenizer, SMALL)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    (tmp_path / "scenes_train.npz").unlink()
    (tmp_path / "scenes_train.partial.npz").write_bytes(b"half a file")
    prepare(tmp_path, images, tokenizer, SMALL)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert before.keys() == after.keys()
    changed = {path.stem for path in after if after[path] != before[path]}
    assert changed == {"scenes_train"}


@pytest.mark.parametrize("change", ["tokenizer", "options"])
def test_codes_of_other_tokenizers_or_options_are_refused(
    change: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    prepare(tmp_path, tiny_image_tokenizer(), tokenizer, SMALL)
    images = tiny_image_tokenizer(seed=1 if change == "tokenizer" else 0)
    options = PrepareOptions(4, 4, 1) if change == "options" else SMALL
    with pytest.raises(ValueError, match="choose another folder or delete this one"):
        prepare(tmp_path, images, tokenizer, options)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["num_scenes"] == 3


def test_fingerprint_follows_weights_and_vocabulary(tokenizer: PreTrainedTokenizerBase) -> None:
    first = fingerprint(tiny_image_tokenizer(), tokenizer)
    assert first == fingerprint(tiny_image_tokenizer(), tokenizer)
    assert first != fingerprint(tiny_image_tokenizer(seed=1), tokenizer)

    class Other:
        def get_vocab(self) -> dict[str, int]:
            return {**tokenizer.get_vocab(), "new": 9999}

    other: Any = Other()
    assert first != fingerprint(tiny_image_tokenizer(), other)


def test_encoding_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(2).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    whole = encode_images(tiny_image_tokenizer(), images)
    assert whole.dtype == np.uint16
    monkeypatch.setattr(prepared, "ENCODE_BATCH", 2)
    assert np.array_equal(encode_images(tiny_image_tokenizer(), images), whole)


def test_missing_parts_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run `unidiff prepare --out"):
        load_arrays(tmp_path, "scenes_train")


def test_saved_arrays_come_back_and_leave_no_partial_file(tmp_path: Path) -> None:
    save_arrays(tmp_path / "part.npz", a=np.arange(3), names=np.array(["x", "yy"]))
    loaded = load_arrays(tmp_path, "part")
    assert loaded["a"].tolist() == [0, 1, 2]
    assert loaded["names"].tolist() == ["x", "yy"]
    assert [path.name for path in tmp_path.iterdir()] == ["part.npz"]


def test_documents_may_be_empty(tokenizer: PreTrainedTokenizerBase) -> None:
    arrays = token_documents(tokenizer, ["", "one", ""])
    assert arrays["starts"].tolist() == [0, 0, len(arrays["ids"]), len(arrays["ids"])]
