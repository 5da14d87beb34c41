"""Families that read pictures as features: logits and tokens of a chat with pictures in it.

Run: pytest tests/convert/test_soft_families.py
"""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.convert.dream_vl import pictures as patched_pictures
from unidiff.convert.family import ForeignFolder
from unidiff.convert.llava import canvases
from unidiff.convert.loading import open_foreign
from unidiff.convert.writing import convert_checkpoint
from unidiff.data.blocks import BlockOptions, blocks_row
from unidiff.model.vision import TiledVision
from unidiff.plugins.answers import check_modalities
from unidiff.tokens.soft_prompts import TiledPictures, picture_inputs
from unidiff.tokens.tiles import Tiles

from . import reference_loops as loops
from .published import MASK, write_json
from .published_soft import (
    BOS,
    CANVASES,
    DIMPLE,
    DREAM_VL,
    EOT,
    IMAGE_PAD,
    LAVIDA,
    LLADA_V,
    SIDE,
    SOFT_TABLE,
    TOWER,
    PublishedSoft,
)

SIZES = [(60, 50), (20, 130), (126, 126), (41, 43), (300, 90)]  # (height, width) of pictures
# Options of the authors' own examples.
DECODING: dict[str, dict[str, Any]] = {
    "llada-v": {"max_new_tokens": 128, "block_length": 128, "unmasking_strategy": "static"},
    "lavida": {"max_new_tokens": 64, "block_length": 64, "unmasking_strategy": "static"},
    "lavida-dream": {"confidence_metric": "entropy", "temperature": 0.2, "top_p": 0.95},
    "dream-vl": {"max_new_tokens": 128, "unmasking_strategy": "static", "temperature": 0.1},
    "dimple": {
        "max_new_tokens": 64,
        "unmasking_strategy": "dynamic",
        "confidence_threshold": 0.95,
        "temperature": 0.2,
        "top_p": 0.95,
    },
}
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


@pytest.fixture(scope="module", params=SOFT_TABLE, ids=lambda one: one.name)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    published = request.param
    theirs = published.model()
    folder = published.write(tmp_path_factory.mktemp("soft") / "foreign", theirs)
    ours = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    return published, theirs, ours, UniDiffProcessor.from_pretrained(folder), folder


def test_features_equal_the_references(loaded: Any) -> None:
    published, theirs, ours, processor, _ = loaded
    found = [processor.soft_prompts(picture(size)) for size in SIZES]
    inputs = picture_inputs(found, processor.soft_prompts.shape_name)
    with torch.no_grad():
        own = ours.vision(*inputs.values())
        expected = published.features(theirs, inputs)
    assert [one.num_positions for one in found] == [len(one) for one in expected]
    for one, other in zip(own, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logits_of_a_chat_with_pictures_equal_the_references(
    loaded: Any, dtype: torch.dtype
) -> None:
    published, theirs, ours, processor, _ = loaded
    ours, theirs = (copy.deepcopy(model).to(dtype) for model in (ours, theirs))
    talk = chat(picture(SIZES[3]), "what", picture(SIZES[0], 1), "is it?")
    if dtype == torch.float32:  # short, for rounding adds up
        talk = [{"role": "system", "content": "s"}, *chat(picture((42, 42)), "what?")]
    inputs = processor.for_chat(talk)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    with torch.no_grad():
        logits = ours(**inputs).logits
    expected = published.logits_of(theirs, published.embeddings(theirs, inputs), inputs)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_a_chat_with_a_picture_decodes_as_the_references_loop(loaded: Any) -> None:
    published, theirs, ours, processor, _ = loaded
    inputs = processor.for_chat(chat(picture(SIZES[3]), "what is it?"))
    prompt = published.embeddings(theirs, inputs)[0]
    table, length = theirs.language.get_input_embeddings(), len(prompt)

    def logits(ids: Tensor) -> Tensor:
        rows = torch.cat([prompt, table(ids[0, length:])])
        raw = published.logits_of(theirs, rows[None], inputs, length)[0]
        raw[:, published.never] = -torch.inf
        return torch.cat([raw[:1], raw[:-1]]) if published.shift else raw

    expected = loops.one_by_one(
        logits, inputs["input_ids"][0], 10, 4, published.mask, loops.highest_probability
    )
    options = {"block_length": 4, "eos_token_id": -1, "do_sample": False}
    options |= {"unmasking_strategy": "static", "confidence_metric": "prob"}
    found = ours.generate(**inputs, max_new_tokens=10, **options)
    assert found[0].tolist() == expected.tolist()


def test_a_folder_is_decoded_as_its_authors_do(loaded: Any) -> None:
    published, _, ours, _, _ = loaded
    found = {name: getattr(ours.generation_config, name) for name in DECODING[published.name]}
    assert found == DECODING[published.name]


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


def test_bad_pictures_are_named(loaded: Any) -> None:
    _, _, ours, processor, _ = loaded
    name = processor.soft_prompts.shape_name
    inputs = dict(processor.for_chat(chat(picture((28, 28)), "what?")))
    words = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    pixels, shapes = inputs["pixel_values"], inputs[name]
    for given, message in (
        ({}, f"there are no pictures: pass pixel_values and {name}"),
        ({"pixel_values": pixels}, f"pictures are pixel_values and {name}"),
        ({"pixel_values": pixels.repeat(2, *[1] * (pixels.ndim - 1)), name: shapes}, "got"),
        ({"pixel_values": pixels[:0], name: shapes[:0]}, "the 0 pictures of pixel_values"),
        ({"pixel_values": pixels, name: shapes.float()}, "whole numbers >= 1, got torch.float32"),
    ):
        with pytest.raises(ValueError, match=message):
            ours(**words, **given)
    text = dict(processor.for_chat(chat("hi")))
    none = {"pixel_values": pixels[:0], name: shapes[:0]}
    assert torch.equal(ours(**text, **none).logits, ours(**text).logits)


def test_pictures_of_every_kind_and_shape_are_read(loaded: Any) -> None:
    """Decoded in bfloat16; a picture that is too narrow for patches is refused in plain words."""
    _, _, ours, processor, _ = loaded
    model = copy.deepcopy(ours).to(torch.bfloat16)
    whole = picture((20, 30))
    modes = [whole.convert(mode) for mode in ("L", "LA", "RGBA", "P", "1", "CMYK")]
    options = {"max_new_tokens": 2, "block_length": 2, "do_sample": False, "eos_token_id": -1}
    for one in (picture((1, 1)), picture((1, 150)), picture((150, 1)), *modes):
        inputs = processor.for_chat(chat(one, "what?"))
        found = model.generate(**inputs, **options)
        assert found.shape[1] == inputs["input_ids"].shape[1] + 2
    grey, colours = (
        processor.for_chat(chat(one, "?"))["pixel_values"]
        for one in (modes[0], modes[0].convert("RGB"))
    )
    assert torch.equal(grey, colours)
    narrow = chat(picture((1, 2000)), "what?")
    if isinstance(processor.soft_prompts, TiledPictures):
        assert ours.generate(**processor.for_chat(narrow), **options) is not None
        return
    with pytest.raises(ValueError, match="a picture of 2000 x 1 pixels is too narrow"):
        processor.for_chat(narrow)


def test_what_takes_codes_alone_says_so(loaded: Any) -> None:
    """Tasks of plugins, and rows of training."""
    _, _, _, processor, _ = loaded
    task: Any = SimpleNamespace(name="look", modalities={"text", "image"})
    with pytest.raises(ValueError, match="features of a tower: ask it by"):
        check_modalities(task, processor)
    said = [*chat(picture((28, 28)), "what?"), {"role": "assistant", "content": "a bag"}]
    sequence = processor.encoder.conversation(processor.coded(said))
    with pytest.raises(ValueError, match="holds no pictures that are read as features"):
        blocks_row(sequence, processor.layout, BlockOptions(), np.random.default_rng(0))


def test_lladas_chat_is_the_published_one(tmp_path: Path) -> None:
    folder = LLADA_V.write(tmp_path / "foreign", LLADA_V.model())
    (folder / "chat_template.jinja").unlink()
    processor = UniDiffProcessor.from_pretrained(folder)
    inputs = processor.for_chat(chat(picture((42, 42)), "hi <|mask|>"))
    ids = inputs["input_ids"][0]
    text = processor.tokenizer.decode(ids[ids != LLADA_V.soft])
    assert text.startswith(
        "<|startoftext|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language"
    )
    assert text.endswith(
        "<|start_header_id|>user<|end_header_id|>\n\n\nhi <|mask|><|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert LLADA_V.mask not in ids  # typed by a user
    assert set(processor.layout.reserved_token_ids) == set(range(BOS, EOT))  # no answer has them
    own = [{"role": "system", "content": "Be brief."}, *chat("hi")]
    assert "helpful" not in processor.tokenizer.decode(processor.for_chat(own)["input_ids"][0])


def test_a_text_begins_with_an_id_that_has_a_row(tmp_path: Path) -> None:
    """The one of generation_config.json, then the tokenizer's, whatever config.json says."""
    folder = LLADA_V.write(tmp_path / "foreign", LLADA_V.model())
    assert open_foreign(folder).config.bos_token_id == BOS
    write_json(folder / "generation_config.json", {"bos_token_id": 7})
    assert open_foreign(folder).config.bos_token_id == 7
    write_json(folder / "generation_config.json", {"bos_token_id": 128001})
    assert open_foreign(folder).config.bos_token_id == BOS
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match="the bos id 128001 lies outside the 320 rows"):
        open_foreign(folder)


def test_pixels_are_the_published_ones() -> None:
    """The squeezed picture, then the centred one on black, cut row by row; values in [-1, 1]."""
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
    ("published", "change", "message"),
    [
        (LLADA_V, {"mm_patch_merge_type": "flat"}, "mm_patch_merge_type = 'flat'"),
        (LLADA_V, {"mm_projector_type": "pooler"}, "mm_projector_type = 'pooler'"),
        (LLADA_V, {"image_aspect_ratio": "pad"}, "image_aspect_ratio = 'pad'"),
        (LLADA_V, {"image_aspect_ratio": "anyres_max_0"}, "image_aspect_ratio = 'anyres_max_0'"),
        (LLADA_V, {"mm_vision_select_layer": -1}, "mm_vision_select_layer = -1"),
        (LLADA_V, {"mm_vision_select_feature": "cls"}, "mm_vision_select_feature = 'cls'"),
        (LLADA_V, {"mm_use_im_start_end": True}, "mm_use_im_start_end = True"),
        (LAVIDA, {"mm_spatial_pool_mode": "average"}, "mm_spatial_pool_mode = 'average'"),
        (LLADA_V, {"image_grid_pinpoints": [[40, 42]]}, "whole tiles of 42"),
        (DREAM_VL, {"full_attn_mask": False}, "full_attn_mask = False"),
        (DREAM_VL, {"projector_hidden_act": "silu"}, "projector_hidden_act = 'silu'"),
        (DREAM_VL, {"image_token_id": MASK}, "257 as image_token_id and as mask_token_id"),
        (DIMPLE, {"full_attn_mask": False}, "full_attn_mask = False"),
    ],
)
def test_other_ways_to_read_are_refused(
    published: PublishedSoft, change: dict, message: str, tmp_path: Path
) -> None:
    folder = published.write(tmp_path / "foreign", published.model())
    write_json(folder / "config.json", {**published.config, **change})
    with pytest.raises(ValueError, match=message):
        open_foreign(folder)


@EACH
def test_missing_weights_of_the_tower_are_named(published: PublishedSoft, tmp_path: Path) -> None:
    folder = published.write(tmp_path / "one", published.model())
    weights = published.weights(published.model())
    lost = next(name for name in weights if "vis" in name and name.endswith("norm1.weight"))
    save_file(
        {name: weight for name, weight in weights.items() if name != lost},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match=r"vision\.tower\S*norm1\.weight missing"):
        UniDiffForBlockDiffusion.from_pretrained(folder)
    save_file(
        {name: weight for name, weight in weights.items() if "vis" not in name},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match=r"lacks .*patch_embed|vision\.tower.*missing"):
        UniDiffForBlockDiffusion.from_pretrained(folder)


@pytest.mark.parametrize("published", [DREAM_VL, DIMPLE], ids=lambda one: one.name)
def test_patches_stand_between_the_published_tokens(
    published: PublishedSoft, tmp_path: Path
) -> None:
    folder = published.write(tmp_path / "foreign", published.model())
    pixels = {"min_pixels": 28 * 28 * 4, "max_pixels": 28 * 28 * 6}
    colours = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    write_json(folder / "preprocessor_config.json", {**pixels, **colours})
    processor = UniDiffProcessor.from_pretrained(folder)
    inputs = processor.for_chat(chat("see <|image_pad|>", picture((28, 28)), "?"))
    ids = inputs["input_ids"][0].tolist()
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 4]]  # enlarged to four features
    assert processor.soft_prompts.enlarges is (published is DREAM_VL)
    first = ids.index(IMAGE_PAD)
    around = [IMAGE_PAD - 2, *[IMAGE_PAD] * 4, IMAGE_PAD - 1]
    assert ids[first - 1 : first + 5] == around
    assert ids.count(IMAGE_PAD) == 4  # what a user types is plain text
    white = processor.soft_prompts(Image.new("RGB", (56, 56), "white")).pixel_values
    wanted = [(1 - mean) / std for mean, std in zip(*colours.values(), strict=True)]
    for channel, value in zip(white.view(-1, 3, 2, 14, 14).unbind(1), wanted, strict=True):
        torch.testing.assert_close(channel, torch.full_like(channel, value))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, (3136, 1003520)),
        ({"min_pixels": 784, "max_pixels": 7840}, (784, 7840)),
        ({"size": {"shortest_edge": 784, "longest_edge": 7840}}, (784, 7840)),
        ({"max_pixels": 7840, "min_pixels": None, "size": {"longest_edge": 1}}, (3136, 7840)),
    ],
)
def test_numbers_of_pixels_are_those_of_either_form(
    said: dict, expected: tuple[int, int], tmp_path: Path
) -> None:
    write_json(tmp_path / "preprocessor_config.json", said)
    config: Any = SimpleNamespace(vision={"tower": DREAM_VL.config["vision_config"]})
    found = patched_pictures(ForeignFolder(tmp_path, {}, {}), config)
    assert (found.min_pixels, found.max_pixels) == expected


def test_pinpoints_may_be_written_as_a_range() -> None:
    said = {"image_grid_pinpoints": "(1x1),...,(2x3)"}
    found = canvases(ForeignFolder(Path(), said, {}), 10)
    assert found == ((10, 10), (10, 20), (10, 30), (20, 10), (20, 20), (20, 30))


def test_the_layout_of_tiles_is_transformers_own() -> None:
    """LLaVA-OneVision lays tiles out alike; its canvases are (height, width)."""
    config = SimpleNamespace(
        vision_config=SimpleNamespace(image_size=SIDE, patch_size=14),
        image_grid_pinpoints=[[height, width] for width, height in CANVASES],
    )
    vision = {"kind": "tiles", "tower": TOWER.to_dict(), "projector_depth": 2}
    vision["tiles"] = Tiles(SIDE, 3, tuple(map(tuple, CANVASES)), 4).to_dict()
    vision["tower"].pop("vision_use_head")
    ours = TiledVision(vision, 8)
    torch.nn.init.normal_(ours.newline)
    for size in SIZES:
        features = torch.randn(ours.tiles.num_tiles(size), 9, 8)
        expected, _ = LlavaOnevisionModel.pack_image_features(
            SimpleNamespace(config=config), [features], [size], ours.newline, "anyres_max_4"
        )
        found = ours._arranged(ours._pooled(features), size)
        torch.testing.assert_close(found, expected[0])
