"""Lumina-DiMOO as it is published, at a tiny width: all of its ids."""

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
