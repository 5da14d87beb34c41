"""SEED-Voken's image tokenizers, slowly and by themselves, from their published maths."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .reference_images import GROUPS, Reference, swish


class OpenMagvit(Reference):
    """Open-MAGVIT2: `size` signs a code, the first one worth least; norms that follow the code."""

    config: dict[str, Any] = {}
    times: Sequence[int] = (1, 1, 2, 2, 4)
    size = 5
    count = 2  # residual blocks of a level
    halving = (1, 1)

    def has_bias(self, name: str) -> bool:
        """Convolutions of residual blocks have none, nor has the encoder's first."""
        return name != "encoder.conv_in" and "block" not in name

    def encode(self, pixels: Tensor) -> Tensor:
        x = self.conv("encoder.conv_in", pixels, self.width)
        for level, times in enumerate(self.times):
            for number in range(self.count):
                x = self.block(f"encoder.down.{level}.block.{number}", x, times * self.width)
            if level < len(self.times) - 1:
                x = self.conv(f"encoder.down.{level}.downsample", x, x.shape[1], stride=2)
        x = swish(self.norm("encoder.norm_out", self._middle("encoder", x)))
        z = self.conv("encoder.conv_out", x, self.size, side=1)
        codes = torch.zeros(z[:, 0].shape, dtype=torch.int64)
        for sign in reversed(range(self.size)):
            codes = 2 * codes + (z[:, sign] > 0).long()
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        table = [[float(n) for n in f"{n:0{self.size}b}"[::-1]] for n in range(2**self.size)]
        signs = (torch.tensor(table) * 2 - 1)[codes].permute(0, 3, 1, 2)
        x = self.conv("decoder.conv_in", signs, self.times[-1] * self.width)
        x = self._middle("decoder", x)
        for level in reversed(range(len(self.times))):
            x = self._styled(f"decoder.adaptive.{level}", x, signs)
            for number in range(self.count):
                x = self.block(
                    f"decoder.up.{level}.block.{number}", x, self.times[level] * self.width
                )
            x = self._spread(f"decoder.up.{level}.upsample.conv1", x) if level else x
        return self.last("decoder.norm_out", "decoder.conv_out", x, 3)

    def _middle(self, half: str, x: Tensor) -> Tensor:
        for number in range(self.count):
            x = self.block(f"{half}.mid_block.{number}", x, x.shape[1])
        return x

    def _styled(self, name: str, x: Tensor, signs: Tensor) -> Tensor:
        """Groups at mean 0 and variance 1; scale from the signs' deviations, shift from means."""
        places = signs.shape[2] * signs.shape[3]
        means = signs.sum((2, 3)) / places
        squares = (signs - means[:, :, None, None]).square().sum((2, 3))
        deviations = (squares / (places - 1) + 1e-6).sqrt()
        scale, shift = (
            self._linear(f"{name}.{part}", one, x.shape[1], mean)
            for part, one, mean in (("gamma", deviations, 1.0), ("beta", means, 0.0))
        )
        grouped = x.reshape(len(x), GROUPS, -1)
        centred = grouped - grouped.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled.reshape(x.shape) * scale[:, :, None, None] + shift[:, :, None, None]

    def _linear(self, name: str, x: Tensor, out: int, mean: float) -> Tensor:
        weight = self.weights(f"{name}.weight", out, x.shape[1], deviation=0.3)
        return x @ weight.T + self.weights(f"{name}.bias", out, mean=mean, deviation=0.1)

    def _spread(self, name: str, x: Tensor) -> Tensor:
        """Four times the channels: those of the upper left quarter, upper right, and so on."""
        batch, count, height, width = x.shape
        quarters = self.conv(name, x, 4 * count).split(count, 1)
        drawn = x.new_zeros(batch, count, 2 * height, 2 * width)
        for number, quarter in enumerate(quarters):
            drawn[:, :, number // 2 :: 2, number % 2 :: 2] = quarter
        return drawn


class IBQ(Reference):
    """IBQ: the row of the code book with the largest inner product."""

    config: dict[str, Any] = {}
    times: Sequence[int] = (1, 1, 2, 2, 4)
    count = 4  # residual blocks of a level of the encoder

    def encode(self, pixels: Tensor) -> Tensor:
        x, last = self.conv("encoder.conv_in", pixels, self.width), len(self.times) - 1
        for level, times in enumerate(self.times):
            name = f"encoder.down.{level}"
            for number in range(self.count):
                x = self.block(f"{name}.block.{number}", x, times * self.width)
                x = self.attention(f"{name}.attn.{number}", x) if level == last else x
            if level < last:
                x = self.conv(f"{name}.downsample.conv", x, x.shape[1], stride=2)
        x = self.last("encoder.norm_out", "encoder.conv_out", self._middle("encoder", x), 24)
        products = torch.einsum(
            "bdhw,nd->bnhw", self.conv("quant_conv", x, 24, side=1), self._book()
        )
        return products.argmax(1)

    def decode(self, codes: Tensor) -> Tensor:
        rows, last = self._book()[codes].permute(0, 3, 1, 2), len(self.times) - 1
        x = self.conv("post_quant_conv", rows, 24, side=1)
        x = self._middle("decoder", self.conv("decoder.conv_in", x, self.times[-1] * self.width))
        for level in reversed(range(len(self.times))):
            name = f"decoder.up.{level}"
            for number in range(self.count + 1):
                x = self.block(f"{name}.block.{number}", x, self.times[level] * self.width)
                x = self.attention(f"{name}.attn.{number}", x) if level == last else x
            x = self.doubled(f"{name}.upsample.conv", x) if level else x
        return self.last("decoder.norm_out", "decoder.conv_out", x, 3)

    def _book(self) -> Tensor:
        return self.weights("quantize.embedding.weight", 50, 24, deviation=1.0)

    def _middle(self, half: str, x: Tensor) -> Tensor:
        x = self.block(f"{half}.mid.block_1", x, x.shape[1])
        x = self.attention(f"{half}.mid.attn_1", x)
        return self.block(f"{half}.mid.block_2", x, x.shape[1])


def trained(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As Lightning saves them: of the last step, their averages, and what measured the losses.

    Args:
        weights: the averages, by which the authors evaluate.
    """
    return {
        **{name: one + 1.0 for name, one in weights.items()},
        "loss.logvar": torch.zeros(()),
        "loss.discriminator.main.0.weight": torch.ones(4, 3, 4, 4),
        "model_ema.decay": torch.tensor(0.999),
        "model_ema.num_updates": torch.tensor(-1, dtype=torch.int32),
        **{f"model_ema.{name.replace('.', '')}": one for name, one in weights.items()},
        "model_ema.lossdiscriminatormain0weight": torch.ones(4, 3, 4, 4),
    }
