"""Small random automata, a tokenizer of a few tokens, and texts by enumeration."""

from itertools import product

import numpy as np
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from unidiff.generation.automaton import DEAD, TokenAutomaton


def random_automaton(
    generator: np.random.Generator, num_states: int, num_ids: int
) -> TokenAutomaton:
    """Random transitions, a third of them missing; each id is its own class."""
    next_SC = generator.integers(0, num_states, size=(num_states, num_ids + 1)).astype(np.int32)
    next_SC[generator.random(next_SC.shape) < 1 / 3] = DEAD
    next_SC[:, 0] = DEAD
    final_S = generator.random(num_states) < 0.4
    return TokenAutomaton(next_SC, np.arange(1, num_ids + 1), 0, final_S)


def texts(automaton: TokenAutomaton, length: int) -> set[tuple[int, ...]]:
    """Every id sequence of a length that the automaton accepts, by trying them all."""
    ids = range(len(automaton.class_V))
    found = set()
    for text in product(ids, repeat=length):
        state = automaton.walk(automaton.start, text)
        if state != DEAD and automaton.final_S[state]:
            found.add(text)
    return found


def tokenizer_of(tokens: list[str], special: dict[str, str]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with these tokens in the order of their ids, and no merges.

    Args:
        tokens: written in GPT-2's alphabet, in which U+0120 is a space.
        special: `PreTrainedTokenizerFast`'s name of each special token among them.
    """
    backend = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **special
    )
