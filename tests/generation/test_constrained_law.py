"""The law of constrained sampling on the enumerable toy is the one that masking defines.

Three places over a and b, c ends. The law is computed by walking every path of reveals; what is
allowed comes from the list of all matching texts, not from the code under test.
"""

import re
from collections import Counter
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TableDenoiser
from scipy.stats import chi2
from small_grammars import tokenizer_of

from unidiff.generation.generate import generate
from unidiff.generation.inputs import GenerationInputs
from unidiff.generation.options import OPTIONS

END, NUM_ROWS, LENGTH = 2, 600, 3
REGEX = "(ab)*a?|bb"  # "", a, ab, aba, bb
Known = tuple[int | None, ...]


@pytest.fixture(scope="module")
def denoiser() -> TableDenoiser:
    weight = np.random.default_rng(4).gamma(0.7, size=(3,) * LENGTH)
    return TableDenoiser(torch.from_numpy(weight / weight.sum()))


def matching(regex: str) -> list[tuple[int, ...]]:
    """Every filled canvas: a text that matches, and the end token to the last place."""
    filled = []
    for length in range(LENGTH + 1):
        for text in product(range(2), repeat=length):
            if re.fullmatch(regex, "".join("ab"[token] for token in text)):
                filled.append((*text, *[END] * (LENGTH - length)))
    return filled


class Law:
    """Paths of reveals and their probabilities."""

    def __init__(self, denoiser: TableDenoiser, regex: str) -> None:
        self.denoiser = denoiser
        self.filled = matching(regex)

    def scores(self, known: Known) -> np.ndarray:
        """(L, 3) the denoiser's probabilities given what is revealed."""
        code = sum((3 if token is None else token) * 4**i for i, token in enumerate(known))
        return self.denoiser.log_conditional[code].exp().numpy()[:, :3]

    def limited(self, prob: np.ndarray, known: Known, place: int) -> np.ndarray:
        """(3,) a place's law among the ids that some matching text has there."""
        ids = {
            text[place]
            for text in self.filled
            if all(token in (None, text[i]) for i, token in enumerate(known))
        }
        kept = np.where([token in ids for token in range(3)], prob[place], 0.0)
        return kept / kept.sum()

    def one_by_one(self, order: str) -> Counter:
        """Law of the responses when each step reveals one place."""

        @lru_cache
        def follow(known: Known) -> tuple[tuple[tuple[int, ...], float], ...]:
            masked = [i for i, token in enumerate(known) if token is None]
            if not masked:
                return ((known, 1.0),)
            prob = self.scores(known)
            laws = {i: self.limited(prob, known, i) for i in masked}
            if order == "random":
                chances = dict.fromkeys(masked, 1 / len(masked))
            elif order == "static":
                chances = {max(masked, key=lambda i: laws[i].max()): 1.0}
            else:
                chances = {masked[0]: 1.0}
            total: Counter = Counter()
            for place, chance in chances.items():
                for token in np.nonzero(laws[place])[0].tolist():
                    after = (*known[:place], token, *known[place + 1 :])
                    for text, rest in follow(after):
                        total[text] += chance * laws[place][token] * rest
            return tuple(total.items())

        return _responses(Counter(dict(follow((None,) * LENGTH))))

    def all_at_once(self) -> Counter:
        """Law of the responses when one step reveals everything, the most certain place first."""
        nothing: Known = (None,) * LENGTH
        prob = self.scores(nothing)
        sure = [self.limited(prob, nothing, i).max() for i in range(LENGTH)]
        paths: dict[Known, float] = {nothing: 1.0}
        for place in sorted(range(LENGTH), key=lambda i: -sure[i]):
            after: dict[Known, float] = {}
            for known, chance in paths.items():
                law = self.limited(prob, known, place)
                for token in np.nonzero(law)[0].tolist():
                    after[(*known[:place], token, *known[place + 1 :])] = chance * law[token]
            paths = after
        return _responses(Counter(paths))


def _responses(filled: Counter) -> Counter:
    """Probabilities of the texts before the end token."""
    law: Counter = Counter()
    for text, chance in filled.items():
        law[text[: text.index(END)] if END in text else text] += chance
    return law


def sampled(denoiser: TableDenoiser, **options: Any) -> Counter:
    """How often each text came in one batch."""
    settings = {
        **OPTIONS,
        "do_sample": True,
        "max_new_tokens": LENGTH,
        "eos_token_id": END,
        "regex": REGEX,
        "seed": 9,
        **options,
    }
    tokenizer = tokenizer_of(["a", "b", "c", "<m>"], {"mask_token": "<m>"})
    inputs = GenerationInputs(torch.zeros(NUM_ROWS, 1, dtype=torch.int64), tokenizer=tokenizer)
    rows = generate(denoiser, settings, inputs).sequences[:, 1:].tolist()
    return Counter(tuple(row[: row.index(END)] if END in row else row) for row in rows)


def check_law(counts: Counter, law: Counter) -> None:
    """Chi-square at p = 0.001, and the same support."""
    assert set(counts) == set(law)
    statistic = sum((counts[t] - NUM_ROWS * p) ** 2 / (NUM_ROWS * p) for t, p in law.items())
    assert statistic < chi2.ppf(0.999, len(law) - 1)


@pytest.mark.parametrize(
    ("order", "options"),
    [
        ("sequential", {"unmasking_strategy": "sequential"}),
        ("sequential", {"unmasking_strategy": "sequential", "block_length": 1}),
        ("sequential", {"unmasking_strategy": "sequential", "block_length": 2}),
        ("sequential", {"unmasking_strategy": "sequential", "sub_block_length": 1}),
        ("random", {"unmasking_strategy": "random"}),
        ("random", {"unmasking_strategy": "first_hitting"}),
        ("static", {"unmasking_strategy": "static"}),
        ("sequential", {"decoding_mode": "ar"}),
        ("sequential", {"decoding_mode": "self_speculative"}),
        ("sequential", {"decoding_mode": "auto", "draft_length": 3}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_one_reveal_per_step_draws_from_the_enumerated_law(
    order: str, options: dict, denoiser: TableDenoiser
) -> None:
    pytest.importorskip("outlines_core")
    check_law(sampled(denoiser, **options), Law(denoiser, REGEX).one_by_one(order))


def check_support(counts: Counter) -> None:
    """Exactly the matching texts, all of them."""
    assert set(counts) == set(_responses(Counter(matching(REGEX))))


def test_all_in_one_step_draws_each_under_the_ones_before_it(denoiser: TableDenoiser) -> None:
    pytest.importorskip("outlines_core")
    law = Law(denoiser, REGEX).all_at_once()
    check_law(sampled(denoiser, unmasking_strategy="static", max_denoising_steps=1), law)


@pytest.mark.parametrize("strategy", ["threshold", "cosine", "ascending", "timetable", "remdm"])
@pytest.mark.parametrize("metric", ["entropy", "sampled_prob"])
def test_support_is_exactly_the_matching_texts(
    strategy: str, metric: str, denoiser: TableDenoiser
) -> None:
    pytest.importorskip("outlines_core")
    options = {"unmasking_strategy": strategy, "confidence_metric": metric}
    check_support(sampled(denoiser, **options, max_denoising_steps=2))


def test_without_end_tokens_every_place_is_text(denoiser: TableDenoiser) -> None:
    pytest.importorskip("outlines_core")
    counts = sampled(denoiser, eos_token_id=-1, unmasking_strategy="random", regex="[ab]*c?")
    expected = {text for text in product(range(3), repeat=3) if END not in text[:2]}
    assert {len(text) for text in counts} == {2, 3}  # `sampled` cuts at c
    assert {t if len(t) == 3 else (*t, END) for t in counts} == expected


def test_end_tokens_wait_for_their_place(denoiser: TableDenoiser) -> None:
    pytest.importorskip("outlines_core")
    counts = sampled(denoiser, suppress_eos_before=2, unmasking_strategy="random")
    assert set(counts) == {(0, 1), (0, 1, 0), (1, 1)}
