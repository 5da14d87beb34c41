"""A user's texts as training rows: read through `datasets`, tokenised once, cut into windows.

Three forms, known by their columns: `messages` (what the assistant says is wanted), `prompt` and
`completion`, or `text` (all of it is wanted). A sample's first token is never wanted: nothing
stands before it that could predict it.
"""

# Shapes: L tokens of a sample.

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unidiff.tokens.layout import TokenLayout
from unidiff.tokens.sequence import SequenceEncoder, TokenSequence, join, run_of

from .blocks import BlockOptions, TrainingRow, blocks_row
from .examples import load_examples

# Columns that are read -> what makes one long sample of a row.
Reader = Callable[[SequenceEncoder, Mapping[str, Any]], TokenSequence]


@dataclass(frozen=True)
class Corpus:
    """Tokenised samples of one data set, as a `Source` of a training stream.

    Attributes:
        name: in the mixture.
        table: `datasets.Dataset` of `tokenised`.
        layout: of the checkpoint.
        blocks: how wanted tokens become blocks; under `grid` the last block is filled up with end
            tokens, as a canvas reaches beyond the end at decoding.
    """

    name: str
    table: Any
    layout: TokenLayout
    blocks: BlockOptions

    @classmethod
    def read(
        cls,
        name: str,
        source: str | Path,
        encoder: SequenceEncoder,
        length: int,
        blocks: BlockOptions,
    ) -> "Corpus":
        """A data set tokenised for a checkpoint; arguments and errors as `tokenised`."""
        return cls(name, tokenised(source, encoder, length), encoder.layout, blocks)

    def __len__(self) -> int:
        """Samples of one epoch."""
        return len(self.table)

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Row of one sample."""
        sample = self.table[index]
        ids_L = np.asarray(sample["ids"], dtype=np.int64)
        sequence = TokenSequence(
            ids_L, np.zeros_like(ids_L), np.asarray(sample["wanted"], dtype=bool)
        )
        if self.blocks.grid and sequence.is_wanted_L[-1]:
            fill = [self.layout.end_token_ids[0]] * (-len(ids_L) % self.blocks.max_block_length)
            sequence = join([sequence, run_of(fill, "text", wanted=True)])
        return blocks_row(sequence, self.layout, self.blocks, rng)


def tokenised(source: str | Path, encoder: SequenceEncoder, length: int) -> Any:
    """`datasets.Dataset` of samples: ids (int32) and wanted (bool), lists of equal lengths.

    A text is cut into windows of at most `length` tokens, the end token behind its last one;
    conversations and completions lose what is beyond `length`. `datasets` keeps the result on the
    disk, so that the same source is tokenised once.

    Args:
        source: as for `load_examples`.
        encoder: of the checkpoint.
        length: most tokens of a sample, at least 2.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the columns are of none of the three forms, nothing is wanted in any sample,
            or `length` is too small.
    """
    if length < 2:
        raise ValueError(f"length must be >= 2, one token known and one wanted; got {length}")
    table: Any = load_examples(source, ()).rows
    columns, read = _form_of(table.column_names, source)

    def samples(batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        found = [
            window
            for values in zip(*(batch[name] for name in columns), strict=True)
            for window in _windows(encoder, read, dict(zip(columns, values, strict=True)), length)
        ]
        return {
            "ids": [one.ids_L.astype(np.int32) for one in found],
            "wanted": [one.is_wanted_L for one in found],
        }

    made = table.map(
        samples,
        batched=True,
        remove_columns=table.column_names,
        new_fingerprint=_fingerprint(table, encoder, columns, length),
        desc=f"tokenising {Path(source).name}",
    )
    if not len(made):
        raise ValueError(f"nothing is wanted in any sample of {source}: it is empty or too long")
    return made.with_format("numpy")


def _form_of(names: Sequence[str], source: str | Path) -> tuple[tuple[str, ...], Reader]:
    """(columns that are read, what reads them); raises ValueError where no form fits."""
    for columns, read in _FORMS.items():
        if set(columns) <= set(names):
            return columns, read
    wanted = ", or ".join(" and ".join(columns) for columns in _FORMS)
    raise ValueError(f"{source} needs the columns {wanted}; it has {sorted(names)}")


def _conversation(encoder: SequenceEncoder, row: Mapping[str, Any]) -> TokenSequence:
    """A chat by the checkpoint's template."""
    return encoder.conversation(row["messages"])


def _completion(encoder: SequenceEncoder, row: Mapping[str, Any]) -> TokenSequence:
    """A prompt that is known, and what is wanted behind it."""
    parts = [encoder.beginning(), encoder.text(row["prompt"])]
    return join([*parts, encoder.text(row["completion"], wanted=True), _end(encoder)])


def _text(encoder: SequenceEncoder, row: Mapping[str, Any]) -> TokenSequence:
    """A text that is wanted whole."""
    return join([encoder.text(row["text"], wanted=True), _end(encoder)])


_FORMS: dict[tuple[str, ...], Reader] = {
    ("messages",): _conversation,
    ("prompt", "completion"): _completion,
    ("text",): _text,
}


def _end(encoder: SequenceEncoder) -> TokenSequence:
    """The end token, wanted; raises ValueError if the checkpoint has none."""
    if not encoder.layout.end_token_ids:
        raise ValueError(
            "the checkpoint names no end token (eos_token_id), which every text is to end with"
        )
    return run_of([encoder.layout.end_token_ids[0]], "text", wanted=True)


def _windows(
    encoder: SequenceEncoder, read: Reader, row: Mapping[str, Any], length: int
) -> Iterator[TokenSequence]:
    """Samples of at most `length` tokens of one row; those without a wanted token are left out."""
    whole = read(encoder, row)
    pieces = [whole[:length]]
    if read is _text:
        begin = encoder.beginning()
        stride = length - 1  # without a first token, each window begins with the last one's end
        starts = range(0, max(1, len(whole) - (0 if len(begin) else 1)), stride)
        size = stride if len(begin) else length
        pieces = [join([begin, whole[start : start + size]]) for start in starts]
    for piece in pieces:
        is_wanted_L = piece.is_wanted_L.copy()
        is_wanted_L[:1] = False
        if is_wanted_L.any():
            yield TokenSequence(piece.ids_L, piece.modality_L, is_wanted_L)


def _fingerprint(table: Any, encoder: SequenceEncoder, columns: Sequence[str], length: int) -> str:
    """Name of the result in the cache of `datasets`: source, tokenizer, template and sizes."""
    tokenizer = encoder.tokenizer
    said = [
        table._fingerprint,
        tokenizer.get_vocab(),
        tokenizer.bos_token_id,
        encoder.chat_template,
        encoder.layout.end_token_ids,
        columns,
        length,
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
