"""Published image tokenizers, slowly and by themselves, from their published maths.

The weights are a dictionary under the published names, and a tensor that is asked for and not there
is made up at random: so one pass through both halves writes down the whole checkpoint. Nothing here
is the package's: convolutions are sums over patches, norms and attention are their formulas.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

GROUPS = 32


class Weights:
    """Tensors by name; those asked for the first time are random."""

    def __init__(self, seed: int) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, name: str, *shape: int, mean: float = 0.0, deviation: float) -> Tensor:
        if name not in self.tensors:
            noise = torch.randn(shape, generator=self._generator)
            self.tensors[name] = mean + deviation * noise
        assert self.tensors[name].shape == shape, (name, shape)
        return self.tensors[name]


@dataclass
class Layout:
    """What one layout calls the parts of its blocks."""

    shortcut: str = "nin_shortcut"
    attention: tuple[str, ...] = ("norm", "q", "k", "v", "proj_out")
    is_linear: bool = False  # attention's maps are matrices, not 1 x 1 convolutions


@dataclass
class Reference:
    """One tokenizer: its weights, and codes and pixels by the published maths.

    Pixels are in the range that was published for it.
    """

    layout: Layout = field(default_factory=Layout)
    weights: Weights = field(default_factory=lambda: Weights(0))
    width: int = 32
    halving = (0, 1)  # rows and columns of zeros before and behind a convolution of stride 2

    def has_bias(self, name: str) -> bool:
        """Whether a convolution has one."""
        return True

    def conv(self, name: str, x: Tensor, out: int, side: int = 3, stride: int = 1) -> Tensor:
        """A convolution, patch by patch."""
        count = x.shape[1]
        weight = self.weights(
            f"{name}.weight", out, count, side, side, deviation=1.2 / (count * side**2) ** 0.5
        )
        bias = torch.zeros(out)
        if self.has_bias(name):
            bias = self.weights(f"{name}.bias", out, deviation=0.1)
        before, after = self.halving if stride == 2 else (side // 2, side // 2)
        height, width = (size + before + after for size in x.shape[2:])
        padded = x.new_zeros(*x.shape[:2], height, width)
        padded[:, :, before : height - after, before : width - after] = x
        patches = padded.unfold(2, side, stride).unfold(3, side, stride)
        return torch.einsum("bchwij,ocij->bohw", patches, weight) + bias[:, None, None]

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Groups of channels at mean 0 and variance 1, then scaled and moved."""
        count = x.shape[1]
        weight = self.weights(f"{name}.weight", count, mean=1.0, deviation=0.1)
        bias = self.weights(f"{name}.bias", count, deviation=0.1)
        grouped = x.reshape(len(x), GROUPS, -1)
        centred = grouped - grouped.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]

    def block(self, name: str, x: Tensor, out: int) -> Tensor:
        """Twice norm, swish, convolution; added to the input."""
        hidden = self.conv(f"{name}.conv1", swish(self.norm(f"{name}.norm1", x)), out)
        hidden = self.conv(f"{name}.conv2", swish(self.norm(f"{name}.norm2", hidden)), out)
        if x.shape[1] != out:
            x = self.conv(f"{name}.{self.layout.shortcut}", x, out, side=1)
        return x + hidden

    def attention(self, name: str, x: Tensor) -> Tensor:
        """Every position looks at every one; added to the input."""
        norm, *maps, last = self.layout.attention
        batch, count, height, width = x.shape
        flat = self.norm(f"{name}.{norm}", x).reshape(batch, count, -1).transpose(1, 2)
        query, key, value = (self._map(f"{name}.{one}", flat) for one in maps)
        scores = torch.einsum("bqc,bkc->bqk", query, key) / count**0.5
        exps = (scores - scores.amax(-1, keepdim=True)).exp()
        mixed = torch.einsum("bqk,bkc->bqc", exps / exps.sum(-1, keepdim=True), value)
        update = self._map(f"{name}.{last}", mixed)
        return x + update.transpose(1, 2).reshape(batch, count, height, width)

    def _map(self, name: str, x: Tensor) -> Tensor:
        count = x.shape[-1]
        shape = (count, count) if self.layout.is_linear else (count, count, 1, 1)
        weight = self.weights(f"{name}.weight", *shape, deviation=1 / count**0.5)
        return x @ weight.reshape(count, count).T + self.weights(
            f"{name}.bias", count, deviation=0.1
        )

    def doubled(self, name: str, x: Tensor) -> Tensor:
        """Every position four times, then a convolution."""
        return self.conv(name, x.repeat_interleave(2, 2).repeat_interleave(2, 3), x.shape[1])

    def last(self, norm: str, conv: str, x: Tensor, out: int) -> Tensor:
        """Norm, swish, convolution."""
        return self.conv(conv, swish(self.norm(norm, x)), out)


class Magvit(Reference):
    """Show-o's MAGVIT-v2: `size` signs a code, the first one worth most."""

    size = 4
    config: dict[str, Any] = {"_class_name": "MAGVITv2", "_diffusers_version": "0.30.1"}

    def encode(self, pixels: Tensor) -> Tensor:
        x = self.conv("encoder.conv_in", pixels, self.width)
        for level, (times, count) in enumerate(zip((1, 2, 2, 4, 4), (4, 3, 4, 3, 4), strict=True)):
            for number in range(count):
                x = self.block(f"encoder.down.{level}.block.{number}", x, times * self.width)
            if level < 4:
                x = self.conv(f"encoder.down.{level}.downsample.conv", x, x.shape[1], stride=2)
        x = self._middle("encoder", x)
        x = self.last("encoder.norm_out", "encoder.conv_out", x, self.size)
        z = self.conv("encoder.quant_conv", x, self.size, side=1)
        codes = torch.zeros(z[:, 0].shape, dtype=torch.int64)
        for sign in range(self.size):
            codes = 2 * codes + (z[:, sign] > 0).long()
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        numbers = range(2**self.size)
        table = torch.tensor([[float(c) for c in f"{n:0{self.size}b}"] for n in numbers]) * 2 - 1
        self.weights.tensors["quantize.embedding"] = table
        powers = [2 ** (self.size - 1 - n) for n in range(self.size)]
        self.weights.tensors["quantize.power_vals"] = torch.tensor(powers)
        x = self.conv("decoder.post_quant_conv", table[codes].permute(0, 3, 1, 2), self.size, 1)
        x = self._middle("decoder", self.conv("decoder.conv_in", x, 4 * self.width))
        for level in (4, 3, 2, 1, 0):
            times, count = (1, 1, 2, 2, 4)[level], (4, 4, 3, 4, 3)[level]
            for number in range(count):
                x = self.block(f"decoder.up.{level}.block.{number}", x, times * self.width)
            if level > 0:
                x = self.doubled(f"decoder.up.{level}.upsample.conv", x)
        return self.last("decoder.norm_out", "decoder.conv_out", x, 3)

    def _middle(self, half: str, x: Tensor) -> Tensor:
        x = self.block(f"{half}.mid.block_1", x, x.shape[1])
        return self.block(
            f"{half}.mid.block_2", self.attention(f"{half}.mid.attn_1", x), x.shape[1]
        )


class LlamaGen(Reference):
    """LlamaGen's VQ-16 or VQ-8: rows of a code book, all vectors at length 1."""

    config: dict[str, Any] = {}
    times: Sequence[int] = (1, 1, 2, 2, 4)
    prefix = ""

    def encode(self, pixels: Tensor) -> Tensor:
        x = self.conv("encoder.conv_in", pixels, self.width)
        last = len(self.times) - 1
        for level, times in enumerate(self.times):
            name = f"encoder.conv_blocks.{level}"
            for number in range(2):
                x = self.block(f"{name}.res.{number}", x, times * self.width)
                x = self.attention(f"{name}.attn.{number}", x) if level == last else x
            if level < last:
                x = self.conv(f"{name}.downsample.conv", x, x.shape[1], stride=2)
        x = self.last("encoder.norm_out", "encoder.conv_out", self._middle("encoder", x), 24)
        return nearest(unit(self.conv("quant_conv", x, 8, side=1), 1), unit(self._book(), 1))

    def decode(self, codes: Tensor) -> Tensor:
        self.weights("quantize.codebook_used", 65536, deviation=1.0)
        rows = unit(self._book(), 1)[codes].permute(0, 3, 1, 2)
        x = self.conv("post_quant_conv", rows, 24, side=1)
        x = self._middle("decoder", self.conv("decoder.conv_in", x, self.times[-1] * self.width))
        last = len(self.times) - 1
        for place, times in enumerate(reversed(self.times)):
            name = f"decoder.conv_blocks.{place}"
            for number in range(3):
                x = self.block(f"{name}.res.{number}", x, times * self.width)
                x = self.attention(f"{name}.attn.{number}", x) if place == 0 else x
            x = self.doubled(f"{name}.upsample.conv", x) if place < last else x
        return self.last("decoder.norm_out", "decoder.conv_out", x, 3)

    def _book(self) -> Tensor:
        return self.weights("quantize.embedding.weight", 50, 8, deviation=1.0)

    def _middle(self, half: str, x: Tensor) -> Tensor:
        x = self.attention(f"{half}.mid.1", self.block(f"{half}.mid.0", x, x.shape[1]))
        return self.block(f"{half}.mid.2", x, x.shape[1])


class Diffusers(Reference):
    """`VQModel`: rows of a code book at the smallest distance.

    Args:
        config: as in its `config.json`.
        names: of the parts of attention, which older versions called otherwise.
    """

    def __init__(
        self, config: dict[str, Any], names: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    ) -> None:
        super().__init__(Layout("conv_shortcut", ("group_norm", *names), is_linear=True))
        self.config = config

    def encode(self, pixels: Tensor) -> Tensor:
        config, sizes = self.config, self.config["block_out_channels"]
        x = self.conv("encoder.conv_in", pixels, sizes[0])
        for level, size in enumerate(sizes):
            name = f"encoder.down_blocks.{level}"
            for number in range(config["layers_per_block"]):
                x = self.block(f"{name}.resnets.{number}", x, size)
                if config["down_block_types"][level] == "AttnDownEncoderBlock2D":
                    x = self.attention(f"{name}.attentions.{number}", x)
            if level < len(sizes) - 1:
                x = self.conv(f"{name}.downsamplers.0.conv", x, size, stride=2)
        x = self._middle("encoder", x)
        x = self.last("encoder.conv_norm_out", "encoder.conv_out", x, config["latent_channels"])
        return nearest(self.conv("quant_conv", x, self._size, side=1), self._book())

    def decode(self, codes: Tensor) -> Tensor:
        config, sizes = self.config, self.config["block_out_channels"]
        rows = self._book()[codes].permute(0, 3, 1, 2)
        x = self.conv("post_quant_conv", rows, config["latent_channels"], side=1)
        x = self._middle("decoder", self.conv("decoder.conv_in", x, sizes[-1]))
        for place, size in enumerate(reversed(sizes)):
            name = f"decoder.up_blocks.{place}"
            for number in range(config["layers_per_block"] + 1):
                x = self.block(f"{name}.resnets.{number}", x, size)
                if config["up_block_types"][place] == "AttnUpDecoderBlock2D":
                    x = self.attention(f"{name}.attentions.{number}", x)
            if place < len(sizes) - 1:
                x = self.doubled(f"{name}.upsamplers.0.conv", x)
        return self.last("decoder.conv_norm_out", "decoder.conv_out", x, 3)

    @property
    def _size(self) -> int:
        return self.config.get("vq_embed_dim") or self.config["latent_channels"]

    def _book(self) -> Tensor:
        count = self.config["num_vq_embeddings"]
        return self.weights("quantize.embedding.weight", count, self._size, deviation=1.0)

    def _middle(self, half: str, x: Tensor) -> Tensor:
        x = self.block(f"{half}.mid_block.resnets.0", x, x.shape[1])
        if self.config.get("mid_block_add_attention", True):
            x = self.attention(f"{half}.mid_block.attentions.0", x)
        return self.block(f"{half}.mid_block.resnets.1", x, x.shape[1])


def swish(x: Tensor) -> Tensor:
    """x / (1 + exp(-x))."""
    return x / (1 + (-x).exp())


def unit(x: Tensor, dim: int) -> Tensor:
    """Vectors along a dimension at length 1."""
    return x / x.square().sum(dim, keepdim=True).sqrt()


def nearest(z: Tensor, book: Tensor) -> Tensor:
    """(B, h, w) the row of (n, d) at the smallest distance of each place of (B, d, h, w)."""
    distances = (z[:, None] - book[None, :, :, None, None]).square().sum(2)
    return distances.argmin(1)
