"""Tiny random image tokenizers in the layouts that others publish, with references."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    ChameleonVQVAEConfig,
    Emu3VQVAE,
    Emu3VQVAEConfig,
    JanusVQVAE,
    JanusVQVAEConfig,
)
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

from .published import write_json
from .reference_images import Diffusers, LlamaGen, Magvit, nearest, unit
from .reference_seed_voken import IBQ, OpenMagvit, trained

SIDES = (48, 32)  # pixels of a test picture, down and across


def random_picture(seed: int = 3) -> Image.Image:
    """A picture 60 high and 90 wide."""
    values = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((90, 60), Image.Resampling.BICUBIC)


class OfTransformers:
    """A reference that is a class of transformers."""

    def __init__(self, network: nn.Module, config: dict[str, Any], prefix: str = "") -> None:
        self.network, self.config, self.prefix = network.eval(), config, prefix
        torch.manual_seed(5)
        for name, weight in network.named_parameters():
            if "embedding" in name:
                nn.init.normal_(weight, 0.0, 0.3)
            elif weight.ndim > 1:
                nn.init.normal_(weight, 0.0, 1.2 / weight[0].numel() ** 0.5)
            else:
                nn.init.normal_(weight, 0.0 if name.endswith("bias") else 1.0, 0.1)
        for name, buffer in network.named_buffers():
            if "running" in name:  # of Emu3's batch norms, as if they had been trained
                buffer.add_(torch.rand(buffer.shape))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Under the names of a whole model, of which one more tensor is there."""
        own = {f"{self.prefix}{name}": one for name, one in self.network.state_dict().items()}
        return {**own, "model.norm.weight": torch.ones(3)} if self.prefix else own


class Janus(OfTransformers):
    """Pixels are those of transformers' class; it looks codes up as DeepSeek's does not."""

    def __init__(self, prefix: str = "") -> None:
        config = JanusVQVAEConfig(
            embed_dim=8, num_embeddings=50, latent_channels=24, base_channels=32, num_patches=2
        )
        own = config.to_dict()
        whole = {"model_type": "janus", "vq_config": own}
        super().__init__(JanusVQVAE(config), whole if prefix else own, prefix)

    def encode(self, pixels: Tensor) -> Tensor:
        latent = self.network.quant_conv(self.network.encoder(pixels))
        return nearest(unit(latent, 1), unit(self.network.quantize.embedding.weight, 1))

    def decode(self, codes: Tensor) -> Tensor:
        self.network.quantize.quant_state_dims = list(codes.shape[1:])
        return self.network.decode(codes.flatten(1))


class Chameleon(OfTransformers):
    def __init__(self, prefix: str = "", **fields: Any) -> None:
        config = ChameleonVQVAEConfig(
            embed_dim=16,
            num_embeddings=50,
            latent_channels=24,
            base_channels=32,
            resolution=64,
            **fields,
        )
        own = config.to_dict()
        whole = {"model_type": "chameleon", "vq_config": own}
        super().__init__(ChameleonVQVAE(config), whole if prefix else own, prefix)

    def encode(self, pixels: Tensor) -> Tensor:
        sides = [side // 16 for side in pixels.shape[2:]]
        return self.network.encode(pixels).image_tokens.reshape(len(pixels), *sides)

    decode = None  # none was published


class Emu3(OfTransformers):
    def __init__(self, prefix: str = "") -> None:
        config = Emu3VQVAEConfig(
            codebook_size=50, base_channels=32, num_res_blocks=1, hidden_size=128
        )
        own = config.to_dict()
        whole = {"model_type": "emu3", "vq_config": own}
        super().__init__(Emu3VQVAE(config), whole if prefix else own, prefix)

    def encode(self, pixels: Tensor) -> Tensor:
        sizes = torch.tensor([list(pixels.shape[2:])] * len(pixels))
        return torch.stack(self.network.encode(pixels, sizes).image_tokens)

    def decode(self, codes: Tensor) -> Tensor:
        return self.network.decode(codes)


class LlamaGen8(LlamaGen):
    times = (1, 2, 2, 4)


class OpenMagvit8(OpenMagvit):
    times = (1, 2, 2, 4)


_LEVELS = ["DownEncoderBlock2D"] * 3, ["UpDecoderBlock2D"] * 3
LUMINA = {
    "_class_name": "VQModel",
    "_diffusers_version": "0.35.1",
    "act_fn": "silu",
    "block_out_channels": [32, 64, 96],
    "down_block_types": _LEVELS[0],
    "up_block_types": _LEVELS[1],
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 16,
    "layers_per_block": 2,
    "mid_block_add_attention": False,
    "lookup_from_codebook": True,
    "norm_num_groups": 32,
    "norm_type": "group",
    "num_vq_embeddings": 50,
    "sample_size": 32,
    "vq_embed_dim": None,
}
LATENT_DIFFUSION = {
    **{name: value for name, value in LUMINA.items() if name != "mid_block_add_attention"},
    "lookup_from_codebook": False,
    "down_block_types": [*_LEVELS[0][:2], "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", *_LEVELS[1][:2]],
    "layers_per_block": 1,
    "vq_embed_dim": 8,
}
_DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class PublishedImages:
    """An image tokenizer's layout at a tiny size.

    Attributes:
        name: of the family, as the package has it.
        label: of the test.
        reference: makes the reference.
        file: of its weights.
        lowest: pixel of the range that was published; the highest is 1.
        prefix: before the names, where a whole model holds it.
        pack: the reference's tensors -> all that a file holds.
    """

    name: str
    label: str
    reference: Callable[[], Any]
    file: str = "model.safetensors"
    lowest: float = -1.0
    prefix: str = ""
    pack: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict

    def write(self, folder: Path, reference: Any) -> Path:
        """The files as they are published; returns the folder."""
        folder.mkdir(parents=True)
        if reference.config:
            write_json(folder / "config.json", reference.config)
        tensors = {self.prefix + name: one for name, one in self.packed(reference).items()}
        save_file({name: one.contiguous() for name, one in tensors.items()}, folder / self.file)
        return folder

    def packed(self, reference: Any) -> dict[str, Tensor]:
        """Every tensor of a file by its published name."""
        return self.pack(weights_of(reference))


def weights_of(reference: Any) -> dict[str, Tensor]:
    """Every tensor by its published name."""
    if isinstance(reference, OfTransformers):
        return reference.tensors
    if not reference.weights.tensors:
        with torch.no_grad():
            reference.decode(reference.encode(torch.zeros(1, 3, 16, 16)))
    return reference.weights.tensors


IMAGE_TABLE = (
    PublishedImages("magvit-v2", "magvit-v2", Magvit, "pytorch_model.safetensors"),
    PublishedImages("llamagen", "llamagen-16", LlamaGen),
    PublishedImages("llamagen", "llamagen-8", LlamaGen8),
    PublishedImages("llamagen", "janus-deepseek", LlamaGen, prefix="gen_vision_model."),
    PublishedImages(
        "diffusers", "diffusers-lumina", lambda: Diffusers(LUMINA), _DIFFUSERS_FILE, 0.0
    ),
    PublishedImages(
        "diffusers", "diffusers-latent", lambda: Diffusers(LATENT_DIFFUSION), _DIFFUSERS_FILE
    ),
    PublishedImages(
        "diffusers",
        "diffusers-old",
        lambda: Diffusers(LATENT_DIFFUSION, ("query", "key", "value", "proj_attn")),
        _DIFFUSERS_FILE,
    ),
    PublishedImages("janus", "janus", Janus),
    PublishedImages("janus", "janus-whole", lambda: Janus("model.vqmodel.")),
    PublishedImages("chameleon", "chameleon", Chameleon),
    PublishedImages(
        "chameleon",
        "chameleon-whole",
        lambda: Chameleon("model.vqmodel.", attn_resolutions=[8, 32]),
    ),
    PublishedImages("emu3", "emu3", Emu3),
    PublishedImages("emu3", "emu3-whole", lambda: Emu3("vqmodel.")),
    PublishedImages("open-magvit2", "open-magvit2", OpenMagvit, pack=trained),
    PublishedImages("open-magvit2", "open-magvit2-8", OpenMagvit8),
    PublishedImages("ibq", "ibq", IBQ, pack=trained),
)
