"""Lumina-DiMOO as it is published, at a tiny width: all of its ids."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .published import LLADA_CONFIG, LLAMA, Published, full, llada_name

CODES_FROM, NUM_CODES = 126_356, 8192
MASK, ROW_END, OPENING, CLOSING, ANSWER_END = 126_336, 126_084, 126_349, 126_350, 126_355

LUMINA = Published(
    "lumina-dimoo",
    {
        **LLADA_CONFIG,
        "architectures": ["LLaDAForMultiModalGeneration"],
        "vocab_size": CODES_FROM + NUM_CODES,
        "embedding_size": CODES_FROM + NUM_CODES,
        "mask_token_id": MASK,
        "eos_token_id": 126_081,
        "pad_token_id": 126_081,
    },
    LLAMA,
    full,
    llada_name,
    mask=MASK,
    num_text=CODES_FROM,
    rows=CODES_FROM + NUM_CODES,
)

SYSTEM, SYSTEM_END, USER, USER_END, NOTHING, ANSWER = (
    *(126_345, 126_346, 126_347, 126_348),  # in a place of their own: nobody has published it
    126_351,
    126_354,
)
_TAGS = {
    ROW_END: "<end-of-line>",
    MASK: "<|mdm_mask|>",
    SYSTEM: "<system>",
    SYSTEM_END: "</system>",
    USER: "<user>",
    USER_END: "</user>",
    OPENING: "<IMAGE>",
    CLOSING: "</IMAGE>",
    NOTHING: "<uncondition>",
    ANSWER: "<answer>",
    ANSWER_END: "</answer>",
}
_END = 126_081


def write_whole_tokenizer(folder: Path) -> None:
    """Bytes, and every published special token at its id; words that nobody says are between."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {one: number for number, one in enumerate(alphabet)}
    words |= {f"<filler {n}>": n for n in range(len(words), CODES_FROM)}
    special = {**_TAGS, _END: "<|endoftext|>"}
    words = {word: n for word, n in words.items() if n not in special}
    words |= {tag: n for n, tag in special.items()}
    backend = Tokenizer(models.BPE(words, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(one, special=True) for one in special.values()])
    end = special[_END]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, pad_token=end)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
