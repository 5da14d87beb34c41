"""UniDisc: pictures that stand bare along axes of their own, and what is particular to its file."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.convert.family import ForeignFolder
from unidiff.convert.loading import open_foreign
from unidiff.convert.unidisc import settings
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.layers import UniDiffRotaryEmbedding
from unidiff.tokens.positions import sequence_positions

from .published import END, HEADS, WIDTH, write_json
from .published_images import IMAGE_TABLE, random_picture
from .published_unidisc import FIRST, SIDE, UNIDISC
from .reference_images import LlamaGen

BOS, MASK = 260, UNIDISC.mask
CODES = SIDE**2
LLAMAGEN = IMAGE_TABLE[1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """UniDisc with as many rows as the picture tokenizer has codes, and that one."""
    root = tmp_path_factory.mktemp("unidisc")
    own = replace(UNIDISC, rows=FIRST + 50)
    folder = own.write(root / "unidisc", own.model())
    (folder / "chat_template.jinja").unlink()
    return folder, LLAMAGEN.write(root / "llamagen", LlamaGen())


def reference_logits(row: Tensor, pictures: tuple[int, ...]) -> Tensor:
    """(L, V) of a row of ids with pictures at some places."""
    theirs = replace(UNIDISC, rows=FIRST + 50).model()
    with torch.no_grad():
        return theirs(row[None], attention_mask=torch.zeros(1), pictures=pictures).logits[0]


def filled(row: list[int], pictures: tuple[int, ...], ids: slice) -> list[int]:
    """The masks of a row filled one by one, the most probable token first, of some ids only."""
    found = torch.tensor(row)
    while bool((found == MASK).any()):
        law = reference_logits(found, pictures)[:, ids].double().softmax(-1)
        best = law.amax(-1).masked_fill(found != MASK, -1.0)
        place = int(best.argmax())
        found[place] = ids.start + law[place].argmax()
    return found.tolist()


def test_pictures_stand_along_axes_of_their_own(model: UniDiffForBlockDiffusion) -> None:
    kinds = np.array([0, *[1] * (2 * CODES), 0])
    positions, following = sequence_positions(kinds, model.config.layout)
    assert following == len(kinds)
    assert positions[:, 0].tolist() == [0, 0, 0]
    assert positions[:, -1].tolist() == [len(kinds) - 1] * 3
    for number in (0, 1):
        own = positions[:, 1 + number * CODES : 1 + (number + 1) * CODES]
        assert own[0].tolist() == [-1 - number] * CODES
        assert own[1:].T.tolist() == [[r, c] for r in range(SIDE) for c in range(SIDE)]


def test_logits_beside_pictures_equal_the_reference(model: UniDiffForBlockDiffusion) -> None:
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(FIRST, FIRST + 50, (2 * CODES,), generator=generator).tolist()
    row = torch.tensor([BOS, 7, *codes[:CODES], 9, MASK, *codes[CODES:], MASK])
    kinds = model.config.layout.modality_ids(row.numpy())
    positions, _ = sequence_positions(kinds, model.config.layout)
    with torch.no_grad():
        found = model(row[None], position_ids=torch.from_numpy(positions)[:, None]).logits[0]
    expected = reference_logits(row, (2, 4 + CODES))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_drawing_equals_the_published_maths(
    processor: UniDiffProcessor, model: UniDiffForBlockDiffusion
) -> None:
    wish = processor.for_image("a red cat")
    said = processor.tokenizer("a red cat", add_special_tokens=False)["input_ids"]
    assert wish["input_ids"].tolist() == [[BOS, *said]]
    assert wish["canvas"].tolist() == [[MASK] * CODES]
    row, place = [BOS, *said, *[MASK] * CODES], (1 + len(said),)
    expected = filled(row, place, slice(FIRST, FIRST + 50))
    found = model.generate(**wish, do_sample=False)
    assert found[0].tolist() == expected
    drawn = processor.post_process(found, wish)[0]
    assert np.array_equal(
        np.asarray(drawn), np.asarray(processor.decode_image(found[0, -CODES:].numpy()))
    )


@pytest.mark.parametrize("texts", [("what?",), ("one", " two")])
def test_text_behind_pictures_equals_the_published_maths(
    texts: tuple[str, ...], processor: UniDiffProcessor, model: UniDiffForBlockDiffusion
) -> None:
    content: list[dict[str, object]] = []
    row, places = [BOS], []
    for seed, text in enumerate(texts):
        content += [
            {"type": "image", "image": random_picture(seed)},
            {"type": "text", "text": text},
        ]
        places.append(len(row))
        row += [FIRST + code for code in processor.image_codes(random_picture(seed)).tolist()]
        row += processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    asked = processor.for_chat([{"role": "user", "content": content}])
    assert asked["input_ids"].tolist() == [row]
    expected = filled([*row, *[MASK] * 4], tuple(places), slice(0, MASK))
    found = model.generate(**asked, max_new_tokens=4, do_sample=False, eos_token_id=-1)
    assert found[0].tolist() == expected


def test_approximate_reuse_sees_pictures_too(
    processor: UniDiffProcessor, model: UniDiffForBlockDiffusion
) -> None:
    content = [{"type": "image", "image": random_picture()}, {"type": "text", "text": "what?"}]
    asked = processor.for_chat([{"role": "user", "content": content}])
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": -1}
    exact = model.generate(**asked, **options)
    reused = model.generate(**asked, cache_reuse="dual", reuse_interval=1, **options)
    assert reused.tolist() == exact.tolist()


def test_more_pictures_than_there_are_numbers_are_named(model: UniDiffForBlockDiffusion) -> None:
    positions = torch.full((3, 1, 1), -17)
    with pytest.raises(ValueError, match="tells 16 pictures apart"):
        model(torch.tensor([[FIRST]]), position_ids=positions)


def test_the_published_file_is_read(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """A pickle, with a trainer's prefix, beside a `config.json` that says what it is."""
    weights = load_file(folders[0] / "model.safetensors")
    expected = UniDiffForBlockDiffusion.from_pretrained(folders[0]).state_dict()
    write_json(tmp_path / "config.json", UNIDISC.config)
    torch.save({f"backbone.{n}": w for n, w in weights.items()}, tmp_path / "unidisc.pt")
    found = UniDiffForBlockDiffusion.from_pretrained(tmp_path, use_safetensors=False)
    assert all(torch.equal(w, expected[name]) for name, w in found.state_dict().items())


def test_sizes_are_those_of_the_published_run(tmp_path: Path) -> None:
    """Without any field: Llama's ids, 16 x 16 codes, heads of 128."""
    shapes = {"vocab_embed.embedding": (48385, 256), "blocks.0.mlp.0.weight": (1024, 256)}
    write_json(tmp_path / "config.json", {"model_type": "unidisc"})
    found = settings(ForeignFolder.at(tmp_path, shapes))
    assert found["mask_token_id"] == 32000
    assert found["token_layout"]["ranges"] == {"text": [0, 32000], "image": [32001, 16384]}
    assert found["token_layout"]["image_grid"] == [16, 16]
    assert (found["num_attention_heads"], found["head_dim"]) == (2, 128)
    assert (found["bos_token_id"], found["eos_token_id"]) == (1, [2])
    assert found["picture_rope_factor"] == 1
    write_json(tmp_path / "config.json", {"model_type": "unidisc", "img_length": 1024})
    assert settings(ForeignFolder.at(tmp_path, shapes))["picture_rope_factor"] == 2


def test_rows_and_columns_are_divided_as_the_authors_class_divides_them(tmp_path: Path) -> None:
    """By linear_factor where there is one picture; where there are several, by their size."""
    shapes = {"vocab_embed.embedding": (48385, 256), "blocks.0.mlp.0.weight": (1024, 256)}
    several = {**shapes, "img_count_embedding": (16, 256)}
    write_json(tmp_path / "config.json", {"linear_factor": 4, "img_length": 1024})
    found = [settings(ForeignFolder.at(tmp_path, own)) for own in (shapes, several)]
    assert [one["picture_rope_factor"] for one in found] == [4, 2]


def as_the_hubs_mixin(folder: Path, **fields: object) -> None:
    """Rewrite a folder's `config.json` to the authors' tree of settings, changed in some places."""
    model = {"n_heads": HEADS, "img_length": 1536, "length": 1536, "full_attention": True, **fields}
    tree = {"model": model, "parameterization": "subs", "time_conditioning": False}
    own = {"vocab_size": FIRST + 50, "text_vocab_size": FIRST, "mask_index": MASK}
    write_json(folder / "config.json", {"config": tree, **own})


def test_what_the_hubs_mixin_writes_is_read(folders: tuple[Path, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders[0], tmp_path / "hub"))
    as_the_hubs_mixin(folder)
    assert UniDiffForBlockDiffusion.from_pretrained(folder).config.hidden_size == WIDTH
    found = open_foreign(folder).config
    flat = {key: value for key, value in UNIDISC.config.items() if key != "img_length"}
    write_json(folder / "config.json", flat)
    assert found.to_dict() == open_foreign(folder).config.to_dict()
    as_the_hubs_mixin(folder, full_attention=False)
    with pytest.raises(ValueError, match="full_attention = False"):
        UniDiffForBlockDiffusion.from_pretrained(folder)


def test_larger_pictures_are_stretched_over_the_same_axes() -> None:
    fields = {"picture_axes": True, "head_dim": 8}
    turns = [
        UniDiffRotaryEmbedding(UniDiffConfig(**fields, picture_rope_factor=factor))
        for factor in (1.0, 2.0)
    ]
    small, large = torch.tensor([[[-1]], [[1]], [[3]]]), torch.tensor([[[-1]], [[2]], [[6]]])
    found = [turn(place, torch.float32) for turn, place in zip(turns, (small, large), strict=True)]
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def test_what_cannot_be_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    weights = load_file(folders[0] / "model.safetensors")
    extra = {"blocks.0.adaLN_modulation.weight": torch.zeros(6, 2)}
    save_file(weights | extra, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", UNIDISC.config)
    with pytest.raises(ValueError, match="blocks are told the time"):
        open_foreign(tmp_path)
    save_file(weights, tmp_path / "model.safetensors")
    for fields, words in (
        ({"norm_type": "layernorm"}, "norm_type = 'layernorm'"),
        ({"text_vocab_size": 999}, "codes of pictures begin at 999"),
        ({"full_attention": False}, "full_attention = False"),
        ({"time_conditioning": True}, "time_conditioning = True"),
        ({"rope_2d": False}, "rope_2d = False"),
        ({"parameterization": "ar"}, "parameterization = 'ar'"),
        ({"mask_index": 5}, "mask_index = 5; what can be loaded is 299"),
        ({"qk_norm": False}, "qk_norm = False; what can be loaded is True"),
        ({"sandwich_normalization": False}, "sandwich_normalization = False"),
        ({"img_length": 10}, "img_length = 10; what can be loaded is the square"),
    ):
        write_json(tmp_path / "config.json", {**UNIDISC.config, **fields})
        with pytest.raises(ValueError, match=words):
            open_foreign(tmp_path)


def test_the_end_of_a_text_is_the_tokenizers(model: UniDiffForBlockDiffusion) -> None:
    assert model.config.eos_token_id == [END]
    assert model.config.bos_token_id == BOS
