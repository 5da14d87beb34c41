"""Emu3's image tokenizer, through transformers' own class: made for video, here for still images.

An image is repeated over as many frames as become one, and of a decoded group the first is taken.

Shapes: B images, h and w code rows and columns.
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from .image_tokenizer import ImageTokenizer


@strict
class Emu3ImageTokenizerConfig(PreTrainedConfig):
    """Configuration of an `Emu3ImageTokenizer`."""

    model_type = "unidiff_emu3"

    vq_config: dict[str, Any] | None = None  # fields of transformers' Emu3VQVAEConfig
    image_size: int = 512  # pixels per side

    @property
    def codebook_size(self) -> int:
        """Number of different codes."""
        size: int = self.network.codebook_size
        return size

    @property
    def downsample_factor(self) -> int:
        """Pixels per code along each side."""
        return 1 << (len(self.network.channel_multiplier) - 1)

    @property
    def network(self) -> Any:
        """The `Emu3VQVAEConfig`."""
        from transformers import Emu3VQVAEConfig

        return Emu3VQVAEConfig.from_dict(self.vq_config or {})


class Emu3ImageTokenizer(ImageTokenizer):
    """A published image tokenizer of Emu3."""

    config: Emu3ImageTokenizerConfig
    config_class = Emu3ImageTokenizerConfig

    def __init__(self, config: Emu3ImageTokenizerConfig) -> None:
        super().__init__(config)
        from transformers import Emu3VQVAE

        self.network: Any = Emu3VQVAE(config.network)
        self.post_init()

    @property
    def kind(self) -> str:
        """What it is, in a few words."""
        return "Emu3"

    def _codes(self, pixels: Tensor) -> Tensor:
        sizes = torch.tensor([pixels.shape[2:]] * len(pixels))
        tokens = self.network.encode(pixels.to(self.dtype), sizes).image_tokens
        return torch.stack(tokens)

    def _pixels(self, codes: Tensor) -> Tensor:
        pixels: Tensor = self.network.decode(codes)
        return pixels


AutoConfig.register(Emu3ImageTokenizerConfig.model_type, Emu3ImageTokenizerConfig)
AutoModel.register(Emu3ImageTokenizerConfig, Emu3ImageTokenizer)
