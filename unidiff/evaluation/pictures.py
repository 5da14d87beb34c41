"""Between codes and pixels, in batches: what the judges of drawings look at."""

# Shapes: N images.

from typing import Any

import numpy as np
import torch

_BATCH = 256


@torch.inference_mode()
def decode_pictures(processor: Any, codes: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 pictures of (N, h * w) image codes."""
    model = processor.image_tokenizer
    parts = []
    for start in range(0, len(codes), _BATCH):
        part = np.ascontiguousarray(codes[start : start + _BATCH], dtype=np.int64)
        batch = torch.from_numpy(part)
        pixels = model.decode_image_tokens(batch.to(model.device), processor.layout.image_grid)
        scaled = ((pixels.cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        parts.append(scaled.permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def encode_pictures(processor: Any, pictures: np.ndarray) -> np.ndarray:
    """(N, h * w) int64 codes of (N, H, W, 3) uint8 pictures of the tokenizer's size."""
    model = processor.image_tokenizer
    parts = []
    for start in range(0, len(pictures), _BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(pictures[start : start + _BATCH]))
        pixels = batch.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        parts.append(model.get_image_tokens(pixels.to(model.device)).cpu().numpy())
    return np.concatenate(parts).astype(np.int64)
