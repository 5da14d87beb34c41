"""A safe cut is one where the known tokens are those of the whole text, whatever is in the hole."""

from itertools import product

import pytest
from transformers import AutoTokenizer
from unidiff_infilling.boundaries import cut, safe_start, safe_stop
from unidiff_infilling.covers import allowed_V, left_covers, right_covers
from unidiff_infilling.lines import line_holes

from unidiff.bundled import bundled_checkpoint
from unidiff.tokens.text import encode_plain

SYMBOLS = ("a", "er", "0", " ", "\n", ".", "(", "'", "-", "\u00e9")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(bundled_checkpoint())


def middles(prefix, suffix):
    """Every text of up to three symbols that adds no space to a space beside the hole."""
    texts = {"".join(parts) for number in range(4) for parts in product(SYMBOLS, repeat=number)}
    for text in sorted(texts):
        beside = (prefix[-1:] + text[:1], text[-1:] + suffix[:1])
        if text and not any(len(pair) == 2 and pair.isspace() for pair in beside):
            yield text


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        ("def method(se", "f, other):"),
        ("    return ", "\n    x = 1"),
        ("a ret", " of it"),
        ("x = 12", "34 + y"),
        ("it is don", "t know"),
        ("\n        ", "\n\n    def f():"),
        ("", "shirt"),
        ("a == ", ""),
    ],
)
def test_known_tokens_do_not_depend_on_the_hole(tokenizer, prefix, suffix):
    known = cut(tokenizer, prefix, suffix)
    assert prefix.endswith(known.left)
    assert suffix.startswith(known.right)
    for middle in middles(prefix, suffix):
        whole = encode_plain(tokenizer, prefix + middle + suffix)
        inner = whole[len(known.before) : len(whole) - len(known.after)]
        assert [*known.before, *inner, *known.after] == whole, repr(middle)
        assert tokenizer.decode(inner) == known.left + middle + known.right


def test_a_cut_inside_a_word_goes_back_to_its_begin_and_naive_does_not(tokenizer):
    text = "def method(se"
    assert text[: safe_stop(tokenizer, text)] == "def method("
    assert safe_start(tokenizer, "lf, other") == len("lf")
    naive = cut(tokenizer, text, "lf", boundary="naive")
    assert (naive.left, naive.right) == ("", "")
    assert naive.before == encode_plain(tokenizer, text)


def test_a_whole_line_is_cut_at_the_line(tokenizer):
    for example in line_holes("test")[:50]:
        known = cut(tokenizer, example["prefix"], example["suffix"])
        assert (known.left, known.right) == ("", "")


def test_every_held_out_hole_has_one_cover_at_its_begin(tokenizer):
    for example in line_holes("test", from_inside=True)[:100]:
        known = cut(tokenizer, example["prefix"], example["suffix"])
        ids = encode_plain(tokenizer, known.left + example["middle"] + known.right)
        covers = left_covers(tokenizer, known.left)
        fitting = [cover for cover in covers if begins(tokenizer, ids, cover)]
        assert len(fitting) == 1, (known.left, example["middle"])


def begins(tokenizer, ids, cover):
    """Whether a hole of these ids begins with the cover."""
    count = len(cover.whole)
    if tuple(ids[:count]) != cover.whole:
        return False
    return not cover.rest or bool(allowed_V(tokenizer, cover.rest, "")[ids[count]])


def test_covers_of_a_right_end_mirror_those_of_a_left_one(tokenizer):
    covers = right_covers(tokenizer, "ing")
    assert [cover.rest for cover in covers if not cover.whole] == ["ing"]
    assert all(cover.rest + tokenizer.decode(list(cover.whole)) == "ing" for cover in covers)


def test_an_unknown_boundary_raises(tokenizer):
    with pytest.raises(ValueError, match="must be one of"):
        cut(tokenizer, "a", "b", boundary="fuzzy")
