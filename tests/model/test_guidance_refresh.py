"""Guidance whose weaker branches are read in some steps only, against a loop without a cache.

That rows are independent, and that the cache changes nothing, is in `test_guided_patterns.py` and
`test_session.py`.
"""

from typing import Any

import pytest
import torch
from small_decoding import PATTERNS, decode, prompts, tiny_model
from torch import Tensor

from unidiff.generation.option_checks import check_option
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.layout import contiguous_layout

# Under block_causal the prompt leaves 9 places of the first block; so do the weaker prompts.
GRID, PROMPT, BLOCKS = 12, 3, (9, 12)
STEPS = 6
SCALES = (1.5, 3.0)
WEAKER = [torch.tensor([[7, 8, 9]]), torch.arange(10, 25)[None]]
GUIDED: dict[str, Any] = {"guidance_scale": list(SCALES), "negative_input_ids": WEAKER}
GREEDY: dict[str, Any] = {"do_sample": False, "unmasking_strategy": "static"}
CHANGES: list[dict[str, Any]] = [
    {},
    {"guidance_interval": [0.3, 1.0]},
    {"guidance_interval": [0.1, 0.7]},
    {"guidance_schedule": "rising"},
]


@pytest.fixture(scope="module")
def models() -> dict[str, UniDiffForBlockDiffusion]:
    return {pattern: tiny_model(pattern, canvas_length=GRID) for pattern in PATTERNS}


def read(model: Any, prompt: Tensor, canvas: Tensor, is_known: Tensor) -> Tensor:
    """(K, V) logits of a canvas's masked places in one step, 0 at the known ones."""
    seen = []

    def keep(known: Tensor, scores: Tensor) -> Tensor:
        seen.append(scores.clone())
        return scores

    given = {"canvas": canvas[None], "pinned_mask": is_known[None], "max_denoising_steps": 1}
    decode(model, prompt, torch.ones_like(prompt), logits_processor=[keep], **given, **GREEDY)
    logits = torch.zeros(len(canvas), seen[0].shape[1], dtype=torch.float64)
    logits[~is_known] = seen[0]
    return logits


def strength(step: int, change: dict[str, Any]) -> float:
    """Share of each scale's distance from 1 that applies in a step."""
    progress = step / (STEPS - 1)
    start, stop = change.get("guidance_interval", (0.0, 1.0))
    share = progress if change.get("guidance_schedule") == "rising" else 1.0
    return share if start <= progress <= stop else 0.0


def plain_loop(
    model: Any, contexts: list[Tensor], length: int, refresh: int, change: dict[str, Any]
) -> tuple[Tensor, int]:
    """(one block's ids, forwards): every prompt read anew in each step, the stale logits kept."""
    canvas, is_known = torch.full((length,), 1), torch.zeros(length, dtype=torch.bool)
    stale: list[Tensor] | None = None
    num_forwards = 0
    for step in range(STEPS):
        mixed = strong = read(model, contexts[0], canvas, is_known)
        num_forwards += 1
        if share := strength(step, change):
            if step % refresh == 0 or stale is None:
                stale = [read(model, prompt, canvas, is_known) for prompt in contexts[1:]]
                num_forwards += len(stale)
            mixed = stale[0]
            for scale, weak, stronger in zip(SCALES, stale, [*stale[1:], strong], strict=True):
                mixed = mixed + (1 + (scale - 1) * share) * (stronger - weak)
        mixed = mixed.masked_fill(strong == -torch.inf, -torch.inf)
        certainty = mixed.softmax(1).amax(1).masked_fill(is_known, -1.0)
        num_left = int((~is_known).sum())
        chosen = certainty.topk(-(-num_left // (STEPS - step))).indices
        canvas[chosen], is_known[chosen] = mixed.argmax(1)[chosen], True
        if not num_left - len(chosen):
            return canvas, num_forwards
    raise AssertionError("masks are left")


@pytest.mark.parametrize("refresh", [1, 2, 3, 50])
@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_decoding_equals_a_plain_loop_that_keeps_stale_logits(
    pattern: str, change: dict, refresh: int, models: dict
) -> None:
    """Two blocks, or one canvas under full attention; forwards are counted too."""
    ids, mask = prompts([PROMPT])
    contexts, num_forwards = [ids, *WEAKER], 0
    blocks = BLOCKS[:1] if pattern == "full" else BLOCKS
    if pattern == "causal_context":
        blocks = tuple(GRID for _ in blocks)
    for length in blocks:
        block, cost = plain_loop(models[pattern], contexts, length, refresh, change)
        contexts = [torch.cat([prompt, block[None]], 1) for prompt in contexts]
        num_forwards += cost
    limits = {"max_new_tokens": sum(blocks), "max_denoising_steps": STEPS}
    options = {**GREEDY, **GUIDED, **change, **limits, "guidance_refresh": refresh}
    output = decode(models[pattern], ids, mask, **options)
    assert torch.equal(output.sequences, contexts[0])
    assert output.num_forwards.tolist() == [num_forwards]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_stale_logits_change_tokens_and_save_forwards(pattern: str, models: dict) -> None:
    """Else the test above would compare nothing; 9 steps, of which refresh 4 reads 0, 4 and 8."""
    ids, mask = prompts([PROMPT])
    options = {**GREEDY, **GUIDED, "max_new_tokens": BLOCKS[0]}
    fresh, stale, off = (
        decode(models[pattern], ids, mask, **options, **change)
        for change in ({}, {"guidance_refresh": 4}, {"guidance_interval": [0.0, 0.0]})
    )
    assert not torch.equal(fresh.sequences, stale.sequences)
    assert not torch.equal(off.sequences, stale.sequences)
    counts = [int(out.num_forwards) for out in (fresh, stale)]
    assert counts == [9 + 2 * 9, 9 + 2 * 3]


def test_a_skipped_reading_puts_no_tokens_through_the_model(
    models: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["causal_context"]
    rows = []
    forward = model.model.forward

    def counted(input_ids: Tensor, **kwargs: Any) -> Any:
        rows.append(input_ids.shape[0])
        return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model.model, "forward", counted)
    ids, mask = prompts([PROMPT])
    decode(model, ids, mask, **GREEDY, **GUIDED, guidance_refresh=3, max_new_tokens=6)
    assert rows == [3, 1, 1, 3, 1, 1]


def test_a_position_masked_again_that_was_never_read_is_read_before_it_is_mixed(
    models: dict,
) -> None:
    """The critic gives back what was revealed before guidance began; more than refresh asks for."""
    ids, mask = prompts([PROMPT])
    seen: list[int] = []

    def regrets_the_first(ids_BK: Tensor, may_BK: Tensor) -> Tensor:
        seen.append(len(seen))
        return torch.where(may_BK & torch.tensor(len(seen) == 5), 0.0, 1.0)

    options = {**GREEDY, **GUIDED, "guidance_refresh": 50, "guidance_interval": [0.3, 1.0]}
    options |= {"max_new_tokens": 9, "max_denoising_steps": 9}
    calm = decode(models["causal_context"], ids, mask, **options)
    again = decode(models["causal_context"], ids, mask, revision=regrets_the_first, **options)
    assert int(calm.num_forwards) == 9 + 2
    assert int(again.num_forwards) == len(seen) + 2 * 2


@pytest.mark.parametrize("start", [0.0, 0.5])
@pytest.mark.parametrize(
    ("pattern", "window"),
    [
        ("causal_context", {"sub_block_length": 4}),
        ("block_causal", {"sub_block_length": 3}),
        ("full", {"block_length": 4}),
    ],
)
def test_each_window_reads_once_where_guidance_begins(
    pattern: str, window: dict, start: float, models: dict
) -> None:
    ids, mask = prompts([PROMPT])
    num_windows, num_tokens = (7, 21) if pattern == "block_causal" else (6, 24)
    options = {**GREEDY, **GUIDED, **window, "guidance_interval": [start, 1.0]}
    options |= {"max_new_tokens": num_tokens, "max_denoising_steps": 2}
    output = decode(models[pattern], ids, mask, guidance_refresh=50, **options)
    assert output.num_forwards.tolist() == [(2 + 2) * num_windows]


def test_a_new_canvas_holds_nothing_of_the_one_before(models: dict) -> None:
    """Left to right, the places open when guidance begins are the same in both blocks."""
    ids, mask = prompts([PROMPT])
    options = {**GREEDY, **GUIDED, "unmasking_strategy": "sequential", "guidance_refresh": 50}
    options |= {"guidance_interval": [0.3, 1.0], "max_denoising_steps": STEPS}
    output = decode(models["causal_context"], ids, mask, max_new_tokens=2 * GRID, **options)
    assert output.num_forwards.tolist() == [2 * (STEPS + 2)]


def test_a_row_of_two_modalities_beside_one_of_text_equals_it_alone() -> None:
    """The ids asked for narrow when the text is done, and widen when others join."""
    layout = contiguous_layout(
        {"text": 48, "image": 12},
        reserved_token_ids=(0, 1, 2),
        mask_token_id=1,
        pad_token_id=0,
        end_token_ids=(3,),
        image_grid=(2, 3),
    )
    model = tiny_model("causal_context", vocab_size=layout.num_ids, token_layout=layout.to_dict())
    ids, mask = prompts([PROMPT, PROMPT])
    kinds = torch.tensor([[1] * 6 + [0] * 2, [0] * 6 + [0] * 2])
    options = {**GUIDED, "guidance_refresh": 3, "temperature": 2.0}
    together = decode(model, ids, mask, canvas_modality_ids=kinds, seed=4, **options)
    for row in (0, 1):
        own = {"canvas_modality_ids": kinds[row : row + 1], "seed": together.row_seeds[row]}
        alone = decode(model, ids[row : row + 1], mask[row : row + 1], **own, **options)
        assert torch.equal(alone.canvas[0], together.canvas[row])
        assert alone.num_forwards[0] == together.num_forwards[row]


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ({}, {"decoding_mode": "ar"}, "guidance_refresh counts denoising steps"),
        ({}, {"decoding_mode": "self_speculative"}, "guidance_refresh counts denoising steps"),
        ({}, {"guidance_refresh": 0}, "guidance_refresh must be >= 1"),
        ({"trained_on_visible": True}, {"revision": "edit"}, "holds nothing of visible tokens"),
        ({"trained_on_visible": True}, {"revision": "secondary"}, "use guidance_refresh=1"),
        *[
            ({"noise_process": "uniform", "uniform_prediction": "posterior"}, options, "'uniform'")
            for options in (
                {},
                {"revision": "renoise"},
                {"unmasking_strategy": "ancestral"},
                {"unmasking_strategy": "ancestral", "guidance_level": "posterior"},
            )
        ],
    ],
)
def test_what_cannot_skip_readings_is_refused(config: dict, options: dict, message: str) -> None:
    model = tiny_model("causal_context", **config)
    ids, mask = prompts([PROMPT])
    settings = {**GUIDED, "guidance_refresh": 2, **options, "max_new_tokens": 4}
    with pytest.raises(ValueError, match=message):
        decode(model, ids, mask, **settings)


def test_a_refresh_is_a_whole_number_of_steps() -> None:
    with pytest.raises(TypeError, match="guidance_refresh must be an integer"):
        check_option("guidance_refresh", 1.5)
