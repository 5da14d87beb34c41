"""Conversations as token sequences: text, images, states and actions in one row of ids.

A message's text is always tokenised as plain text, so "<|mask|>" typed by a user is nine ordinary
characters; only the chat template and the delimiters written here produce special ids.
"""

# Shapes: L sequence.

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from .layout import MODALITY_IDS, TokenLayout
from .text import encode_plain

_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")

ROLES = ("system", "user", "assistant")

# Text parts stand in a slot here; the branches without one serve a bare tokenizer's chats.
CHAT_TEMPLATE = (
    "<|bos|>"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ part['slot'] if 'slot' in part else part['text'] }}"
    "{% endfor %}{% endif %}"
    "<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class TokenSequence:
    """One row of tokens.

    Attributes:
        ids_L: (L,) int64 token ids.
        modality_L: (L,) int64 index into the layout's `modalities`.
        is_wanted_L: (L,) bool, tokens that the model is to produce.
    """

    ids_L: np.ndarray
    modality_L: np.ndarray
    is_wanted_L: np.ndarray

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids_L)

    def __add__(self, other: "TokenSequence") -> "TokenSequence":
        """The two sequences one after the other."""
        return join([self, other])

    def __getitem__(self, part: slice) -> "TokenSequence":
        """A stretch of the sequence."""
        return TokenSequence(self.ids_L[part], self.modality_L[part], self.is_wanted_L[part])


def join(parts: Sequence[TokenSequence]) -> TokenSequence:
    """Sequences one after the other; no parts give an empty sequence."""
    if not parts:
        return run_of([], "text")
    return TokenSequence(
        np.concatenate([part.ids_L for part in parts]),
        np.concatenate([part.modality_L for part in parts]),
        np.concatenate([part.is_wanted_L for part in parts]),
    )


def run_of(
    ids: Sequence[int] | np.ndarray, modality: str | int, wanted: bool = False
) -> TokenSequence:
    """A run of tokens of one modality, all wanted or none.

    Args:
        ids: (L,) token ids.
        modality: name of a fixed modality, or `layout.modality_id` of any.
        wanted: whether the model is to produce them.
    """
    ids_L = np.asarray(ids, dtype=np.int64).reshape(-1)
    index = MODALITY_IDS[modality] if isinstance(modality, str) else modality
    return TokenSequence(
        ids_L,
        np.full(len(ids_L), index, dtype=np.int64),
        np.full(len(ids_L), wanted, dtype=bool),
    )


def in_rows(codes: TokenSequence, modality: str, layout: TokenLayout) -> TokenSequence:
    """Codes with the layout's token behind each row of a picture; other codes as they are."""
    if modality != "image" or layout.row_end_token_id is None:
        return codes
    columns, row_end = layout.image_grid[1], run_of([layout.row_end_token_id], "text")
    rows = [codes[start : start + columns] for start in range(0, len(codes), columns)]
    return join([part for row in rows for part in (row, row_end)])


def between(part: Mapping[str, Any], slot: str) -> str:
    """A part's place in a template, between what the template writes around such parts."""
    opening, closing = part.get("around", ("", ""))
    return f"{opening}{slot}{closing}"


def check_role(message: Mapping[str, Any]) -> str:
    """The role of a message; raises ValueError unless it is one of `ROLES`."""
    role = message["role"]
    if role not in ROLES:
        raise ValueError(f"a message's role must be in {ROLES}, got {role!r}")
    return str(role)


class SequenceEncoder:
    """Turns conversations into token sequences with one tokenizer and one layout."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        layout: TokenLayout,
        chat_template: str | None = None,
    ) -> None:
        """Encoder whose chat template writes `{{ part['slot'] }}` where a part belongs."""
        self.tokenizer = tokenizer
        self.layout = layout
        self.chat_template = chat_template or CHAT_TEMPLATE
        self._plain = lru_cache(maxsize=65536)(lambda text: tuple(encode_plain(tokenizer, text)))
        self._template = lru_cache(maxsize=4096)(self._template_ids)

    def special(self, name: str) -> int:
        """Id of a special token; raises ValueError when the tokenizer has none of that name."""
        token_id = self._id_of(name)
        if token_id is None:
            raise ValueError(f"the tokenizer has no special token {name!r}")
        return token_id

    def text(self, text: str, wanted: bool = False) -> TokenSequence:
        """Plain text; what looks like a special token stays text."""
        return run_of(self._plain(text), "text", wanted)

    def codes(self, modality: str, codes: np.ndarray, wanted: bool = False) -> TokenSequence:
        """Codes of an image, a state, an action chunk ... in delimiters, which are not wanted."""
        ids = self.layout.encode(modality, np.asarray(codes).reshape(-1))
        run = run_of(ids, self.layout.modality_id(modality), wanted)
        if self.layout.has_bare_pictures:
            return run
        opening, closing = (run_of([token], "text") for token in self.delimiters(modality))
        return join([opening, in_rows(run, modality, self.layout), closing])

    def delimiters(self, modality: str) -> tuple[int, int]:
        """Ids around a modality's codes: the layout's, or the tokenizer's special tokens."""
        if modality in self.layout.delimiters:
            return self.layout.delimiters[modality]
        return self.special(f"<|{modality}|>"), self.special(f"<|/{modality}|>")

    def part(self, part: Mapping[str, Any], wanted: bool) -> TokenSequence:
        """One content part: {"type": "text", "text": ...} or {"type": modality, "codes": ...}.

        A picture read as features is {"type": "image", "soft": `SoftPicture`}: its positions.
        `{"type": "uncond"}` stands for a dropped condition; where the tokenizer has no token for
        it, as others' have none, nothing is said.

        Raises:
            ValueError: if the part's type is unknown.
        """
        kind = part.get("type")
        if kind == "text":
            return self.text(part["text"], wanted)
        if kind == "uncond":
            dropped = self._id_of("<|uncond|>")
            return run_of([] if dropped is None else [dropped], "text")
        if "soft" in part:
            assert self.layout.soft_token_id is not None  # the processor has read the picture
            return run_of([self.layout.soft_token_id] * part["soft"].num_positions, "text")
        if kind in self.layout.modalities:
            return self.codes(kind, part["codes"], wanted)
        raise ValueError(
            f"a content part's type must be uncond or one of {self.layout.modalities}, got {kind!r}"
        )

    def _id_of(self, name: str) -> int | None:
        """Id of a token; None where the tokenizer has none of that name."""
        token_id: int | None = self.tokenizer.convert_tokens_to_ids(name)
        return None if token_id == self.tokenizer.unk_token_id else token_id

    def beginning(self) -> TokenSequence:
        """What every text begins with; nothing, where the tokenizer has no such token."""
        begin = self.tokenizer.bos_token_id
        if "text" in self.layout.delimiters:
            begin = self.layout.delimiters["text"][0]
        return run_of([] if begin is None else [begin], "text")

    def conversation(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        want: Sequence[str] = ("text",),
    ) -> TokenSequence:
        """A whole conversation; what the assistant says, and the end of its turn, is wanted.

        Args:
            messages: each {"role": one of `ROLES`, "content": str or list of parts}.
            add_generation_prompt: end with the opening of the assistant's turn.
            want: modalities of the answer, which a chat template may read.

        Raises:
            ValueError: if a role or a part's type is unknown.
        """
        parts: list[TokenSequence] = []
        slotted = []
        for message in messages:
            role = check_role(message)
            content = message["content"]
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            slots = []
            for part in content:
                slot = between(part, f"\ue000{len(parts)}\ue001")
                slots.append({"type": part.get("type"), "slot": slot})
                parts.append(self.part(part, wanted=role == "assistant"))
            slotted.append({"role": role, "content": slots})
        options = {"add_generation_prompt": add_generation_prompt, "want": list(want)}
        return self._render(slotted, parts, options)

    def _render(
        self, slotted: list[dict[str, Any]], parts: list[TokenSequence], options: dict[str, Any]
    ) -> TokenSequence:
        """The template's text with each slot replaced by its tokens."""
        rendered = self.tokenizer.apply_chat_template(
            slotted,
            chat_template=self.chat_template,
            tokenize=False,
            **options,
        )
        pieces = _PLACEHOLDER.split(rendered)
        sequence = [self._template(pieces[0], False)]
        for number, following in zip(pieces[1::2], pieces[2::2], strict=True):
            part = parts[int(number)]
            sequence.append(part)
            ends_wanted_text = bool(part.is_wanted_L.any()) and bool(part.is_wanted_L[-1])
            sequence.append(self._template(following, ends_wanted_text))
        return join(sequence)

    def _template_ids(self, text: str, end_is_wanted: bool) -> TokenSequence:
        """Template text with its special tokens; a leading end-of-turn may be wanted."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        run = run_of(ids, "text")
        if end_is_wanted and ids and ids[0] in self.layout.end_token_ids:
            run.is_wanted_L[0] = True
        return run
