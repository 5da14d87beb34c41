"""Regular expressions and JSON schemas as automata over a tokenizer's ids.

`outlines_core` (the extra `unidiff[grammar]`) reads the expression; it is asked for the automaton
over bytes only, so the size of the vocabulary costs it nothing. What follows is ours and cached.
"""

# Shapes: S states, V ids.

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from unidiff.tokens.token_bytes import token_bytes

from .automaton import DEAD, NUM_BYTES, TokenAutomaton, choice_automaton, token_automaton

_SENTINEL = "\U0010ffff"  # the last code point, which Unicode keeps out of texts
# Of a schema: any JSON at all has 13,879 and does not compile in minutes.
_LONGEST_REGEX = 6_000
_NUM_KEPT = 32  # automata remembered between calls


def regex_automaton(regex: str, tokenizer: Any, vocab_size: int) -> TokenAutomaton:
    r"""The automaton of the texts that match a whole regular expression, over token ids.

    Args:
        regex: in the syntax of Rust's regex crate: no look-around, no back references; the whole
            text has to match, so that anchors are not needed. `\d` is any digit of Unicode, some
            of them newer than Python's tables: write `[0-9]` for the ten.
        tokenizer: see `token_bytes`.
        vocab_size: ids of the model; those that the tokenizer lacks are never possible.

    Raises:
        ImportError: if `outlines_core` is missing.
        ValueError: if the expression cannot be read.
    """
    return _compiled(regex, tokenizer, len(tokenizer), vocab_size)


def choices_automaton(choices: Sequence[str], tokenizer: Any, vocab_size: int) -> TokenAutomaton:
    """The automaton of a few strings, each written with the tokens that the tokenizer cuts it into.

    Raises:
        ValueError: if a string is empty, or has tokens that the model lacks.
    """
    sequences = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in choices]
    for text, ids in zip(choices, sequences, strict=True):
        if not ids or max(ids) >= vocab_size:
            raise ValueError(
                f"choices must be strings of at least one of the model's tokens, got {text!r}"
            )
    return choice_automaton(sequences, vocab_size)


def schema_regex(schema: Any) -> str:
    """The regular expression of a JSON schema, given as JSON text or as a dictionary.

    Raises:
        ImportError: if `outlines_core` is missing.
        ValueError: if the text is no JSON, or the schema asks for what a regular expression cannot
            say.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise ValueError(f"json_schema is no JSON text: {error}") from error
    build = _outlines_core().json_schema.build_regex_from_schema
    try:
        regex = str(build(json.dumps(schema)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"json_schema={schema!r} cannot be followed: {error}") from error
    if len(regex) > _LONGEST_REGEX:
        raise ValueError(
            f"json_schema leaves too much open: as a regular expression it has {len(regex)} "
            f"characters, {_LONGEST_REGEX} at most; give every object its `properties` and every "
            "array its `items`"
        )
    return regex


@lru_cache(maxsize=_NUM_KEPT)
def _compiled(regex: str, tokenizer: Any, tokenizer_length: int, vocab_size: int) -> TokenAutomaton:
    """`regex_automaton`, once for each state of the tokenizer."""
    spelled = _bytes_of(tokenizer, tokenizer_length)[:vocab_size]
    padded = [*spelled, *[None] * (vocab_size - len(spelled))]
    return token_automaton(*_byte_automaton(regex), padded)


@lru_cache(maxsize=_NUM_KEPT)
def _bytes_of(tokenizer: Any, tokenizer_length: int) -> list[bytes | None]:
    """`token_bytes`, once for each state of the tokenizer."""
    del tokenizer_length  # part of the key: added tokens change it
    return token_bytes(tokenizer)


def _byte_automaton(regex: str) -> tuple[np.ndarray, int, np.ndarray]:
    r"""((S, 256) next states, start, (S,) final) of a regular expression.

    The library loses every step that leaves an accepting state for one that is not (after the 1 of
    `[0-9]+(\.[0-9]+)?` no full stop could come). So it is given the expression with a character
    behind it that no text holds, and a state is final if that character leads to the library's end.
    """
    regex = _without_anchors(regex)
    _index(regex, regex)  # an unbalanced bracket must not pair with ours
    index = _index(f"(?:{regex}){_SENTINEL}", regex)
    transitions = index.get_transitions()
    names = {index.get_initial_state(), *index.get_final_states(), *transitions}
    names |= {after for branches in transitions.values() for after in branches.values()}
    number = {name: place for place, name in enumerate(sorted(names))}
    next_SB = np.full((len(number) + 1, NUM_BYTES), DEAD, dtype=np.int32)  # last: of DEAD itself
    for name, branches in transitions.items():
        for byte, after in branches.items():
            if byte < NUM_BYTES:  # the other one is the library's end token
                next_SB[number[name], byte] = number[after]
    behind_S = np.arange(len(number))
    for byte in _SENTINEL.encode():
        behind_S = next_SB[behind_S, byte]
    final_S = np.isin(behind_S, [number[name] for name in index.get_final_states()])
    return next_SB[:-1], number[index.get_initial_state()], final_S


def _index(pattern: str, regex: str) -> Any:
    """The library's automaton of a pattern; raises ValueError in terms of the caller's regex."""
    library = _outlines_core()
    vocabulary = library.Vocabulary(NUM_BYTES, {bytes([byte]): [byte] for byte in range(NUM_BYTES)})
    try:
        return library.Index(pattern, vocabulary)
    except ValueError as error:
        raise ValueError(
            f"regex={regex!r} cannot be followed: {error}. Rust's syntax holds: no look-around, no "
            "back references, no anchors; the whole response has to match"
        ) from error


def _without_anchors(regex: str) -> str:
    """The expression without a leading ^ and a trailing $: a full match begins and ends there."""
    regex = regex.removeprefix("^")
    num_escapes = len(regex) - 1 - len(regex.removesuffix("$").rstrip("\\"))
    return regex[:-1] if regex.endswith("$") and num_escapes % 2 == 0 else regex


def _outlines_core() -> Any:
    """The library; raises ImportError that names the extra."""
    try:
        import outlines_core
    except ImportError as error:
        raise ImportError(
            "regex and json_schema need outlines-core: pip install 'unidiff[grammar]'"
        ) from error
    return outlines_core
