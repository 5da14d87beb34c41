"""Uniform noise on a model: the invariances of decoding, for every way to decide."""

from typing import Any

import pytest
import torch
from small_decoding import CACHED, CANVAS, PATTERNS, decode, prompts, responses, tiny_model
from torch import Tensor

from unidiff.model.denoiser import ModelDenoiser
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.layout import contiguous_layout

MASK = 1
WAYS: dict[str, dict[str, Any]] = {
    "reveal": {"unmasking_strategy": "static", "max_denoising_steps": 4},
    "threshold": {"confidence_threshold": 0.4},
    "critic": {"revision": lambda ids, may: (ids % 2).double(), "max_denoising_steps": 4},
    "renoise": {
        "revision": "renoise",
        "unmasking_strategy": "entropy_bound",
        "entropy_bound": 2.0,
        "stability_entropy": 2.5,
    },
    "ancestral": {"unmasking_strategy": "ancestral", "max_denoising_steps": 4},
}
GUIDED: dict[str, Any] = {
    "guidance_scale": 2.0,
    "guidance_interval": [0.2, 1.0],
    "negative_input_ids": torch.tensor([[7, 8, 9]]),
}


def uniform_model(pattern: str, kind: str = "posterior", **config: Any) -> UniDiffForBlockDiffusion:
    return tiny_model(pattern, noise_process="uniform", uniform_prediction=kind, **config)


@pytest.fixture(scope="module")
def models() -> dict[str, UniDiffForBlockDiffusion]:
    kinds = ("posterior", "leave_one_out", "posterior")
    return {p: uniform_model(p, kind) for p, kind in zip(PATTERNS, kinds, strict=True)}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every canvas that the model is shown, padding cut off."""
    canvases: list[Tensor] = []
    probe = ModelDenoiser.probe

    def watched(self: ModelDenoiser, cache: Any, canvas: Any, **keywords: Any) -> Tensor:
        for ids, length in zip(canvas.ids_BT, canvas.length_B.tolist(), strict=True):
            canvases.append(ids[:length].clone())
        return probe(self, cache, canvas, **keywords)

    monkeypatch.setattr(ModelDenoiser, "probe", watched)
    return canvases


@pytest.mark.parametrize("guidance", [{}, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_batched_row_equals_the_row_alone(
    pattern: str, way: str, guidance: dict, models: dict, shown: list[Tensor]
) -> None:
    lengths = [9, 3, 15]
    ids, mask = prompts(lengths)
    own: dict[str, Any] = {"max_new_tokens": [14, 5, 9], "eos_token_id": [[-1], [9, 20], [30, 31]]}
    together = decode(models[pattern], ids, mask, seed=3, **WAYS[way], **own, **guidance)
    assert not any((canvas == MASK).any() for canvas in shown)
    assert not (together.sequences[:, ids.shape[1] :] == MASK).any()
    for row, length in enumerate(lengths):
        bare = ids[row : row + 1, ids.shape[1] - length :]
        alone = decode(
            models[pattern],
            bare,
            torch.ones_like(bare),
            seed=together.row_seeds[row],
            **WAYS[way],
            **guidance,
            **{option: values[row : row + 1] for option, values in own.items()},
        )
        assert responses(alone, length)[0] == responses(together, ids.shape[1])[row]
        assert alone.num_forwards[0] == together.num_forwards[row]
        assert alone.finish_reason[0] == together.finish_reason[row]


@pytest.mark.parametrize("change", [{"fuse_commit": False}, {"cache_reuse": "none"}], ids=str)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pattern", CACHED)
def test_cache_and_fusing_change_nothing(
    pattern: str, way: str, change: dict, models: dict
) -> None:
    ids, mask = prompts([9, 3])
    options: dict[str, Any] = {"max_new_tokens": [20, 9], "seed": 5, **WAYS[way], **GUIDED}
    one = decode(models[pattern], ids, mask, **options)
    other = decode(models[pattern], ids, mask, **options, **change)
    assert torch.equal(one.sequences, other.sequences)
    torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("side", ["right", "middle"])
@pytest.mark.parametrize("way", ["renoise", "ancestral"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_padding_changes_nothing(pattern: str, way: str, side: str, models: dict) -> None:
    options: dict[str, Any] = {"max_new_tokens": 9, "seed": 5, **WAYS[way]}
    found = []
    for where in ("left", side):
        ids, mask = prompts([9, 3], where)
        found.append(responses(decode(models[pattern], ids, mask, **options), ids.shape[1]))
    assert found[0] == found[1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_pinned_tokens_stay_and_are_always_shown(
    pattern: str, way: str, models: dict, shown: list[Tensor]
) -> None:
    ids, mask = prompts([CANVAS])
    canvas = torch.arange(10, 10 + CANVAS)[None] * 2
    pinned = torch.tensor([[True, False] * (CANVAS // 2)])
    output = decode(models[pattern], ids, mask, canvas=canvas, pinned_mask=pinned, **WAYS[way])
    assert torch.equal(output.canvas[pinned], canvas[pinned])
    for seen in shown:
        assert torch.equal(seen[-CANVAS:][pinned[0]], canvas[pinned])


@pytest.mark.parametrize("way", ["renoise", "ancestral"])
def test_pinning_the_mask_id_as_text_is_kept(way: str, models: dict) -> None:
    """Masked state is a boolean: a known token may well be the id that stands for masks."""
    ids, mask = prompts([4])
    canvas = torch.full((1, 3), MASK)
    pinned = torch.tensor([[False, True, False]])
    output = decode(
        models["causal_context"], ids, mask, canvas=canvas, pinned_mask=pinned, **WAYS[way]
    )
    assert output.canvas[0, 1] == MASK
    assert not (output.canvas[0, [0, 2]] == MASK).any()


@pytest.mark.parametrize("way", WAYS)
def test_each_position_shows_and_takes_ids_of_its_modality(way: str, shown: list[Tensor]) -> None:
    layout = contiguous_layout(
        {"text": 30, "image": 18},
        mask_token_id=MASK,
        pad_token_id=0,
        end_token_ids=(3,),
        reserved_token_ids=(0, 2),
        image_grid=(2, 2),
    )
    model = uniform_model("causal_context", token_layout=layout.to_dict())
    ids = torch.tensor([[5, 6, 7]])
    modality = torch.tensor([[0, 0, 1, 1, 1, 1]])
    options = {**WAYS[way], "seed": 4}
    output = model.generate(
        ids, canvas_modality_ids=modality, do_sample=True, return_dict_in_generate=True, **options
    )
    for seen in [*shown, output.canvas[0]]:
        assert torch.equal(seen >= 30, modality[0] == 1)
        assert not torch.isin(seen[:2], torch.tensor([0, MASK, 2])).any()


@pytest.mark.parametrize("way", WAYS)
def test_sub_blocks_and_delimiters_work_alike(way: str, models: dict) -> None:
    ids, mask = prompts([9, 4])
    model = models["causal_context"]
    for change in (
        {"sub_block_length": 2},
        {"block_delimiters": [5, 9, 17, 30], "delimiter_threshold": 0.01},
    ):
        options: dict[str, Any] = {"max_new_tokens": 13, "seed": 2, **WAYS[way], **change}
        output = decode(model, ids, mask, **options)
        assert output.sequences.shape[1] == ids.shape[1] + 13
        again = decode(model, ids, mask, **options, cache_reuse="none")
        assert torch.equal(output.sequences, again.sequences)


def test_renoising_may_change_what_was_accepted(models: dict) -> None:
    ids, mask = prompts([4])
    options = {"max_new_tokens": CANVAS, "seed": 2, "return_trace": True, "revision": "renoise"}
    output = decode(models["causal_context"], ids, mask, unmasking_strategy="static", **options)
    trace = output.trace[0]
    assert len(trace) > CANVAS
    tokens = {place: set() for place in range(CANVAS)}
    for place, token in zip(trace.index, trace.token_id, strict=True):
        tokens[place].add(token)
    assert any(len(found) > 1 for found in tokens.values())


def test_the_left_to_right_reading_needs_no_noise(models: dict) -> None:
    ids, mask = prompts([4])
    options = {"max_new_tokens": 5, "seed": 2, "decoding_mode": "ar"}
    plain = tiny_model("causal_context")
    assert torch.equal(
        decode(models["causal_context"], ids, mask, **options).sequences,
        decode(plain, ids, mask, **options).sequences,
    )


@pytest.mark.parametrize(
    ("noise", "options", "message"),
    [
        ("absorbing", {"revision": "renoise"}, "is for uniform noise"),
        ("absorbing", {"unmasking_strategy": "ancestral"}, "is for uniform noise"),
        ("absorbing", {"guidance_level": "posterior"}, "only unmasking_strategy='ancestral'"),
        ("uniform", {"unmasking_strategy": "remdm"}, "is for absorbing noise"),
        ("uniform", {"revision": "edit"}, "is for absorbing noise"),
        ("uniform", {"revision": "secondary"}, "is for absorbing noise"),
        ("uniform", {"decoding_mode": "self_speculative"}, "drafts on masks"),
        ("uniform", {"decoding_mode": "ar", "revision": "renoise"}, "decoding_mode='diffusion'"),
        (
            "uniform",
            {"unmasking_strategy": "ancestral", "revision": "renoise"},
            "leave `revision` out",
        ),
        (
            "uniform",
            {"revision": "renoise", "guidance_level": "posterior"},
            "only unmasking_strategy='ancestral'",
        ),
        (
            "uniform",
            {"revision": "renoise", "final_entropy_bound": 2.0},
            "final_entropy_bound goes by the share",
        ),
        (
            "uniform",
            {"revision": "renoise", "final_local_entropy_bound": 2.0},
            "final_local_entropy_bound goes by the share",
        ),
        ("uniform", {"guidance_level": "words"}, "guidance_level must be one of"),
        ("uniform", {"stability_steps": -1}, "stability_steps must be >= 0"),
    ],
)
def test_what_does_not_fit_the_noise_is_refused(noise: str, options: dict, message: str) -> None:
    uniform = noise == "uniform"
    model = uniform_model("causal_context") if uniform else tiny_model("causal_context")
    ids, mask = prompts([4])
    with pytest.raises(ValueError, match=message):
        decode(model, ids, mask, **options)


def test_approximate_reuse_is_refused() -> None:
    model = tiny_model("full", noise_process="uniform", uniform_prediction="posterior")
    ids, mask = prompts([4])
    with pytest.raises(ValueError, match="cache_reuse='dual' goes by masks"):
        decode(model, ids, mask, cache_reuse="dual", max_new_tokens=4)
