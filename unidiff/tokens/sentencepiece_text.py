"""Tokenizers that come as a sentencepiece `.model` file alone, through transformers' backend."""

from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer, SentencePieceBackend

from .image import FSQImageTokenizerConfig

MODEL_FILE = "tokenizer.model"
_SPECIAL = ("unk", "bos", "eos", "pad")


class SentencePieceText(SentencePieceBackend):
    """transformers' backend, whose special tokens are the file's and whose single bytes are read.

    Args:
        vocab_file: path of the `.model` file.
        kwargs: as the backend takes them; a special token that is not named is the file's own.
    """

    def __init__(self, vocab_file: str, **kwargs: Any) -> None:
        """Tokenizer of a file."""
        model = SentencePieceProcessor(model_file=vocab_file)
        for kind in _SPECIAL:
            index = getattr(model, f"{kind}_id")()
            if index >= 0 and kwargs.get(f"{kind}_token") is None:
                kwargs[f"{kind}_token"] = model.id_to_piece(index)
        super().__init__(vocab_file=vocab_file, **kwargs)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Text of pieces, as sentencepiece itself reads them: bytes such as <0x0A> included."""
        text: str = self.sp_model.decode_pieces(tokens)
        return text


def num_pieces(path: Path) -> int:
    """Pieces of a `.model` file; raises ValueError if it is damaged."""
    try:
        return int(SentencePieceProcessor(model_file=str(path)).get_piece_size())
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{path} is no whole sentencepiece model ({error})") from error


# By this transformers finds the class of a converted folder's tokenizer; any configuration of this
# package may stand for it, as for the processor.
AutoTokenizer.register(
    FSQImageTokenizerConfig, slow_tokenizer_class=SentencePieceText, exist_ok=True
)
