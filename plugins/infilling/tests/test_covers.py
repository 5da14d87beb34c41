"""Covers on an enumerated law: unbiased boundaries give its conditionals, naive ones do not."""

from itertools import product

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast
from unidiff_infilling.covers import allowed_V, cover_log_probs, left_covers, right_covers, states

from unidiff.tokens.text import build_text_tokenizer, encode_plain

LENGTH = 3  # tokens of every text of the law


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["abab abab ab abba bab abb aab abc cab"] * 20
    return build_text_tokenizer(words, vocab_size=16 + 256 + 6)


@pytest.fixture(scope="module")
def law(tokenizer) -> dict[tuple[int, ...], float]:
    """Probability of each token sequence that the tokenizer writes for a word of a, b, c."""
    words = ("".join(parts) for n in range(3, 10) for parts in product("abc", repeat=n))
    rows = {tuple(encode_plain(tokenizer, word)) for word in words}
    rows = sorted(row for row in rows if len(row) == LENGTH)
    weight = np.random.default_rng(3).gamma(0.3, size=len(rows))
    return dict(zip(rows, (weight / weight.sum()).tolist(), strict=True))


def next_log_probs(tokenizer, law, known, is_left):
    """(V,) the law's prediction of the next token into the hole, where some stand at its end."""
    total = np.zeros(len(tokenizer))
    for row, share in law.items():
        ends = row[: len(known)] if is_left else row[LENGTH - len(known) :]
        if ends == known and len(known) < LENGTH:
            total[row[len(known)] if is_left else row[LENGTH - 1 - len(known)]] += share
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(total / total.sum())


def has(text, known, is_left):
    """Whether a text has the known characters at that end."""
    return text.startswith(known) if is_left else text.endswith(known)


def conditional(tokenizer, law, keep):
    """The law of the texts that `keep` allows."""
    kept = {row: share for row, share in law.items() if keep(row)}
    total = sum(kept.values())
    return {tokenizer.decode(list(row)): share / total for row, share in kept.items()}


def under_covers(tokenizer, law, known, is_left):
    """Law of the texts where a cover is drawn by its probability and the rest by the law."""
    covers = left_covers(tokenizer, known) if is_left else right_covers(tokenizer, known)
    rows = {one: next_log_probs(tokenizer, law, one, is_left) for one in states(covers, is_left)}
    rows = {one: np.where(np.isnan(row), -np.inf, row) for one, row in rows.items()}
    shares = np.exp(cover_log_probs(tokenizer, covers, is_left, rows))
    shares /= shares.sum()
    found: dict[str, float] = {}
    for cover, share in zip(covers, shares, strict=True):
        if share:
            for text, part in conditional(
                tokenizer, law, lambda row, cover=cover: fits(tokenizer, row, cover, is_left)
            ).items():
                found[text] = found.get(text, 0.0) + share * part
    return found


def fits(tokenizer, row, cover, is_left):
    """Whether a token sequence is written with this cover."""
    order, whole = (row, cover.whole) if is_left else (row[::-1], cover.whole[::-1])
    if order[: len(whole)] != whole:
        return False
    ends = (cover.rest, "") if is_left else ("", cover.rest)
    return not cover.rest or bool(allowed_V(tokenizer, *ends)[order[len(whole)]])


def distance(first, second):
    """Total variation."""
    return 0.5 * sum(
        abs(first.get(text, 0.0) - second.get(text, 0.0)) for text in {*first, *second}
    )


@pytest.mark.parametrize("is_left", [True, False])
@pytest.mark.parametrize("known", ["a", "ab", "aba", "ca", "b", "ba"])
def test_covers_give_the_exact_law(tokenizer, law, known, is_left):
    exact = conditional(
        tokenizer, law, lambda row: has(tokenizer.decode(list(row)), known, is_left)
    )
    assert distance(under_covers(tokenizer, law, known, is_left), exact) < 1e-12


@pytest.mark.parametrize(
    ("known", "is_left"), [("aba", True), ("ba", True), ("ab", False), ("aba", False)]
)
def test_naive_cuts_give_another_law(tokenizer, law, known, is_left):
    exact = conditional(
        tokenizer, law, lambda row: has(tokenizer.decode(list(row)), known, is_left)
    )
    cut = tuple(encode_plain(tokenizer, known))
    naive = conditional(
        tokenizer,
        law,
        lambda row: (row[: len(cut)] if is_left else row[LENGTH - len(cut) :]) == cut,
    )
    assert distance(naive, exact) > 0.05


def test_every_text_has_exactly_one_cover(tokenizer, law):
    for row in law:
        text = tokenizer.decode(list(row))
        for size in range(1, len(text)):
            for is_left, known in ((True, text[:size]), (False, text[-size:])):
                covers = (left_covers if is_left else right_covers)(tokenizer, known)
                fitting = [cover for cover in covers if fits(tokenizer, row, cover, is_left)]
                assert len(fitting) == 1, (text, known, is_left)


def test_one_open_token_holds_both_ends_without_overlap(tokenizer):
    texts = [tokenizer.decode([index]) for index in np.flatnonzero(allowed_V(tokenizer, "a", "b"))]
    assert "ab" in texts
    assert all(len(text) >= 2 and text[0] == "a" and text[-1] == "b" for text in texts)
