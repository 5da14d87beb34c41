"""The text tokenizer: a small byte-level BPE that gives back any string exactly.

Special tokens have the lowest ids, in the order of `SPECIAL_TOKENS`; then come the 256 bytes, then
the merges. Nothing is normalised, and no token is added around a text: turns, `<|bos|>` and
`<|end|>` are the chat template's and the processor's business.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD_TOKEN = "<|pad|>"
MASK_TOKEN = "<|mask|>"
BOS_TOKEN = "<|bos|>"
END_TOKEN = "<|end|>"  # end of turn, which is also the end of the sequence
TURN_AND_MODALITY_TOKENS = {
    "user_token": "<|user|>",
    "assistant_token": "<|assistant|>",
    "system_token": "<|system|>",
    "image_token": "<|image|>",
    "image_end_token": "<|/image|>",
    "state_token": "<|state|>",
    "state_end_token": "<|/state|>",
    "action_token": "<|action|>",
    "action_end_token": "<|/action|>",
    "infill_token": "<|infill|>",
    "uncond_token": "<|uncond|>",
    "hole_token": "<|hole|>",
}
SPECIAL_TOKENS = (PAD_TOKEN, MASK_TOKEN, BOS_TOKEN, END_TOKEN, *TURN_AND_MODALITY_TOKENS.values())
DEFAULT_VOCAB_SIZE = 2048
NUM_BYTES = 256

# What a token may not cross, in the order tried. Own pattern in the manner of GPT-2's.
PRE_TOKEN_PATTERN = "|".join(
    (
        r" ?t-shirt",  # a class name that is answered with one token
        r"'(?:s|t|re|ve|ll|d|m)(?!\p{L})",  # English endings: don't, it's
        r" ?\p{L}+",  # a word, with the space before it
        r"\p{N}",  # each digit by itself
        r" ?[^\s\p{L}\p{N}]+",  # punctuation and operators
        r"[\r\n]+[ \t]*(?=\S)",  # line ends together with the indentation of the next line
        r"\s+(?!\S)",  # spaces, all but the last one before a word
        r"\s+",
    )
)


def build_text_tokenizer(
    texts: Iterable[str], vocab_size: int = DEFAULT_VOCAB_SIZE
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the texts; the same texts give the same tokenizer.

    Args:
        texts: training texts, each at most a few MB. Special-token strings in them count as
            ordinary text.
        vocab_size: number of ids in total, special tokens and bytes included. Fewer are made where
            the texts run out of pairs to merge.

    Raises:
        ValueError: if `vocab_size` does not leave room for the special tokens and the bytes.

    Source: byte-level BPE as in GPT-2 (Radford et al. 2019, section 2.2), through HF `tokenizers`.
    """
    smallest = len(SPECIAL_TOKENS) + NUM_BYTES
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size must be >= {smallest} ({len(SPECIAL_TOKENS)} special tokens and "
            f"{NUM_BYTES} bytes); got {vocab_size}"
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKEN_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD_TOKEN,
        mask_token=MASK_TOKEN,
        bos_token=BOS_TOKEN,
        eos_token=END_TOKEN,
        extra_special_tokens=dict(TURN_AND_MODALITY_TOKENS),
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def encode_plain(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Ids of a text that nobody vouches for: what looks like a special token becomes plain tokens.

    Args:
        tokenizer: a tokenizer of `build_text_tokenizer`.
        text: any string that UTF-8 can hold; may be empty.

    Returns:
        Ids without any special token; empty for the empty text.

    Raises:
        ValueError: if UTF-8 cannot hold the text.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text holds a lone surrogate {text[error.start]!a} at character {error.start}, "
            "which UTF-8 cannot hold: read it with errors='replace'"
        ) from error
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
    return list(encoded["input_ids"])


def decode_plain(tokenizer: PreTrainedTokenizerFast, ids: Iterable[int]) -> str:
    """The exact text of the ids, special tokens spelled out; inverse of `encode_plain`.

    Bytes that are no UTF-8 (a character cut in the middle) come out as U+FFFD.
    """
    text: str = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text
