"""Features of pictures in prompts decode as if they were rows of the embedding.

Run: pytest tests/model/test_soft_prompts.py
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_decoding import CACHED, CANVAS, PATTERNS, VOCAB, random_model
from torch import Tensor, nn

from unidiff.generation.inputs import GenerationInputs
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.model.soft_positions import pictures_of_rows
from unidiff.tokens.layout import IdRange, TokenLayout
from unidiff.training.lora import LoRAOptions, add_lora

SOFT = VOCAB - 1
SIDE = 28
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 14,
}
TILES = {
    "side": SIDE,
    "features": 2,
    "canvases": [[28, 28], [56, 28], [28, 56], [56, 56]],
    "most": 4,
    "pool": 1,
}
TILED = {"kind": "tiles", "tower": TOWER, "tiles": TILES, "projector_depth": 2}
PATCHED = {
    "kind": "patches",
    "tower": {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
    "tower_type": "qwen2_vl",
    "projector_depth": 2,
    "projector_activation": "silu",
}
SIZES = ((40, 60), (20, 20), (30, 90))  # of three pictures, (height, width)


def layout(num_text: int = VOCAB) -> TokenLayout:
    return TokenLayout(
        ranges={"text": IdRange(0, num_text)},
        mask_token_id=1,
        pad_token_id=0,
        end_token_ids=(3,),
        soft_token_id=SOFT,
    )


def soft_model(pattern: str = "full", vision: Any = TILED, **config: Any) -> Any:
    """A tiny model that reads pictures, in float64."""
    settings = {
        "vocab_size": VOCAB,
        "canvas_length": CANVAS,
        "tie_word_embeddings": False,
        "attention_pattern": pattern,
        "token_layout": layout().to_dict(),
        "vision": vision,
        **config,
    }
    return random_model(7, **settings).double()


def pictures(model: UniDiffForBlockDiffusion, numbers: list[int]) -> dict[str, Tensor]:
    """Random tiles of some of the three pictures."""
    pieces = []
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        shape = (model.vision.tiles.num_tiles(SIZES[number]), 3, SIDE, SIDE)
        pieces.append(torch.randn(shape, generator=generator))
    sizes = torch.tensor([SIZES[number] for number in numbers])
    return {"pixel_values": torch.cat(pieces), "image_sizes": sizes}


def prompt(model: UniDiffForBlockDiffusion, *parts: int | str) -> list[int]:
    """Ids of a row: numbers are tokens, "p0" the positions of the first picture."""
    ids: list[int] = []
    for part in parts:
        if isinstance(part, str):
            ids += [SOFT] * model.vision.tiles.num_positions(SIZES[int(part[1:])])
        else:
            ids.append(part)
    return ids


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Left-padded ids and their mask."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


class AsRows:
    """The oracle: the same model without a tower, whose features are rows of the embedding."""

    def __init__(self, model: UniDiffForBlockDiffusion, given: dict[str, Tensor]) -> None:
        with torch.no_grad():
            self.features = torch.cat(model.vision(**_vision_arguments(given)))
        size = VOCAB + len(self.features)
        config = UniDiffConfig(
            **{
                **model.config.to_dict(),
                "vocab_size": size,
                "vision": None,
                "token_layout": layout().to_dict(),
            }
        )
        self.model = UniDiffForBlockDiffusion(config).double().eval()
        weights = {k: v for k, v in model.state_dict().items() if not k.startswith("vision.")}
        table = weights["model.embed_tokens.weight"]
        weights["model.embed_tokens.weight"] = torch.cat([table, self.features])
        head = weights["lm_head.weight"]
        weights["lm_head.weight"] = nn.functional.pad(head, (0, 0, 0, len(self.features)))
        self.model.load_state_dict(weights)

    def ids(self, ids: Tensor, start: int = 0) -> Tensor:
        """The same prompt with an id of its own for each feature, counted from `start`."""
        ids = ids.clone()
        is_soft = ids == SOFT
        ids[is_soft] = VOCAB + start + torch.arange(int(is_soft.sum()))
        return ids


def _vision_arguments(given: dict[str, Tensor]) -> dict[str, Tensor]:
    shapes = given.get("image_sizes", given.get("image_grid_thw"))
    return {"pixel_values": given["pixel_values"], "shapes": shapes}


def both(
    model: UniDiffForBlockDiffusion, rows: list[list[int]], numbers: list[int], **options: Any
) -> tuple[Tensor, Tensor]:
    """Responses of a batch with pictures, and the oracle's."""
    ids, mask = padded(rows)
    given, settings = pictures(model, numbers), {"eos_token_id": -1, "seed": 5, **options}
    found = model.generate(ids, attention_mask=mask, **given, **settings)
    oracle = AsRows(model, given)
    negative = settings.get("negative_input_ids")
    if negative is not None and bool((negative == SOFT).any()):
        settings["negative_input_ids"] = oracle.ids(negative)
    expected = oracle.model.generate(oracle.ids(ids), attention_mask=mask, **settings)
    return found[:, ids.shape[1] :], expected[:, ids.shape[1] :]


SAMPLED = {"do_sample": True, "temperature": 0.9, "max_new_tokens": 11}


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        *((pattern, {}) for pattern in PATTERNS),
        *((pattern, {"prefill_chunk_length": 7}) for pattern in CACHED),
        *((pattern, {"fuse_commit": False}) for pattern in CACHED),
        *((pattern, {"cache_reuse": "none"}) for pattern in CACHED),
    ],
    ids=str,
)
def test_features_decode_as_rows_of_the_embedding(pattern: str, options: dict, shift: int) -> None:
    model = soft_model(pattern, logits_shift=shift)
    rows = [
        prompt(model, 5, "p0", 9, 10, "p1", 6),
        prompt(model, 4, 4, 7, 8),
        prompt(model, "p2", 11),
    ]
    found, expected = both(model, rows, [0, 1, 2], **SAMPLED, **options)
    assert found.tolist() == expected.tolist()
    assert SOFT not in found


@pytest.mark.parametrize("mode", ["ar", "self_speculative"])
def test_other_modes_read_pictures_too(mode: str) -> None:
    model = soft_model("causal_context", logits_shift=int(mode == "ar"))
    rows = [prompt(model, 5, "p0", 9), prompt(model, 6, "p1", 7, 7)]
    options = {"max_new_tokens": 9, "decoding_mode": mode}
    found, expected = both(model, rows, [0, 1], **options)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("reuse", ["prefix", "dual", "interval", "elastic"])
def test_approximate_reuse_reads_pictures_too(reuse: str) -> None:
    model = soft_model("full")
    rows = [prompt(model, 5, "p0", 9), prompt(model, 6, "p1", 7, 7)]
    found, expected = both(model, rows, [0, 1], cache_reuse=reuse, max_new_tokens=12)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("pattern", ["causal_context", "full"])
@pytest.mark.parametrize("shows_pictures", [True, False])
def test_guidance_mixes_prompts_with_pictures(pattern: str, shows_pictures: bool) -> None:
    model = soft_model(pattern)
    rows = [prompt(model, 5, "p0", 9, 8), prompt(model, 6, "p0", 7, 7)]
    weaker = [prompt(model, 12, "p0"), prompt(model, 13, "p0")]
    negative = torch.tensor(weaker) if shows_pictures else torch.tensor([[12, 13]])
    options = {"guidance_scale": 1.5, "negative_input_ids": negative, **SAMPLED}
    found, expected = both(model, rows, [0, 0], **options)
    assert found.tolist() == expected.tolist()
    plain, _ = both(model, rows, [0, 0], **SAMPLED)
    assert found.tolist() != plain.tolist()  # the weaker branch is read


def test_a_further_turn_keeps_the_same_picture_and_reads_another() -> None:
    model = soft_model("causal_context")
    options = {"max_new_tokens": 6, "eos_token_id": -1, "return_dict_in_generate": True}
    ids = torch.tensor([prompt(model, 5, "p0", 9)])
    first = model.generate(ids, **pictures(model, [0]), **options)
    second = torch.cat([first.sequences, torch.tensor([prompt(model, 8, "p1", 7)])], dim=1)
    given = pictures(model, [0, 1])
    counts: list[int] = []
    model.model.embed_tokens.register_forward_hook(
        lambda module, args, output: counts.append(args[0].numel())
    )
    fresh = model.generate(second, **given, **options)
    num_fresh, counts[:] = sum(counts), []
    again = model.generate(second, **given, past_key_values=first.past_key_values, **options)
    assert again.sequences.tolist() == fresh.sequences.tolist()
    assert sum(counts) == num_fresh - len(ids[0])  # the first prompt was not read again

    other = dict(given, pixel_values=given["pixel_values"].flip(0))
    fresh = model.generate(second, **other, **options)
    again = model.generate(second, **other, past_key_values=first.past_key_values, **options)
    assert again.sequences.tolist() == fresh.sequences.tolist()


def test_rows_join_and_leave_with_their_pictures() -> None:
    """Rows that end early leave the batch; those that stay keep their own features."""
    model = soft_model("causal_context")
    rows = [prompt(model, 5, "p0", 9), prompt(model, 6, "p1", 7), prompt(model, 4, "p2", 7)]
    options = {"max_new_tokens": [2, 3, 20], "cache_reuse": "none"}
    found, expected = both(model, rows, [0, 1, 2], **options)
    assert found.tolist() == expected.tolist()


def test_a_forward_takes_pictures() -> None:
    model = soft_model()
    ids, mask = padded([prompt(model, 5, "p0", 9), prompt(model, 6, "p1", 7)])
    given = pictures(model, [0, 1])
    oracle = AsRows(model, given)
    found = model(ids, attention_mask=mask, **given).logits
    expected = oracle.model(oracle.ids(ids), attention_mask=mask).logits[..., :VOCAB]
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()])
    found.sum().backward()
    assert model.vision.projector[0].weight.grad.abs().sum() > 0


def test_a_static_shape_is_the_same() -> None:
    model = soft_model("causal_context")
    rows = [prompt(model, 5, "p0", 9)]
    found, expected = both(model, rows, [0], cache_implementation="static", **SAMPLED)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("vision", [TILED, PATCHED], ids=["tiles", "patches"])
def test_saving_keeps_the_tower(vision: dict, tmp_path: Path) -> None:
    model = soft_model(vision=vision).float()
    model.save_pretrained(tmp_path)
    again = UniDiffForBlockDiffusion.from_pretrained(tmp_path)
    given = pictures(model, [0]) if vision is TILED else patches([[1, 4, 6]])
    one, two = (each.vision(**_vision_arguments(given))[0] for each in (model, again))
    assert torch.equal(one, two)
    assert one.abs().sum() > 0


def patches(grids: list[list[int]]) -> dict[str, Tensor]:
    """Random patches of pictures."""
    count = sum(times * rows * columns for times, rows, columns in grids)
    pixels = torch.randn(count, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(1))
    return {"pixel_values": pixels, "image_grid_thw": torch.tensor(grids)}


def test_patches_keep_their_grid_as_positions() -> None:
    """As written out: time, row, column; text goes on behind the largest."""
    model = soft_model("causal_context", vision=PATCHED)
    given = patches([[1, 4, 6], [1, 2, 2]])
    row = [5, 6, *[SOFT] * 6, 7, SOFT, 8]
    ids, mask = padded([row, [4, 4]])
    rows = model.read_pictures(ids, mask, given["pixel_values"], None, given["image_grid_thw"])
    found = model.picture_positions(ids, mask, rows)
    assert found[:, 0].tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6, 7],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 7],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7],
    ]
    assert found[:, 1, -2:].tolist() == [[0, 1]] * 3


@pytest.mark.parametrize("pattern", ["causal_context", "full"])
def test_responses_continue_behind_the_grid(pattern: str) -> None:
    model = soft_model(pattern, vision=PATCHED, rope_parameters=SECTIONS)
    given = patches([[1, 4, 6]])
    ids = torch.tensor([[5, 6, *[SOFT] * 6, 7]])
    oracle = AsRows(model, given)
    positions = torch.tensor(
        [[0, 1, 2, 2, 2, 2, 2, 2, 5], [0, 1, 2, 2, 2, 3, 3, 3, 5], [0, 1, 2, 3, 4, 2, 3, 4, 5]]
    )
    options = {"max_new_tokens": 9, "eos_token_id": -1}
    found = model.generate(ids, **given, **options)
    expected = oracle.model.generate(oracle.ids(ids), position_ids=positions[:, None], **options)
    assert found[0, 9:].tolist() == expected[0, 9:].tolist()
    counted = oracle.model.generate(oracle.ids(ids), **options)
    assert expected[0, 9:].tolist() != counted[0, 9:].tolist()  # positions matter


SECTIONS = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}


def test_sections_turn_one_after_the_other() -> None:
    model = soft_model(rope_parameters=SECTIONS)
    positions = torch.tensor([3, 5, 7])[:, None, None]
    cosine, _ = model.model.rotary(positions, torch.float64)
    frequency, _ = model.model.rotary.inverse_frequencies()
    expected = torch.tensor([3, 3, 5, 5, 5, 7, 7, 7]) * frequency
    torch.testing.assert_close(cosine[0, 0, 0].float(), expected.cos().repeat(2))


def test_lora_leaves_the_tower_alone() -> None:
    model = soft_model("causal_context").float()
    add_lora(model, LoRAOptions(r=2, alpha=64, target_modules=("q_proj", "v_proj")), "one", seed=0)
    adapted = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert adapted
    assert not any(name.startswith("vision.") for name in adapted)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    given, ids = pictures(model, [0]), torch.tensor([prompt(model, 5, "p0", 9)])
    options = {"max_new_tokens": 8, "eos_token_id": -1}
    two = {name: torch.cat([value, value]) for name, value in given.items()}
    mixed = model.generate(ids.repeat(2, 1), **two, **options, adapter_names=["one", None]).tolist()
    tuned = model.generate(ids, **given, **options)[0].tolist()
    model.disable_adapters()
    plain = model.generate(ids, **given, **options)[0].tolist()
    assert mixed == [tuned, plain]
    assert tuned != plain


def test_pictures_in_numpy_are_the_same_pictures() -> None:
    model = soft_model("causal_context")
    ids, given = torch.tensor([prompt(model, 5, "p0", 9)]), pictures(model, [0])
    arrays = {name: value.numpy() for name, value in given.items()}
    options = {"max_new_tokens": 8, "do_sample": False}
    expected = model.generate(ids, **given, **options)
    assert torch.equal(model.generate(ids, **arrays, **options), expected)


def test_no_response_holds_a_soft_position() -> None:
    assert not layout().allowed_ids("text", VOCAB)[SOFT]
    assert TokenLayout.from_dict(layout().to_dict()).soft_token_id == SOFT


def test_wrong_pictures_are_refused_by_name() -> None:
    model = soft_model("causal_context")
    ids, given = torch.tensor([prompt(model, 5, "p0", 9)]), pictures(model, [0])
    with pytest.raises(
        ValueError, match=r"positions for features of pictures, and there are no pictures"
    ):
        model.generate(ids)
    with pytest.raises(ValueError, match=r"row 0 of input_ids has 14 positions .* pictures have 0"):
        model.decoding_session(max_rows=1).submit(GenerationInputs(ids))
    with pytest.raises(ValueError, match=r"the 2 pictures of pixel_values .*do not get whole"):
        model.generate(ids, **pictures(model, [0, 1]))
    with pytest.raises(ValueError, match=r"must have the shape \(5, 3, 28, 28\).*got \(4, 3, 28"):
        model.generate(ids, pixel_values=given["pixel_values"][1:], image_sizes=SIZE_0)
    with pytest.raises(ValueError, match=r"got \(5, 3, 28, 14\)"):
        model.generate(ids, pixel_values=given["pixel_values"][..., :14], image_sizes=SIZE_0)
    with pytest.raises(ValueError, match="pass both and no image_grid_thw"):
        model.generate(ids, pixel_values=given["pixel_values"], image_grid_thw=SIZE_0)
    with pytest.raises(ValueError, match="pass both"):
        model.generate(ids, image_sizes=SIZE_0)
    with pytest.raises(ValueError, match=r"image_sizes must be a \(pictures, 2\)"):
        model.generate(ids, pixel_values=given["pixel_values"], image_sizes=SIZE_0[0])
    with pytest.raises(ValueError, match="row 0 of negative_input_ids has 1 position"):
        model.generate(
            ids, **given, guidance_scale=2.0, negative_input_ids=torch.tensor([[4, SOFT]])
        )
    pinned = torch.tensor([[True, False]])
    with pytest.raises(ValueError, match="the canvas has 1 position"):
        model.generate(ids, **given, canvas=torch.tensor([[SOFT, 1]]), pinned_mask=pinned)
    blind = random_model(7, vocab_size=VOCAB)
    with pytest.raises(ValueError, match="this one has no tower"):
        blind.generate(ids, **given)


SIZE_0 = torch.tensor([SIZES[0]])


def test_patches_that_cannot_be_merged_are_refused() -> None:
    model = soft_model(vision=PATCHED)
    given = patches([[1, 3, 4]])
    with pytest.raises(ValueError, match="rows and columns of patches that 2 divides"):
        model.generate(torch.tensor([[5, *[SOFT] * 3]]), **given)


@pytest.mark.parametrize(
    ("places", "sizes", "expected"),
    [
        ([3, 0, 2], [1, 2, 2], [[0, 1], [], [2]]),
        ([0, 0], [], [[], []]),
        ([3], [2, 2], None),
        ([2, 2], [3, 1], None),
        ([2], [2, 2], None),
        ([2, 1], [2], None),
    ],
)
def test_rows_get_whole_pictures_in_order(places: list, sizes: list, expected: Any) -> None:
    if expected is None:
        with pytest.raises(ValueError, match="whole pictures"):
            pictures_of_rows(places, sizes)
    else:
        assert pictures_of_rows(places, sizes) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vision": {"kind": "sound"}}, "must have a kind of"),
        ({"token_layout": None}, "soft_token_id"),
        ({"rope_parameters": {**SECTIONS, "mrope_section": [2, 3]}}, "three numbers"),
        ({"rope_parameters": {**SECTIONS, "mrope_section": [2, 3, 4]}}, "half of the 16"),
    ],
)
def test_contradictions_are_named(fields: dict, message: str) -> None:
    with pytest.raises(Exception, match=message):
        soft_model(**fields)
