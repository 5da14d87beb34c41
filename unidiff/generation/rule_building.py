"""The rules of a request's rows, from its options; what cannot be met raises before any forward."""

# Shapes: P places of a response or canvas, V ids.

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unidiff.tokens.layout import MODALITY_IDS, TokenLayout

from .allowed import allowed_masks, check_allowed
from .automaton import TokenAutomaton, with_end_tokens
from .denoiser import Denoiser
from .grammar import choices_automaton, regex_automaton, schema_regex
from .inputs import GenerationInputs, per_row
from .reachability import completable
from .rows import Row
from .rules import Grammar, Rule

GRAMMARS = ("regex", "json_schema", "choices")
_LONGEST_SHOWN = 80  # characters of a grammar in an error


def attach_rules(
    denoiser: Denoiser[Any],
    options: Mapping[str, Any],
    inputs: GenerationInputs,
    rows: Sequence[Row],
) -> None:
    """Give each row the rule that the options and the canvas's allowed ids make.

    Raises:
        ValueError: if a grammar or the allowed ids cannot be met, contradict another option, or
            cannot be read.
        TypeError: if `canvas_allowed_ids` or the tokenizer is of the wrong type.
        ImportError: if a grammar needs `outlines_core` and it is missing.
    """
    layout, vocab_size = denoiser.layout, denoiser.vocab_size
    if inputs.canvas_allowed_ids is not None:
        given = [row.given for row in rows if row.given is not None]
        if len(given) != len(rows):
            raise ValueError(
                "canvas_allowed_ids needs the canvas whose positions it is about: pass canvas or "
                "canvas_modality_ids, or use choices= for a response"
            )
        masks = allowed_masks(inputs.canvas_allowed_ids, given, vocab_size)
        for row, canvas, allowed_KV in zip(rows, given, masks, strict=True):
            check_allowed(allowed_KV, canvas, layout, row.index)
            row.rule = Rule(allowed_KV=allowed_KV)
    asked = [_asked(options, row, len(rows)) for row in rows]
    if any(asked):
        _check_options(options, inputs)
    for row, grammar in zip(rows, asked, strict=True):
        if grammar is not None:
            automaton = _automaton(*grammar, inputs.tokenizer, vocab_size)
            text = f"{grammar[0]}={_short(grammar[1])}"
            row.rule = row.rule or Rule()
            if row.given is None:
                row.rule.grammar = _response_grammar(automaton, row, options, layout, text)
            else:
                row.rule.grammar = _canvas_grammar(automaton, row, inputs.tokenizer, layout, text)


def _asked(options: Mapping[str, Any], row: Row, num_rows: int) -> tuple[str, Any] | None:
    """(name, value) of the row's grammar; raises ValueError if it has several."""
    found = []
    for name in GRAMMARS:
        value = options[name]
        if name == "choices" and value and isinstance(value[0], str):
            value = [value] * num_rows
        value = per_row(name, value, num_rows)[row.index]
        if value is not None:
            found.append((name, value))
    if len(found) > 1:
        raise ValueError(f"row {row.index} has {[name for name, _ in found]}: give one of them")
    return found[0] if found else None


def _check_options(options: Mapping[str, Any], inputs: GenerationInputs) -> None:
    """Raise ValueError if another option contradicts a grammar."""
    if inputs.tokenizer is None:
        raise ValueError(f"{', '.join(GRAMMARS)} need tokenizer=: the one that decodes the ids")
    if inputs.draft_mask is not None:
        raise ValueError("a draft may break the grammar from the start: leave out draft_mask")
    if options["revision"] == "edit":
        raise ValueError(
            "revision='edit' rewrites tokens one by one, which a grammar forbids: use "
            "unmasking_strategy='remdm', revision='secondary' or a critic"
        )
    if options["revision"] == "renoise" or options["unmasking_strategy"] == "ancestral":
        raise ValueError(
            "renoise and ancestral decide every token anew in each step, which no grammar can "
            "follow: leave `revision` out and choose another unmasking_strategy"
        )
    if options["stop_strings"]:
        raise ValueError(
            "stop_strings cut a response before its grammar is met: leave them out, or let the "
            "grammar end there"
        )


def _automaton(name: str, value: Any, tokenizer: Any, vocab_size: int) -> TokenAutomaton:
    """The automaton of one grammar, without end tokens."""
    if name == "choices":
        return choices_automaton(value, tokenizer, vocab_size)
    regex = value if name == "regex" else schema_regex(value)
    return regex_automaton(regex, tokenizer, vocab_size)


def _response_grammar(
    automaton: TokenAutomaton, row: Row, options: Mapping[str, Any], layout: TokenLayout, text: str
) -> Grammar:
    """The grammar of a text response: ended by an end token, or by the last place."""
    num_places, end_ids = row.settings.max_new_tokens, row.settings.end_ids
    automaton = with_end_tokens(automaton, end_ids)
    ids_V = layout.allowed_ids("text", len(automaton.class_V)).numpy()
    later = automaton.edges(automaton.permit(ids_V, with_end=True))
    early = automaton.edges(automaton.permit(ids_V, with_end=False))
    num_early = min(options["suppress_eos_before"], num_places)
    edges = [early] * num_early + [later] * (num_places - num_early)
    goals = completable(automaton, edges)
    if not goals[0][automaton.start]:
        shortest = automaton.shortest_length(early)
        reason = "the tokenizer's tokens can write no text that matches"
        if shortest is not None and shortest > num_places:
            reason = f"the shortest text that matches takes {shortest} tokens: raise max_new_tokens"
        elif shortest is not None:
            reason = (
                f"the shortest text that matches takes {shortest} tokens, but with "
                f"eos_token_id={list(end_ids)} and suppress_eos_before={num_early} none may end"
            )
        raise ValueError(f"row {row.index}: {text} in max_new_tokens={num_places}: {reason}")
    return Grammar(automaton, edges, goals, np.zeros(num_places, dtype=bool))


def _canvas_grammar(
    automaton: TokenAutomaton, row: Row, tokenizer: Any, layout: TokenLayout, text: str
) -> Grammar:
    """The grammar of a given canvas: its text, pinned and filled, matches as a whole.

    Special tokens that are pinned, such as the end token, are no part of the text.
    """
    given, rule = row.given, row.rule
    assert given is not None
    assert rule is not None
    special = [*layout.reserved_token_ids, *layout.end_token_ids]
    special += getattr(tokenizer, "all_special_ids", [])
    skipped_P = (given.modality != MODALITY_IDS["text"]) | (
        given.pinned & np.isin(given.ids, special)
    )
    if skipped_P.all():
        raise ValueError(f"row {row.index}: {text} needs a canvas that holds text")
    ids_V = layout.allowed_ids("text", len(automaton.class_V)).numpy()
    edges = [automaton.edges(automaton.permit(ids_V, with_end=False))] * len(given.ids)
    if rule.allowed_KV is not None:
        edges = [
            automaton.edges(automaton.permit(ids_V & allowed_V, with_end=False))
            for allowed_V in rule.allowed_KV
        ]
    goals = [automaton.finals] * (len(given.ids) + 1)
    grammar = Grammar(automaton, edges, goals, skipped_P)
    grammar.see(0, given.ids, ~given.pinned, [])
    assert grammar.reach is not None
    if not grammar.reach.is_possible:
        raise ValueError(
            f"row {row.index}: the canvas's text cannot match {text}: no tokens in its "
            f"{int((~given.pinned & ~skipped_P).sum())} masked places fit what is pinned; make a "
            "hole longer or shorter, or pin something else"
        )
    return grammar


def _short(value: Any) -> str:
    """A grammar for an error's text, cut if it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
