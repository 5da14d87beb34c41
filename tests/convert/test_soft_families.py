"""Families that read pictures as features: logits and tokens of a chat with pictures in it.

Run: pytest tests/convert/test_soft_families.py
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.convert.writing import convert_checkpoint

from . import reference_loops as loops
from .published import write_json
from .published_soft import CANVASES, LLADA_V, SIDE, SOFT, SOFT_TABLE, PublishedSoft

SIZES = [(60, 50), (20, 130), (126, 126), (41, 43), (300, 90)]  # (height, width) of pictures
EACH = pytest.mark.parametrize("published", SOFT_TABLE, ids=lambda one: one.name)


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """A picture of noise, smooth enough to survive resizing."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size[::-1])


def chat(*parts: Any) -> list[dict[str, Any]]:
    """One user's turn of texts and pictures."""
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "image": part}
        for part in parts
    ]
    return [{"role": "user", "content": content}]


def embeddings(published: PublishedSoft, theirs: Any, inputs: Any) -> Tensor:
    """(1, L, D) embeddings of a prompt, the reference's features at their places."""
    ids = inputs["input_ids"]
    rows = theirs.language.get_input_embeddings()(ids)[0].clone()
    sizes, at = [tuple(size) for size in inputs["image_sizes"].tolist()], 0
    features = []
    for size in sizes:
        canvas = best_tiles(size)
        tiles = inputs["pixel_values"][at : at + canvas]
        features.append(theirs.features(tiles, size, published.most))
        at += canvas
    rows[ids[0] == SOFT] = torch.cat(features)
    return rows[None]


def best_tiles(size: tuple[int, int]) -> int:
    """Tiles of a picture, the squeezed one included."""
    from .published_soft import best

    width, height = best(size)
    return 1 + width * height // SIDE**2


@pytest.fixture(scope="module", params=SOFT_TABLE, ids=lambda one: one.name)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    published = request.param
    theirs = published.model()
    folder = published.write(tmp_path_factory.mktemp("soft") / "foreign", theirs)
    ours = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    return published, theirs, ours, UniDiffProcessor.from_pretrained(folder), folder


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_features_equal_the_references(loaded: Any, size: tuple[int, int]) -> None:
    published, theirs, ours, processor, _ = loaded
    found = processor.soft_prompts(picture(size))
    assert found.shape == size
    with torch.no_grad():
        own = ours.vision(found.pixel_values, torch.tensor([size]))[0]
        expected = theirs.features(found.pixel_values, size, published.most)
    assert found.num_positions == len(expected)
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)


def test_logits_of_a_chat_with_pictures_equal_the_references(loaded: Any) -> None:
    published, theirs, ours, processor, _ = loaded
    inputs = processor.for_chat(chat(picture(SIZES[3]), "what", picture((42, 42), 1), "is it?"))
    with torch.no_grad():
        logits = ours(**inputs).logits
        expected = published.logits_of(theirs, embeddings(published, theirs, inputs))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_a_chat_with_a_picture_decodes_as_the_references_loop(loaded: Any) -> None:
    published, theirs, ours, processor, _ = loaded
    inputs = processor.for_chat(chat(picture(SIZES[0]), "what is it?"))
    prompt = embeddings(published, theirs, inputs)[0]
    table, length = theirs.language.get_input_embeddings(), len(prompt)

    def logits(ids: Tensor) -> Tensor:
        rows = torch.cat([prompt, table(ids[0, length:])])
        raw = published.logits_of(theirs, rows[None])[0]
        raw[:, [SOFT, *ours.config.layout.reserved_token_ids]] = -torch.inf
        return raw

    expected = loops.one_by_one(
        logits, inputs["input_ids"][0], 10, 4, published.mask, loops.highest_probability
    )
    options = {"block_length": 4, "eos_token_id": -1, "do_sample": False}
    found = ours.generate(**inputs, max_new_tokens=10, **options)
    assert found[0].tolist() == expected.tolist()


def test_the_converted_folder_reads_the_same_pictures(loaded: Any, tmp_path: Path) -> None:
    _, _, ours, processor, folder = loaded
    native = convert_checkpoint(folder, tmp_path / "native")
    again = UniDiffProcessor.from_pretrained(native)
    assert again.soft_prompts == processor.soft_prompts
    talk = chat(picture(SIZES[1]), "what is it?")
    one, two = processor.for_chat(talk), again.for_chat(talk)
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    model = UniDiffForBlockDiffusion.from_pretrained(native, dtype=torch.float32)
    torch.testing.assert_close(model(**two).logits, ours(**one).logits, rtol=1e-5, atol=1e-5)


def test_batches_of_chats_read_their_own_pictures(loaded: Any) -> None:
    _, _, ours, processor, _ = loaded
    talks = [
        chat(picture(SIZES[0]), "what is it?"),
        chat("hi"),
        chat(picture(SIZES[1], 1), picture(SIZES[3], 2), "both?"),
    ]
    options = {"max_new_tokens": 6, "eos_token_id": -1, "do_sample": False}
    together = ours.generate(**processor.for_chat(talks), **options)[:, -6:]
    joined = processor.batch([processor.for_chat(talk) for talk in talks])
    assert torch.equal(joined["pixel_values"], processor.for_chat(talks)["pixel_values"])
    for row, talk in enumerate(talks):
        alone = ours.generate(**processor.for_chat(talk), **options)[0, -6:]
        assert together[row].tolist() == alone.tolist()


def test_lladas_chat_is_the_published_one(tmp_path: Path) -> None:
    folder = LLADA_V.write(tmp_path / "foreign", LLADA_V.model())
    (folder / "chat_template.jinja").unlink()
    processor = UniDiffProcessor.from_pretrained(folder)
    inputs = processor.for_chat(chat(picture((42, 42)), "hi <|mask|>"))
    text = processor.tokenizer.decode(inputs["input_ids"][0][inputs["input_ids"][0] != SOFT])
    assert text.startswith(
        "<|startoftext|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language"
    )
    assert text.endswith(
        "<|start_header_id|>user<|end_header_id|>\n\n\nhi <|mask|><|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert LLADA_V.mask not in inputs["input_ids"]  # typed by a user
    own = [{"role": "system", "content": "Be brief."}, *chat("hi")]
    assert "helpful" not in processor.tokenizer.decode(processor.for_chat(own)["input_ids"][0])


def test_pixels_are_the_published_ones() -> None:
    """The squeezed picture, then the centred one on black, cut row by row; values in [-1, 1]."""
    from unidiff.tokens.soft_prompts import TiledPictures
    from unidiff.tokens.tiles import Tiles

    tiles = Tiles(SIDE, 3, tuple(map(tuple, CANVASES)), 4)
    one = picture((42, 60))
    found = TiledPictures(tiles)(one).pixel_values
    assert found.shape == (3, 3, SIDE, SIDE)
    sheet = Image.new("RGB", (84, 42))
    sheet.paste(one.resize((60, 42)), (12, 0))
    for tile, expected in zip(
        found,
        (one.resize((SIDE, SIDE)), sheet.crop((0, 0, 42, 42)), sheet.crop((42, 0, 84, 42))),
        strict=True,
    ):
        wanted = torch.from_numpy(np.asarray(expected).copy()).permute(2, 0, 1) / 127.5 - 1
        torch.testing.assert_close(tile, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type = 'flat'"),
        ({"mm_projector_type": "pooler"}, "mm_projector_type = 'pooler'"),
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio = 'pad'"),
        ({"mm_vision_select_layer": -1}, "mm_vision_select_layer = -1"),
        ({"image_grid_pinpoints": [[40, 42]]}, "whole tiles of 42"),
    ],
)
def test_other_ways_to_read_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    folder = LLADA_V.write(tmp_path / "foreign", LLADA_V.model())
    write_json(folder / "config.json", {**LLADA_V.config, **change})
    with pytest.raises(ValueError, match=message):
        UniDiffForBlockDiffusion.from_pretrained(folder)


@EACH
def test_missing_weights_of_the_tower_are_named(published: PublishedSoft, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder, weights = published.write(tmp_path / "one", published.model()), {}
    weights = published.weights(published.model())
    lost = next(name for name in weights if "fc2.bias" in name)
    save_file(
        {name: weight for name, weight in weights.items() if name != lost},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match=r"vision\.tower.*fc2\.bias missing"):
        UniDiffForBlockDiffusion.from_pretrained(folder)
    save_file(
        {name: weight for name, weight in weights.items() if "vis" not in name},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match=r"lacks .*patch_embed.*weights"):
        UniDiffForBlockDiffusion.from_pretrained(folder)


def test_pinpoints_may_be_written_as_a_range() -> None:
    from unidiff.convert.family import ForeignFolder
    from unidiff.convert.llava import canvases

    said = {"image_grid_pinpoints": "(1x1),...,(2x3)"}
    found = canvases(ForeignFolder(Path(), said, {}), 10)
    assert found == ((10, 10), (10, 20), (10, 30), (20, 10), (20, 20), (20, 30))
