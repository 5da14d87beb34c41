"""The bytes that each token of a tokenizer stands for, whatever spelling its vocabulary uses.

A byte-level vocabulary writes bytes as printable characters, a sentencepiece one writes a space as
U+2581 and single bytes as `<0x0A>`; what a grammar has to match are the bytes themselves.
"""

import json
import re
from typing import Any

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PRINTABLE = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))
_SPACE_MARK = "\u2581"


def token_bytes(tokenizer: Any) -> list[bytes | None]:
    """The bytes of each id of a fast tokenizer; None for special tokens and ids without a token.

    Args:
        tokenizer: transformers' fast tokenizer, byte-level (GPT-2's alphabet) or with
            sentencepiece's marks.

    Raises:
        TypeError: if it is no fast tokenizer.
        ValueError: if its decoder is of another kind.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TypeError(
            "a grammar needs a fast tokenizer (one with backend_tokenizer), got "
            f"{type(tokenizer).__name__}"
        )
    kinds = _decoder_kinds(json.loads(backend.to_str())["decoder"])
    if "ByteLevel" not in kinds and not kinds & {"ByteFallback", "Metaspace"}:
        raise ValueError(
            "a grammar needs a byte-level or sentencepiece tokenizer; this one decodes with "
            f"{sorted(kinds) or 'nothing'}"
        )
    read = _byte_level if "ByteLevel" in kinds else _sentencepiece
    vocabulary = tokenizer.get_vocab()
    found: list[bytes | None] = [None] * (max(vocabulary.values(), default=-1) + 1)
    for text, token in vocabulary.items():
        found[token] = read(text)
    for token, added in tokenizer.added_tokens_decoder.items():
        found[token] = None if added.special else added.content.encode()
    return found


def _decoder_kinds(decoder: dict[str, Any] | None) -> set[str]:
    """Types of the decoders in a tokenizer file, those inside a sequence included."""
    if decoder is None:
        return set()
    parts = decoder.get("decoders", [])
    return {str(decoder["type"])}.union(*(_decoder_kinds(part) for part in parts))


def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others for U+0100 and on."""
    printable = [byte for part in _PRINTABLE for byte in part]
    rest = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + place): byte for place, byte in enumerate(rest)}


_BYTES = _byte_of_character()


def _byte_level(text: str) -> bytes | None:
    """Bytes of a token in GPT-2's alphabet; None if it is not written in it."""
    if any(character not in _BYTES for character in text):
        return None
    return bytes(_BYTES[character] for character in text)


def _sentencepiece(text: str) -> bytes:
    """Bytes of a token in sentencepiece's spelling."""
    single = _BYTE_TOKEN.fullmatch(text)
    if single:
        return bytes([int(single.group(1), 16)])
    return text.replace(_SPACE_MARK, " ").encode()
