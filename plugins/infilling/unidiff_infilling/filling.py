"""Filling holes of known or unknown length with one model: candidates, covers, and the choice.

A canvas has a length. Where a hole's is unknown, several are filled in one batch, and the same
weights' left-to-right reading judges them: log p(hole and what follows | what is before). That is
the exact posterior of the text up to a constant, so fills of different lengths compare; a bonus for
each token makes up for the fills being the likeliest of their length, not the sum over all.
Cost: one canvas for each length, and one context forward to judge it.
"""

# Shapes: N examples, C candidates, L sequence, V ids.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unidiff.diffusion.random import hash_integers, uniform
from unidiff.plugins import Example
from unidiff.plugins.answers import check_fits
from unidiff.tokens.prompts import prompts_with_canvases
from unidiff.tokens.text import encode_plain

from .covers import Cover, cover_log_probs, left_covers, right_covers, states
from .fim import FillInTheMiddle, Hole, allowed_canvas

LENGTHS = (2, 4, 6, 8, 11, 14, 18, 24)  # tokens
BONUS = 4.0  # nats for each token of a candidate; best of 0 to 4 on 60 lines of training modules
_DRAW_COVER = 71  # number of the random draw that picks a cover


@dataclass(frozen=True)
class Filled:
    """What a hole was filled with.

    Attributes:
        text: of the hole alone.
        length: tokens of the canvas's hole.
        num_forwards: rows of all forwards that it took: canvases, covers, judging.
        log_prob: nats of the hole's text and what follows by the left-to-right reading; None where
            the length was known.
    """

    text: str
    length: int
    num_forwards: int
    log_prob: float | None


@torch.inference_mode()
def fill(
    task: FillInTheMiddle,
    model: Any,
    processor: Any,
    examples: Sequence[Example],
    *,
    lengths: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> list[Filled]:
    """The holes of the examples, filled.

    Args:
        task: how holes are cut and shown.
        model: checkpoint with `attention_pattern="causal_context"` where lengths are unknown.
        processor: the checkpoint's.
        examples: `prefix`, `suffix` and the hole's `length`, else that of `middle`.
        lengths: candidates, in tokens; None where the examples say the length.
        options: keywords of `generate()` over the task's.
        seed: of every random choice.
        batch_size: canvases that are decoded together.

    Raises:
        ValueError: if a hole is too short for what it must hold, or longer than the context.
    """
    keywords = {**task.decoding, **(options or {})}
    asked, owners = [], []
    for number, example in enumerate(examples):
        for length in lengths or (None,):
            known = example if length is None else {**example, "length": length}
            asked.append(known)
            owners.append(number)
    asked, kept = _fitting(task, processor, asked, owners, strict=lengths is None)
    holes = [task.hole(processor, example) for example in asked]
    holes, extra = _with_covers(task, model, processor, holes, keywords, seed, batch_size)
    filled = _decode(task, model, processor, holes, keywords, seed, batch_size)
    found = [
        Filled(text, hole.length, forwards + more, None)
        for (text, forwards), hole, more in zip(filled, holes, extra, strict=True)
    ]
    if lengths is None:
        return found
    scores = _judge(task, model, processor, holes, found, batch_size)
    return [_best(number, kept, found, scores) for number in range(len(examples))]


def _fitting(
    task: FillInTheMiddle,
    processor: Any,
    asked: list[Any],
    owners: list[int],
    strict: bool,
) -> tuple[list[Any], list[int]]:
    """The candidates that are long enough for their ends, and whose they are.

    Raises:
        ValueError: if one is not and `strict`, or an example has none left.
    """
    kept, whose = [], []
    for example, owner in zip(asked, owners, strict=True):
        try:
            task.hole(processor, example)
        except ValueError:
            if strict:
                raise
            continue
        kept.append(example)
        whose.append(owner)
    if set(whose) != set(owners):
        raise ValueError("every candidate length is too short for the words that the hole cuts")
    return kept, whose


def _with_covers(
    task: FillInTheMiddle,
    model: Any,
    processor: Any,
    holes: list[Hole],
    options: Mapping[str, Any],
    seed: int,
    batch_size: int,
) -> tuple[list[Hole], list[int]]:
    """The holes with the covers that the model finds likeliest (or draws), and forwards taken."""
    extra = [0] * len(holes)
    for is_left in (True, False):
        choices = [_covers_of(processor.tokenizer, hole, is_left) for hole in holes]
        pairs = [
            (number, state)
            for number, covers in enumerate(choices)
            if len(covers) > 1
            for state in states(covers, is_left)
        ]
        shown = [_with_state(holes[number], state, is_left) for number, state in pairs]
        rows = _next_log_probs(task, model, processor, shown, is_left, batch_size)
        found: dict[int, dict[tuple[int, ...], np.ndarray]] = {}
        for (number, state), row in zip(pairs, rows, strict=True):
            found.setdefault(number, {})[state] = row
            extra[number] += 1
        for number, known in found.items():
            covers = choices[number]
            scores = cover_log_probs(processor.tokenizer, covers, is_left, known)
            chosen = covers[_chosen(scores, options, seed, 2 * number + is_left)]
            holes[number] = _with_cover(holes[number], chosen, is_left)
    return holes, extra


def _covers_of(tokenizer: Any, hole: Hole, is_left: bool) -> list[Cover]:
    """Covers of one end that leave a token open."""
    known = hole.cut.left if is_left else hole.cut.right
    other = hole.right if is_left else hole.left
    covers = left_covers(tokenizer, known) if is_left else right_covers(tokenizer, known)
    room = hole.length - len(other.whole) - 1 - bool(other.rest and hole.length > 2)
    return [one for one in covers if len(one.whole) <= room] if known else []


def _with_state(hole: Hole, state: tuple[int, ...], is_left: bool) -> Hole:
    """The hole with these whole tokens at one end."""
    return _with_cover(hole, Cover(state, ""), is_left)


def _with_cover(hole: Hole, cover: Cover, is_left: bool) -> Hole:
    """The hole with another cover at one end."""
    left, right = (cover, hole.right) if is_left else (hole.left, cover)
    return Hole(hole.cut, left, right, hole.length)


def _chosen(scores: np.ndarray, options: Mapping[str, Any], seed: int, number: int) -> int:
    """Index of a cover: the likeliest, or drawn where the rest is sampled."""
    if not options.get("do_sample", False):
        return int(scores.argmax())
    share = np.exp(scores - scores.max())
    key = hash_integers(seed, torch.tensor([number]))
    draw = float(uniform(key, _DRAW_COVER, torch.zeros(1, dtype=torch.int64), 0))
    return int(min(np.searchsorted(np.cumsum(share / share.sum()), draw), len(scores) - 1))


def _next_log_probs(
    task: FillInTheMiddle,
    model: Any,
    processor: Any,
    holes: Sequence[Hole],
    is_left: bool,
    batch_size: int,
) -> list[np.ndarray]:
    """(V,) log-probabilities of each hole's first (or last) open token."""
    rows: list[np.ndarray] = []

    def keep(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del ids
        rows.append(scores[0 if is_left else -1].double().log_softmax(-1).cpu().numpy())
        return scores

    for start in range(0, len(holes), batch_size):
        inputs = _inputs(task, model, processor, holes[start : start + batch_size])
        model.generate(**inputs, logits_processor=[keep], max_denoising_steps=1, do_sample=False)
    return rows


def _decode(
    task: FillInTheMiddle,
    model: Any,
    processor: Any,
    holes: Sequence[Hole],
    options: Mapping[str, Any],
    seed: int,
    batch_size: int,
) -> list[tuple[str, int]]:
    """(text, forwards) of each hole."""
    seeds = hash_integers(seed, torch.arange(max(1, len(holes)))).tolist()
    order = sorted(range(len(holes)), key=lambda number: holes[number].length)
    found: dict[int, tuple[str, int]] = {}
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        chosen = [holes[number] for number in part]
        inputs = _inputs(task, model, processor, chosen)
        allowed = [_allowed(task, processor, hole) for hole in chosen]
        if any(one is not None for row in allowed for one in row):
            inputs["canvas_allowed_ids"] = allowed
        own = {**options, "seed": [seeds[number] for number in part]}
        output = model.generate(**inputs, **own, return_dict_in_generate=True)
        first = inputs["input_ids"].shape[1]
        for place, (number, hole) in enumerate(zip(part, chosen, strict=True)):
            ids = output.sequences[place, first : first + hole.length].cpu().numpy()
            found[number] = (task.middle(processor, ids, hole), int(output.num_forwards[place]))
    return [found[number] for number in range(len(holes))]


def _inputs(
    task: FillInTheMiddle, model: Any, processor: Any, holes: Sequence[Hole]
) -> dict[str, Any]:
    """Arguments of `generate()` for several holes; raises ValueError if one does not fit."""
    pairs = [task.sequences(processor, hole) for hole in holes]
    inputs = prompts_with_canvases(*zip(*pairs, strict=True), processor.layout)
    check_fits(model, inputs)
    return dict(inputs.to(model.device))


def _allowed(task: FillInTheMiddle, processor: Any, hole: Hole) -> list[list[int] | None]:
    """`canvas_allowed_ids` of one row."""
    width = len(task.sequences(processor, hole)[1])
    return allowed_canvas(processor.tokenizer, hole, width) or [None] * width


def _judge(
    task: FillInTheMiddle,
    model: Any,
    processor: Any,
    holes: Sequence[Hole],
    found: Sequence[Filled],
    batch_size: int,
) -> np.ndarray:
    """(C,) nats of each candidate's text and the known text behind it, left to right."""
    scores = np.zeros(len(found))
    for start in range(0, len(found), batch_size):
        part = range(start, min(start + batch_size, len(found)))
        rows, firsts = [], []
        for number in part:
            hole = holes[number]
            begin, _ = task.sequences(processor, hole)
            text = hole.cut.left + found[number].text + hole.cut.right
            ids = encode_plain(processor.tokenizer, text) + hole.cut.after[: task.least_after * 3]
            rows.append([*begin.ids_L.tolist(), *ids])
            firsts.append(len(begin))
        scores[list(part)] = _successor_log_probs(model, rows, firsts)
    return scores


def _successor_log_probs(
    model: Any, rows: Sequence[Sequence[int]], firsts: Sequence[int]
) -> np.ndarray:
    """(R,) summed log-probabilities of the tokens from `firsts` on, by the context's reading."""
    width = max(len(row) for row in rows)
    ids_RL = torch.zeros(len(rows), width, dtype=torch.int64, device=model.device)
    wanted_RL = torch.zeros(len(rows), width, dtype=torch.bool, device=model.device)
    for number, (row, first) in enumerate(zip(rows, firsts, strict=True)):
        ids_RL[number, : len(row)] = torch.tensor(row)
        wanted_RL[number, first : len(row)] = True
    logits_RLV = model(input_ids=ids_RL).logits[:, :-1].float()
    said_RL = logits_RLV.gather(-1, ids_RL[:, 1:, None])[..., 0] - logits_RLV.logsumexp(-1)
    return np.asarray((said_RL.double() * wanted_RL[:, 1:]).sum(1).cpu().numpy())


def _best(
    number: int, owners: Sequence[int], found: Sequence[Filled], scores: np.ndarray
) -> Filled:
    """The candidate of one example that reads best, with the forwards of all of them."""
    own = [index for index, owner in enumerate(owners) if owner == number]
    best = max(own, key=lambda index: scores[index] + BONUS * found[index].length)
    forwards = sum(found[index].num_forwards + 1 for index in own)
    return Filled(found[best].text, found[best].length, forwards, float(scores[best]))
