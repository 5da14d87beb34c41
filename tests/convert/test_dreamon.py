"""DreamOn fills holes of unknown length as its published loop does."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor

from .published import END, MASK, write_json
from .published_dreamon import BEGIN, DREAMON, EXPAND

LIMIT = 5


def published_model() -> torch.nn.Module:
    """The reference, whose two tokens are likely enough to be seen."""
    model = DREAMON.model()
    with torch.no_grad():
        model.lm_head.weight[[EXPAND, END]] *= 2.5
    return model


def infilled(
    logits: Callable[[Tensor], Tensor], known: list[int], hole: int, rest: list[int]
) -> tuple[list[int], Counter]:
    """The published loop at temperature 0, one token a step.

    Args:
        logits: (1, L) ids -> (L, V), paired with their positions.
        known: ids before the hole.
        hole: tokens that it begins with.
        rest: ids behind it.

    Returns:
        (the row, how often each of the two tokens was taken).
    """
    row, budget, taken = [*known, *[MASK] * hole, *rest], 2 * LIMIT, Counter()
    masked = [False] * len(known) + [True] * hole + [False] * len(rest)
    while any(masked):
        found = logits(torch.tensor([row])).double()
        found[:, MASK] = -torch.inf
        if len(row) - len(known) - len(rest) >= LIMIT or not budget:
            found[:, EXPAND] = -torch.inf
        law = found.softmax(-1)
        score = (law * (law + 1e-30).log()).sum(-1)
        score[~torch.tensor(masked)] = -torch.inf
        place = int(score.argmax())
        token = int(law[place].argmax())
        taken[token] += 1
        budget -= token == EXPAND
        new = {EXPAND: [MASK, MASK], END: []}.get(token, [token])
        row[place : place + 1] = new
        masked[place : place + 1] = [token == EXPAND] * len(new)
    return row, taken


def test_infilling_equals_the_published_loop(tmp_path: Path) -> None:
    theirs = published_model()
    folder = DREAMON.write(tmp_path / "foreign", theirs)
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    assert model.generation_config.max_infill_tokens == 64

    def logits(ids: Tensor) -> Tensor:
        raw = DREAMON.logits(theirs, ids)[0]
        return torch.cat([raw[:1], raw[:-1]])

    seen: Counter = Counter()
    for seed in range(8):
        ids = torch.randint(0, 256, (9,), generator=torch.Generator().manual_seed(seed)).tolist()
        known, rest, hole = ids[:5], ids[5:], 1 + seed % 4
        expected, taken = infilled(logits, known, hole, rest)
        seen += taken
        found = model.generate(
            torch.tensor([known]),
            canvas=torch.tensor([[MASK] * hole + rest]),
            pinned_mask=torch.tensor([[False] * hole + [True] * len(rest)]),
            do_sample=False,
            max_infill_tokens=LIMIT,
            return_dict_in_generate=True,
        )
        assert found.sequences[0, : len(expected)].tolist() == expected
        assert (found.sequences[0, len(expected) :] == END).all()  # padding
        assert found.finish_reason == ["canvas"]
        assert found.num_forwards[0] == taken.total()
    assert seen[EXPAND] >= 3
    assert seen[END] >= 3


def test_a_text_with_a_hole_is_filled_through_the_processor(tmp_path: Path) -> None:
    theirs = published_model()
    folder = DREAMON.write(tmp_path / "foreign", theirs)
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    processor = UniDiffProcessor.from_pretrained(folder)

    def logits(ids: Tensor) -> Tensor:
        raw = DREAMON.logits(theirs, ids)[0]
        return torch.cat([raw[:1], raw[:-1]])

    lengths, requests, texts = [], [], []
    for prefix, suffix in (("a", ""), ("", "12"), ("x = ", "one two "), ("the ", "if "), ("", "a")):
        known = [BEGIN, *processor.encoder.text(prefix).ids_L.tolist()]
        rest = [*processor.encoder.text(suffix).ids_L.tolist(), END]
        row, _ = infilled(logits, known, 3, rest)
        lengths.append(len(row) - len(known) - len(rest))
        texts.append(processor.decode(row))
        requests.append(processor.for_text_infill([prefix, 3, suffix]))
        out = model.generate(**requests[-1], do_sample=False, max_infill_tokens=LIMIT)
        assert out[0, : len(row)].tolist() == row
        assert (out[0, len(row) :] == END).all()  # padding
        assert processor.post_process(out, requests[-1]) == texts[-1:]
    assert min(lengths) < 3 < max(lengths)
    batch = processor.batch(requests)
    out = model.generate(**batch, do_sample=False, max_infill_tokens=LIMIT)
    assert processor.post_process(out, batch) == texts
    request = processor.for_text_infill("x =<|hole|> one")
    (text,) = processor.post_process(model.generate(**request, seed=1), request)
    assert text.startswith("x =")
    assert text.endswith(" one")


def test_the_two_tokens_are_those_of_its_files(tmp_path: Path) -> None:
    folder = DREAMON.write(tmp_path / "foreign", DREAMON.model())
    layout = UniDiffForBlockDiffusion.from_pretrained(folder).config.layout
    assert (layout.expand_token_id, layout.delete_token_id) == (EXPAND, END)
    write_json(folder / "generation_config.json", {**DREAMON.generation, "delete_token_id": 259})
    layout = UniDiffForBlockDiffusion.from_pretrained(folder).config.layout
    assert layout.delete_token_id == 259
    config = {name: value for name, value in DREAMON.config.items() if name != "eos_token_id"}
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"expand_token_id": EXPAND})
    layout = UniDiffForBlockDiffusion.from_pretrained(folder).config.layout
    assert layout.delete_token_id == END  # the tokenizer's
    names = folder / "tokenizer_config.json"
    write_json(names, {**json.loads(names.read_text()), "eos_token": None})
    with pytest.raises(ValueError, match="names neither delete_token_id in"):
        UniDiffForBlockDiffusion.from_pretrained(folder)
