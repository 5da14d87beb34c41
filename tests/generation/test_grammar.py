"""Regular expressions and schemas read by outlines_core, and the bytes of a tokenizer's tokens."""

import json
import re
import sys
from itertools import product

import numpy as np
import pytest
from small_grammars import tokenizer_of
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from unidiff.generation.automaton import DEAD, TokenAutomaton
from unidiff.generation.grammar import choices_automaton, regex_automaton, schema_regex
from unidiff.tokens.text import build_text_tokenizer
from unidiff.tokens.token_bytes import token_bytes

TOKENS = ["<pad>", "a", "b", "ab", "Ġ", "Ã", "©", "1", "Ã©"]  # the last is é, Ã and © its bytes


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tokenizer_of(TOKENS, {"pad_token": "<pad>"})


def accepts(automaton: TokenAutomaton, ids: tuple[int, ...]) -> bool:
    state = automaton.walk(automaton.start, ids)
    return state != DEAD and bool(automaton.final_S[state])


@pytest.mark.parametrize(
    "regex",
    [
        "a|b",
        "(ab)*",
        "[^a]+",
        "é+",
        ".{2}",
        "",
        "^a?b$",
        r"\d| (a|b)",
        "^a|b$",
        "x|ab",
        "a{1,2}b",
        "a(1b)*",
        r"a+(1\d)?",
    ],
)
def test_automaton_accepts_what_python_matches_whole(regex: str, tokenizer: object) -> None:
    pytest.importorskip("outlines_core")
    automaton = regex_automaton(regex, tokenizer, len(TOKENS))
    spelled = token_bytes(tokenizer)
    for length in range(4):
        for ids in product(range(1, len(TOKENS)), repeat=length):
            text = b"".join(spelled[i] or b"" for i in ids)
            try:
                expected = re.fullmatch(regex, text.decode()) is not None
            except UnicodeDecodeError:
                expected = False
            assert accepts(automaton, ids) == expected, ids
    assert not accepts(automaton, (0,))


def test_schema_becomes_a_regex_of_its_values() -> None:
    pytest.importorskip("outlines_core")
    schema = {"type": "object", "properties": {"a": {"enum": [1, "x"]}}, "required": ["a"]}
    for given in (schema, json.dumps(schema)):
        regex = schema_regex(given)
        assert re.fullmatch(regex, '{"a": 1}')
        assert re.fullmatch(regex, '{"a":"x"}')
        assert not re.fullmatch(regex, '{"a": 2}')


def test_what_cannot_be_read_is_named(tokenizer: object) -> None:
    pytest.importorskip("outlines_core")
    for regex in ("(", "a)(b", "a(?=b)", r"(a)\1"):
        with pytest.raises(ValueError, match=r"cannot be followed.*no look-around"):
            regex_automaton(regex, tokenizer, len(TOKENS))
    with pytest.raises(ValueError, match="no JSON text"):
        schema_regex("{")
    with pytest.raises(ValueError, match="cannot be followed"):
        schema_regex({"type": "strange"})


def test_missing_library_names_the_extra(
    tokenizer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "outlines_core", None)
    with pytest.raises(ImportError, match=r"pip install 'unidiff\[grammar\]'"):
        regex_automaton("never asked before", tokenizer, len(TOKENS))
    with pytest.raises(ImportError, match=r"unidiff\[grammar\]"):
        schema_regex({"type": "integer"})
    assert accepts(choices_automaton(["ab"], tokenizer, len(TOKENS)), (1, 2))  # needs no library


def test_same_regex_is_compiled_once_until_the_tokenizer_grows() -> None:
    pytest.importorskip("outlines_core")
    own = tokenizer_of(TOKENS, {"pad_token": "<pad>"})
    first = regex_automaton("a+c*", own, 12)
    assert regex_automaton("a+c*", own, 12) is first
    assert not accepts(first, (1, 9))
    own.add_tokens(["c"])
    assert accepts(regex_automaton("a+c*", own, 12), (1, 9))


def test_choices_are_cut_by_the_tokenizer_and_checked(tokenizer: object) -> None:
    with pytest.raises(ValueError, match="at least one of the model's tokens, got '1'"):
        choices_automaton(["a", "1"], tokenizer, 5)


def test_bytes_of_our_tokenizer_spell_any_text() -> None:
    tokenizer = build_text_tokenizer(["Hé llo wörld, hello there 😀"] * 3, vocab_size=300)
    spelled = token_bytes(tokenizer)
    assert spelled[: len(tokenizer.all_special_ids)] == [None] * len(tokenizer.all_special_ids)
    text = "Hé there,\n 😀\t\x00"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert b"".join(spelled[i] or b"" for i in ids) == text.encode()


def test_sentencepiece_spelling_is_read() -> None:
    vocabulary = {"<unk>": 0, "▁a": 1, "<0x0A>": 2, "b": 3}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert token_bytes(tokenizer) == [None, b" a", b"\n", b"b"]


def test_tokenizers_of_another_kind_are_refused() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(ValueError, match="byte-level or sentencepiece"):
        token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))
    with pytest.raises(TypeError, match="fast tokenizer"):
        token_bytes(object())


def test_ids_that_the_tokenizer_lacks_are_never_possible(tokenizer: object) -> None:
    pytest.importorskip("outlines_core")
    automaton = regex_automaton(".*", tokenizer, 20)
    assert automaton.class_V.shape == (20,)
    assert (automaton.next_SC[:, automaton.class_V[len(TOKENS) :]] == DEAD).all()
    assert np.unique(automaton.class_V[[1, 2, 3, 7]]).size == 1


def test_a_schema_that_leaves_everything_open_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="give every object its `properties`"):
        schema_regex({})
