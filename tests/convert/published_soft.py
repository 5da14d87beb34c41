"""Families that read pictures as features, as they are published, at a tiny size.

References are transformers' own language models and towers. How features are laid out is written
out here a second time, one feature after the other.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from .published import HIDDEN, LLAMA, MASK, SPECIALS, WIDTH, Published, full, sizes

SOFT = 256 + len(SPECIALS)  # the first row that is no id of the tokenizer
PATCH, SIDE, TOWER_WIDTH = 14, 42, 144  # 3 x 3 features of a tile; two heads of 72
TOWER = SiglipVisionConfig(
    hidden_size=TOWER_WIDTH,
    intermediate_size=HIDDEN,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=SIDE,
    patch_size=PATCH,
)
CANVASES = [[SIDE * across, SIDE * down] for across in (1, 2, 3) for down in (1, 2, 3)]


class SoftReference(nn.Module):
    """A language model, a tower over tiles, and what leads from one to the other."""

    def __init__(self, language: nn.Module, width: int) -> None:
        super().__init__()
        self.language = language
        self.config = language.config
        self.tower = SiglipVisionModel(TOWER)
        self.network = nn.Sequential(
            nn.Linear(TOWER_WIDTH, width), nn.GELU(), nn.Linear(width, width)
        )
        self.newline = nn.Parameter(torch.zeros(width))

    def features(self, tiles: Tensor, size: tuple[int, int], most: int | None) -> Tensor:
        """(n, D) features of one picture of (height, width), by the published maths."""
        found = self.tower(tiles, output_hidden_states=True).hidden_states[-2]
        squares = self.network(found)  # (tiles, F * F, D)
        return torch.stack([*squares[0], *self.lines(squares[1:], size, most)])

    def lines(self, squares: Tensor, size: tuple[int, int], most: int | None) -> list[Tensor]:
        """Features of the canvas by rows, each row ended by the newline."""
        height, width = size
        side = math.isqrt(squares.shape[1])
        columns, rows = (one // SIDE for one in best(size))
        sheet = [
            [
                squares[(row // side) * columns + column // side, row % side * side + column % side]
                for column in range(columns * side)
            ]
            for row in range(rows * side)
        ]
        down, across = rows * side, columns * side
        if width / height > across / down:
            margin = (down - int(height * (across / width))) // 2
            sheet = sheet[margin : down - margin]
        else:
            margin = (across - int(width * (down / height))) // 2
            sheet = [line[margin : across - margin] for line in sheet]
        if most is not None:
            sheet = thinned(sheet, most * side**2)
        return [one for line in sheet for one in (*line, self.newline)]


def best(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the published canvas: the most kept, then the least wasted."""
    height, width = size
    found, most, least = (0, 0), 0, math.inf
    for across, down in CANVASES:
        scale = min(across / width, down / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        wasted = across * down - kept
        if kept > most or (kept == most and wasted < least):
            found, most, least = (across, down), kept, wasted
    return found


def thinned(sheet: list[list[Tensor]], most: int) -> list[list[Tensor]]:
    """Fewer features by interpolation between neighbours, where there are too many."""
    down, across = len(sheet), len(sheet[0])
    times = math.sqrt(down * across / most)
    if times <= 1.1:
        return sheet
    rows, columns = int(down // times), int(across // times)

    def at(place: int, of: int, have: int) -> tuple[int, int, float]:
        exact = max((place + 0.5) * have / of - 0.5, 0.0)
        first = min(int(exact), have - 1)
        return first, min(first + 1, have - 1), exact - first

    lines = []
    for row in range(rows):
        top, bottom, below = at(row, rows, down)
        line = []
        for column in range(columns):
            left, right, beside = at(column, columns, across)
            above = sheet[top][left] * (1 - beside) + sheet[top][right] * beside
            under = sheet[bottom][left] * (1 - beside) + sheet[bottom][right] * beside
            line.append(above * (1 - below) + under * below)
        lines.append(line)
    return lines


@dataclass(frozen=True)
class PublishedSoft(Published):
    """A layout with a tower.

    Attributes:
        most: tiles' worth of features that a picture keeps.
    """

    most: int | None = None
    never: tuple[int, ...] = field(default=(SOFT,))

    def model(self, seed: int = 0) -> nn.Module:
        """The reference with random weights."""
        whole = SoftReference(super().model(seed), WIDTH)
        for name, weight in whole.tower.named_parameters():
            is_norm = "norm" in name and name.endswith("weight")
            nn.init.normal_(weight, 1.0 if is_norm else 0.0, 0.1)
        for weight in whole.network.parameters():
            nn.init.normal_(weight, 0.0, 0.05)
        nn.init.normal_(whole.newline, 0.0, 0.25)
        return whole.eval()

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Language model, tower without its last layer, network and newline."""
        found = super().weights(model.language)
        last = f"encoder.layers.{TOWER.num_hidden_layers - 1}."
        for name, weight in model.tower.state_dict().items():
            if not name.startswith((last, "head.")):
                found[f"model.vision_tower.vision_tower.vision_model.{name}"] = weight.clone()
        for name, weight in model.network.state_dict().items():
            found[f"model.mm_projector.{name}"] = weight.clone()
        found["model.image_newline"] = model.newline.detach().clone()
        return found

    def logits(self, model: nn.Module, ids_BL: Tensor) -> Tensor:
        """(B, L, V) logits of texts."""
        return super().logits(model.language, ids_BL)

    def logits_of(self, model: nn.Module, embeddings_BLD: Tensor) -> Tensor:
        """(B, L, V) logits of embeddings."""
        length = embeddings_BLD.shape[1]
        mask = torch.zeros(1, 1, length, length)
        mask.masked_fill_(~self.pattern(length), torch.finfo(mask.dtype).min)
        with torch.no_grad():
            return model.language(inputs_embeds=embeddings_BLD, attention_mask=mask).logits


PICTURES: dict[str, Any] = {
    "mm_vision_tower": "google/siglip2-so400m-patch14-384",
    "mm_hidden_size": TOWER_WIDTH,
    "mm_projector_type": "mlp2x_gelu",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "image_aspect_ratio": "anyres_max_4",
    "image_grid_pinpoints": CANVASES,
}
LLADA_V = PublishedSoft(
    "llada-v",
    sizes(
        model_type="llava_llada",
        architectures=["LlavaLLaDAModelLM"],
        mask_token_id=MASK,
        rms_norm_eps=1e-5,
        **PICTURES,
    ),
    LLAMA,
    full,
    most=4,
)
SOFT_TABLE = (LLADA_V,)
