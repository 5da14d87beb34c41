"""Recipe of the text tokenizer in tokenizers/text/: `python tokenizers/build_text_tokenizer.py`.

Trains on the train split of the library text, the garment sentences, and a list of words that must
each be ONE token, at the start of a text and after a space: then an answer is one decision of the
model, and a judge compares one id. Rebuilding with the same Python release gives the same files.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from unidiff.data.sources.garments import CATEGORIES, CLASS_NAMES, iter_garment_sentences
from unidiff.data.sources.library_text import gzip_bits_per_byte, iter_documents
from unidiff.tokens.text import build_text_tokenizer, encode_plain

OUTPUT = Path(__file__).parent / "text"
WORD_REPEATS = 8000  # enough that the merges of each word outrank the rarest library merges
SENTENCE_REPEATS = 20

ANSWER_WORDS = (
    *CLASS_NAMES,
    *sorted(set(CATEGORIES)),
    *("red", "green", "blue", "yellow", "purple", "orange", "cyan", "black", "white", "grey"),
    *("circle", "square", "triangle", "cross", "star"),
    *("left", "right", "above", "below", "top", "bottom", "middle"),
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("yes", "no", "none", "small", "large", "big"),
)
INSTRUCTION_WORDS = (
    *(
        "hand",
        "puck",
        "disc",
        "target",
        "push",
        "move",
        "reach",
        "draw",
        "picture",
        "photo",
        "image",
    ),
    *("what", "how", "many", "which", "where", "there", "shape", "colour", "color", "kind"),
    *("is", "are", "it", "of", "the", "a", "an", "and", "in", "on", "to", "this", "that"),
    *(
        "show",
        "shows",
        "objects",
        "shapes",
        "describe",
        "scene",
        "goal",
        "corner",
        "table",
        "action",
        "next",
    ),
)


def iter_training_texts() -> Iterator[str]:
    """The texts the tokenizer is trained on, in a fixed order."""
    for _, text in iter_documents("train"):
        yield text
    sentences = tuple(iter_garment_sentences())
    for _ in range(SENTENCE_REPEATS):
        yield from sentences
    for word in (*ANSWER_WORDS, *INSTRUCTION_WORDS):
        yield "\n".join([word] * WORD_REPEATS)  # as at the start of a text
        yield f" {word}" * WORD_REPEATS  # as after another word


def main() -> None:
    """Build the tokenizer, save it, and print what it achieves on the held-out library text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output = parser.parse_args().output
    tokenizer = build_text_tokenizer(iter_training_texts())
    tokenizer.save_pretrained(output)
    heldout = [text for _, text in iter_documents("heldout")]
    num_bytes = sum(len(text.encode("utf-8")) for text in heldout)
    num_tokens = sum(len(encode_plain(tokenizer, text)) for text in heldout)
    split = [
        form
        for word in (*ANSWER_WORDS, *INSTRUCTION_WORDS)
        for form in (word, f" {word}")
        if len(encode_plain(tokenizer, form)) != 1
    ]
    report = {
        "vocab_size": len(tokenizer),
        "heldout_bytes": num_bytes,
        "heldout_bytes_per_token": round(num_bytes / num_tokens, 4),
        "heldout_gzip_bits_per_byte": round(gzip_bits_per_byte(heldout), 4),
        "words_of_several_tokens": split,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
