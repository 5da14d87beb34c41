"""Conversations as somebody else's chat template writes them, byte for byte.

Such a template takes contents as strings and may cut, search and split them, so it is given the
texts themselves. Only what must not be read as it stands is taken out before and put back behind
the template: texts of special tokens, which stay plain text, and values that are codes.
"""

# Shapes: L sequence.

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerBase

from .layout import TokenLayout
from .sequence import SequenceEncoder, TokenSequence, between, check_role, join, run_of
from .text import encode_plain

# Private characters around the number of what was taken out, or of what the assistant says.
_KEPT, _BEGIN, _END, _CLOSE = "\ue000", "\ue001", "\ue002", "\ue003"
_MARK = re.compile(f"([{_KEPT}{_BEGIN}{_END}])(\\d+){_CLOSE}")
_SPEECH = re.compile(f"[{_BEGIN}{_END}]\\d+{_CLOSE}")
_ONE_SPEECH = re.compile(f"{_BEGIN}(\\d+){_CLOSE}[^{_BEGIN}{_END}]*{_END}\\1{_CLOSE}")
# Jinja's code, the strings in it, and how it reads a slot of ours.
_CODE = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)
_STRING = re.compile(r"(['\"])((?:\\.|(?!\1).)*)\1", re.DOTALL)
_SLOT = re.compile(r"(?<=[\w)\]])(?:\[\s*['\"]slot['\"]\s*\]|\.slot\b|\.get\(\s*['\"]slot['\"])")
Messages = list[dict[str, str]]
Kept = list[str | TokenSequence]


class ForeignEncoder(SequenceEncoder):
    """The encoder of a template that knows nothing of our slots: contents are strings there."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, layout: TokenLayout, chat_template: str
    ) -> None:
        """Encoder of a tokenizer under a template."""
        super().__init__(tokenizer, layout, chat_template)
        added = {str(one) for one in tokenizer.added_tokens_decoder.values() if one.special}
        longest_first = sorted({*added, *tokenizer.all_special_tokens} - {""}, key=len)[::-1]
        special = [re.escape(one) for one in longest_first]
        self._special = re.compile(f"({'|'.join(special) or '(?!)'})")
        self._unsafe = re.compile("|".join([*special, f"[{_KEPT}{_BEGIN}{_END}{_CLOSE}]"]))

    def conversation(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        want: Sequence[str] = ("text",),
    ) -> TokenSequence:
        """A whole conversation; what the assistant says, and the end of its turn, is wanted.

        Where the template takes apart what the assistant says, nothing is wanted.

        Args:
            messages: each {"role": one of `ROLES`, "content": str or list of parts}.
            add_generation_prompt: end with the opening of the assistant's turn.
            want: modalities of the answer, which such a template knows nothing of.

        Raises:
            ValueError: if a role or a part's type is unknown, or the template refuses.
        """
        del want
        kept: Kept = []
        plain = [{"role": check_role(m), "content": self._content(m, kept)} for m in messages]
        rendered = self._rendered(plain, add_generation_prompt)
        if any(one["role"] == "assistant" for one in plain):
            tries = (
                self._rendered(_marked(plain, spaces_outside), add_generation_prompt)
                for spaces_outside in (False, True)
            )
            rendered = next((one for one in tries if _says(one, rendered)), rendered)
        return join([*self._runs(rendered, kept)])

    def _content(self, message: Mapping[str, Any], kept: Kept) -> str:
        """A message's text, with a mark for what is taken out of it and now stands in `kept`."""

        def take_out(one: str | TokenSequence) -> str:
            kept.append(one)
            return f"{_KEPT}{len(kept) - 1}{_CLOSE}"

        content = message["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        texts, values = [""], []
        for part in content:
            if part.get("type") == "text":
                texts[-1] += part["text"]
            else:
                value = take_out(self.part(part, message["role"] == "assistant"))
                values.append(between(part, value))
                texts.append("")
        safe = [self._unsafe.sub(lambda found: take_out(found[0]), text) for text in texts]
        return "".join(one for pair in zip(safe, [*values, ""], strict=True) for one in pair)

    def _rendered(self, messages: Messages, add_generation_prompt: bool) -> str:
        """What the template writes."""
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.chat_template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except Exception as error:  # Jinja's errors share no class with ours
            roles = [one["role"] for one in messages]
            raise ValueError(
                f"the checkpoint's chat template refuses a conversation of {roles}: {error}"
            ) from error
        return text

    def _runs(self, rendered: str, kept: Kept) -> Iterator[TokenSequence]:
        """The tokens of what a template wrote, in parts."""
        pieces = _MARK.split(rendered)
        stretch = [pieces[0]]  # the template's text and, at odd places, special texts of a user
        is_wanted = is_behind = False  # within what the assistant says, or right behind it
        for mark, number, following in zip(*(pieces[n::3] for n in (1, 2, 3)), strict=True):
            value = kept[int(number)] if mark == _KEPT else None
            if isinstance(value, str):
                stretch += [value, following]
                continue
            yield self._run(stretch, is_wanted, is_behind)
            if value is not None:
                yield value
            else:
                is_wanted = mark == _BEGIN
            is_behind, stretch = mark == _END, [following]
        yield self._run(stretch, is_wanted, is_behind)

    def _run(self, stretch: Sequence[str], is_wanted: bool, is_behind: bool) -> TokenSequence:
        """Tokens of a stretch; an end of turn right behind what is wanted is wanted as well."""
        ids = self._ids(stretch)
        run = run_of(ids, "text", is_wanted)
        if is_behind and ids and ids[0] in self.layout.end_token_ids:
            run.is_wanted_L[0] = True
        return run

    def _ids(self, stretch: Sequence[str]) -> list[int]:
        """Ids of a stretch as its tokenizer reads the whole; what stands at odd places is plain.

        Around such a text everything up to the next special token of the template is read plainly
        with it, for tokens may reach across its borders.
        """
        regions = [("", False)]
        for place, text in enumerate(stretch):
            within, is_plain = regions[-1]
            if place % 2:
                regions[-1] = within + text, True
                continue
            first, *rest = self._special.split(text)
            regions[-1] = within + first, is_plain
            for special, following in zip(rest[::2], rest[1::2], strict=True):
                regions += [(special, False), (following, False)]
        ids: list[int] = []
        for is_plain, group in groupby(regions, key=lambda region: region[1]):
            text = "".join(one for one, _ in group)
            if is_plain:
                ids += encode_plain(self.tokenizer, text)
            else:
                ids += self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def encoder_for(
    tokenizer: PreTrainedTokenizerBase, layout: TokenLayout, chat_template: str
) -> SequenceEncoder:
    """The encoder that a template is for: ours reads `part['slot']` of content parts."""
    codes = (_STRING.sub(_slot_alone, code) for code in _CODE.findall(chat_template))
    if any(_SLOT.search(code) for code in codes):
        return SequenceEncoder(tokenizer, layout, chat_template)
    return ForeignEncoder(tokenizer, layout, chat_template)


def _slot_alone(string: re.Match[str]) -> str:
    """A string of a template's code, empty unless it is the name of a slot."""
    return string[0] if string[2] == "slot" else "''"


def _marked(messages: Messages, spaces_outside: bool) -> Messages:
    """The conversation with marks around what the assistant says, or around all but its spaces."""
    marked = []
    for number, message in enumerate(messages):
        text = message["content"]
        core = text.strip() if spaces_outside else text
        if message["role"] == "assistant" and core:
            start = text.index(core)
            before, after = text[:start], text[start + len(core) :]
            text = f"{before}{_BEGIN}{number}{_CLOSE}{core}{_END}{number}{_CLOSE}{after}"
        marked.append({**message, "content": text})
    return marked


def _says(marked: str, rendered: str) -> bool:
    """Whether a text with marks is this one, and every mark that begins has its end."""
    return _SPEECH.sub("", marked) == rendered and not _SPEECH.search(_ONE_SPEECH.sub("", marked))
