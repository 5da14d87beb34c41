"""Filling holes of known or unknown length with one model: candidates, covers, and the choice.

A canvas has a length. Where a hole's is unknown, several are filled in one batch, and the same
weights' left-to-right reading judges them: log p(hole and what follows | what is before). That is
the exact posterior of the text up to a constant, so fills of different lengths compare; a bonus for
each token makes up for the fills being the likeliest of their length, not the sum over all.
Cost: one canvas for each length, and one context forward to judge it.
"""

# Shapes: C candidates, V ids.

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
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
from .judging import successor_log_probs

LENGTHS = (2, 4, 6, 8, 11, 14, 18, 24)  # tokens
BONUS = 4.0  # nats for each token of a candidate; best of 0 to 4 on 60 lines of training modules
_READ_BEHIND = 24  # tokens behind the hole that count
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


@dataclass(frozen=True)
class Filler:
    """Who fills holes, and how.

    Attributes:
        task: how holes are cut and shown.
        model: checkpoint with `attention_pattern="causal_context"` where lengths are unknown.
        processor: the checkpoint's.
        options: keywords of `generate()` over the task's.
        seed: of every random choice.
        batch_size: canvases that are decoded together.
    """

    task: FillInTheMiddle
    model: Any
    processor: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    batch_size: int = 64

    @torch.inference_mode()
    def fill(
        self, examples: Sequence[Example], lengths: Sequence[int] | None = None
    ) -> list[Filled]:
        """The holes of the examples, filled.

        Args:
            examples: `prefix`, `suffix` and the hole's `length`, else that of `middle`.
            lengths: candidates, in tokens; None where the examples say the length.

        Raises:
            ValueError: if a hole is too short for what it must hold, or longer than the context.
        """
        if lengths is None:
            return self._filled([self.task.hole(self.processor, one) for one in examples])
        holes, owners = self._candidates(examples, lengths)
        found = self._filled(holes)
        scores = self._judge(holes, found)
        return [_best(number, owners, found, scores) for number in range(len(examples))]

    def _candidates(
        self, examples: Sequence[Example], lengths: Sequence[int]
    ) -> tuple[list[Hole], list[int]]:
        """Holes of the lengths that are long enough for their ends, and whose they are.

        Raises:
            ValueError: if an example has none.
        """
        holes, owners = [], []
        for number, example in enumerate(examples):
            for length in lengths:
                with suppress(ValueError):
                    holes.append(self.task.hole(self.processor, {**example, "length": length}))
                    owners.append(number)
            if not owners or owners[-1] != number:
                raise ValueError(
                    f"none of the lengths {list(lengths)} holds the ends of the words that the "
                    "hole cuts: add a longer one"
                )
        return holes, owners

    def _filled(self, holes: list[Hole]) -> list[Filled]:
        """Every hole with its best covers, decoded."""
        holes, extra = self._with_covers(holes)
        decoded = self._decode(holes)
        return [
            Filled(text, hole.length, forwards + more, None)
            for (text, forwards), hole, more in zip(decoded, holes, extra, strict=True)
        ]

    def _with_covers(self, holes: list[Hole]) -> tuple[list[Hole], list[int]]:
        """The holes with the covers that the model finds likeliest (or draws), and forwards."""
        holes, extra = list(holes), [0] * len(holes)
        tokenizer = self.processor.tokenizer
        for is_left in (True, False):
            choices = [_covers_of(tokenizer, hole, is_left) for hole in holes]
            pairs = [
                (number, state)
                for number, covers in enumerate(choices)
                if len(covers) > 1
                for state in states(covers, is_left)
            ]
            shown = [_with_cover(holes[n], Cover(state, ""), is_left) for n, state in pairs]
            rows = self._next_log_probs(shown, is_left)
            known: dict[int, dict[tuple[int, ...], np.ndarray]] = {}
            for (number, state), row in zip(pairs, rows, strict=True):
                known.setdefault(number, {})[state] = row
                extra[number] += 1
            for number, found in known.items():
                scores = cover_log_probs(tokenizer, choices[number], is_left, found)
                chosen = choices[number][self._chosen(scores, 2 * number + is_left)]
                holes[number] = _with_cover(holes[number], chosen, is_left)
        return holes, extra

    def _chosen(self, scores: np.ndarray, number: int) -> int:
        """Index of a cover: the likeliest, or drawn where the rest is sampled."""
        if not {**self.task.decoding, **self.options}.get("do_sample", False):
            return int(scores.argmax())
        share = np.exp(scores - scores.max())
        key = hash_integers(self.seed, torch.tensor([number]))
        draw = float(uniform(key, _DRAW_COVER, torch.zeros(1, dtype=torch.int64), 0))
        place = int(np.searchsorted(np.cumsum(share / share.sum()), draw))
        return min(place, len(scores) - 1)

    def _next_log_probs(self, holes: Sequence[Hole], is_left: bool) -> list[np.ndarray]:
        """(V,) log-probabilities of each hole's first (or last) open token."""
        rows: list[np.ndarray] = []

        def keep(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            del ids
            rows.append(scores[0 if is_left else -1].double().log_softmax(-1).cpu().numpy())
            return scores

        for start in range(0, len(holes), self.batch_size):
            inputs = self._inputs(holes[start : start + self.batch_size])
            self.model.generate(
                **inputs, logits_processor=[keep], max_denoising_steps=1, do_sample=False
            )
        return rows

    def _decode(self, holes: Sequence[Hole]) -> list[tuple[str, int]]:
        """(text, forwards) of each hole."""
        seeds = hash_integers(self.seed, torch.arange(max(1, len(holes)))).tolist()
        order = sorted(range(len(holes)), key=lambda number: holes[number].length)
        found: dict[int, tuple[str, int]] = {}
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            chosen = [holes[number] for number in part]
            inputs = self._inputs(chosen)
            allowed = [self._allowed(hole) for hole in chosen]
            if any(one is not None for row in allowed for one in row):
                inputs["canvas_allowed_ids"] = allowed
            options = {**self.task.decoding, **self.options, "seed": [seeds[n] for n in part]}
            output = self.model.generate(**inputs, **options, return_dict_in_generate=True)
            first = inputs["input_ids"].shape[1]
            for place, (number, hole) in enumerate(zip(part, chosen, strict=True)):
                ids = output.sequences[place, first : first + hole.length].cpu().numpy()
                text = self.task.middle(self.processor, ids, hole)
                found[number] = (text, int(output.num_forwards[place]))
        return [found[number] for number in range(len(holes))]

    def _inputs(self, holes: Sequence[Hole]) -> dict[str, Any]:
        """Arguments of `generate()`; raises ValueError if a hole does not fit the context."""
        pairs = [self.task.sequences(self.processor, hole) for hole in holes]
        prompts, canvases = zip(*pairs, strict=True)
        inputs = prompts_with_canvases(prompts, canvases, self.processor.layout)
        check_fits(self.model, inputs)
        return dict(inputs.to(self.model.device))

    def _allowed(self, hole: Hole) -> list[list[int] | None]:
        """`canvas_allowed_ids` of one row."""
        width = len(self.task.sequences(self.processor, hole)[1])
        return allowed_canvas(self.processor.tokenizer, hole, width) or [None] * width

    def _judge(self, holes: Sequence[Hole], found: Sequence[Filled]) -> np.ndarray:
        """(C,) nats of each candidate's text and the known text behind it, left to right."""
        rows, firsts = [], []
        for hole, filled in zip(holes, found, strict=True):
            begin, _ = self.task.sequences(self.processor, hole)
            text = hole.cut.left + filled.text + hole.cut.right
            ids = encode_plain(self.processor.tokenizer, text) + hole.cut.after[:_READ_BEHIND]
            rows.append([*begin.ids_L.tolist(), *ids])
            firsts.append(len(begin))
        size = self.batch_size
        return np.concatenate(
            [
                successor_log_probs(self.model, rows[i : i + size], firsts[i : i + size])
                for i in range(0, len(rows), size)
            ]
        )


def _covers_of(tokenizer: Any, hole: Hole, is_left: bool) -> list[Cover]:
    """Covers of one end that leave a token open."""
    known = hole.cut.left if is_left else hole.cut.right
    other = hole.right if is_left else hole.left
    covers = left_covers(tokenizer, known) if is_left else right_covers(tokenizer, known)
    room = hole.length - len(other.whole) - 1 - bool(other.rest and hole.length > 2)
    return [one for one in covers if len(one.whole) <= room] if known else []


def _with_cover(hole: Hole, cover: Cover, is_left: bool) -> Hole:
    """The hole with another cover at one end."""
    left, right = (cover, hole.right) if is_left else (hole.left, cover)
    return Hole(hole.cut, left, right, hole.length)


def _best(
    number: int, owners: Sequence[int], found: Sequence[Filled], scores: np.ndarray
) -> Filled:
    """The candidate of one example that reads best, with the forwards of all of them."""
    own = [index for index, owner in enumerate(owners) if owner == number]
    best = max(own, key=lambda index: scores[index] + BONUS * found[index].length)
    forwards = sum(found[index].num_forwards + 1 for index in own)
    return Filled(found[best].text, found[best].length, forwards, float(scores[best]))
