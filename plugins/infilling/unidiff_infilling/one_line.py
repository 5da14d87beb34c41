"""A rule that keeps a hole on its line."""

from typing import Any

import torch

from unidiff.tokens.token_bytes import token_bytes


class OneLine:
    """Logits processor that forbids tokens with a line end."""

    def __init__(self, tokenizer: Any) -> None:
        """Find those tokens."""
        texts = token_bytes(tokenizer)
        self.ids = [token for token, text in enumerate(texts) if text and b"\n" in text]

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(N, V) scores with -inf at line ends."""
        del ids
        index = torch.tensor(self.ids, dtype=torch.int64, device=scores.device)
        return scores.index_fill(-1, index, -torch.inf)
