"""Families that read pictures as features, as they are published, at a tiny size.

References are transformers' own language models and towers. How features are laid out is written
out here a second time, one feature after the other.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
)
from transformers.models.qwen2_vl.configuration_qwen2_vl import (
    Qwen2VLTextConfig,
    Qwen2VLVisionConfig,
)
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VisionTransformerPretrainedModel,
    Qwen2VLTextModel,
)

from .published import (
    END,
    HIDDEN,
    LLADA_CONFIG,
    LLAMA,
    MASK,
    SPECIALS,
    TABLE,
    WIDTH,
    Published,
    full,
    llada_name,
    sizes,
)

SOFT = 256 + len(SPECIALS)  # the first row that is no id of the tokenizer
LLADA_SPECIALS = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
BOS, EOT = SOFT, SOFT + 4  # of LLaDA-V's tokenizer, behind the tokens of all
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

    def features(self, tiles: Tensor, size: tuple[int, int], most: int | None, pool: int) -> Tensor:
        """(n, D) features of one picture of (height, width), by the published maths."""
        found = self.tower(tiles, output_hidden_states=True).hidden_states[-2]
        squares = self.network(found)  # (tiles, F * F, D)
        if pool > 1:
            squares = torch.stack([pooled(square, pool) for square in squares])
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
    """Fewer features where there are too many."""
    down, across = len(sheet), len(sheet[0])
    times = math.sqrt(down * across / most)
    if times <= 1.1:
        return sheet
    return resampled(sheet, int(down // times), int(across // times))


def resampled(sheet: list[list[Tensor]], rows: int, columns: int) -> list[list[Tensor]]:
    """Another number of features by interpolation between neighbours."""
    down, across = len(sheet), len(sheet[0])

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


def pooled(square: Tensor, pool: int) -> Tensor:
    """(n, D) features of a tile of (F * F, D), of which `pool` along a side become one."""
    side = math.isqrt(len(square))
    fewer = math.ceil(side / pool)
    sheet = [list(square[row * side : (row + 1) * side]) for row in range(side)]
    return torch.stack([one for line in resampled(sheet, fewer, fewer) for one in line])


@dataclass(frozen=True)
class PublishedSoft(Published):
    """A layout with a tower.

    Attributes:
        soft: id of a position that stands for a feature.
        hides: whether the prompt does not see the response.
    """

    soft: int = SOFT
    hides: bool = False

    def decoding_logits(self, model: nn.Module, ids_BL: Tensor, num_prompt: int) -> Tensor:
        """(B, L, V) logits of texts as the loop reads them."""
        if not self.hides:
            return self.logits(model, ids_BL)
        rows = model.language.get_input_embeddings()(ids_BL)
        return self.logits_of(model, rows, {}, num_prompt)

    def embeddings(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """(1, L, D) embeddings of a prompt, the reference's features at their places."""
        ids = inputs["input_ids"]
        rows = model.language.get_input_embeddings()(ids)[0].clone()
        with torch.no_grad():
            rows[ids[0] == self.soft] = torch.cat(self.features(model, inputs))
        return rows[None]

    def features(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """(n, D) features of each picture."""
        raise NotImplementedError

    def logits(self, model: nn.Module, ids_BL: Tensor) -> Tensor:
        """(B, L, V) logits of texts."""
        return super().logits(model.language, ids_BL)

    def logits_of(
        self, model: nn.Module, embeddings_BLD: Tensor, inputs: Any, num_prompt: int | None = None
    ) -> Tensor:
        """(B, L, V) logits of embeddings, the first of which are a prompt's."""
        length = embeddings_BLD.shape[1]
        mask = embeddings_BLD.new_zeros(1, 1, length, length)
        mask.masked_fill_(~self.pattern(length), torch.finfo(mask.dtype).min)
        if self.hides and num_prompt is not None:
            mask[:, :, :num_prompt, num_prompt:] = torch.finfo(mask.dtype).min
        places = self.positions(inputs, length)
        with torch.no_grad():
            return model.language(
                inputs_embeds=embeddings_BLD, attention_mask=mask, position_ids=places
            ).logits

    def positions(self, inputs: Mapping[str, Tensor], length: int) -> Tensor | None:
        """Positions of a prompt and what follows it; None: they are counted."""
        del inputs, length
        return None


@dataclass(frozen=True)
class PublishedTiles(PublishedSoft):
    """A layout with a tower over tiles.

    Attributes:
        most: tiles' worth of features that a picture keeps.
        pool: features along a side that become one.
    """

    most: int | None = None
    pool: int = 1

    def features(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """(n, D) features of each picture."""
        found, at = [], 0
        for size in map(tuple, inputs["image_sizes"].tolist()):
            across, down = best(size)
            count = 1 + across * down // SIDE**2
            tiles = inputs["pixel_values"][at : at + count]
            found.append(model.features(tiles, size, self.most, self.pool))
            at += count
        return found

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
            found[f"model.mm_projector.{name}"] = weight.detach().clone()
        found["model.image_newline"] = model.newline.detach().clone()
        return found


class QwenLanguage(nn.Module):
    """Qwen2-VL's language model and a head."""

    def __init__(self, config: Qwen2VLTextConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Qwen2VLTextModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def forward(self, input_ids: Tensor | None = None, **inputs: Any) -> Any:
        """An output that has logits."""
        output = self.model(input_ids=input_ids, use_cache=False, **inputs)
        output.logits = self.lm_head(output.last_hidden_state)
        return output


class PatchReference(nn.Module):
    """A language model, a tower of Qwen's, and two products between."""

    def __init__(self, language: nn.Module, tower: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.language = language
        self.config = language.config
        self.tower = tower
        self.first, self.second = nn.Linear(TOWER_OUT, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.activation = activation

    def features(self, pixels: Tensor, grid: Tensor) -> Tensor:
        """(n, D) features of pictures by themselves."""
        found = self.tower(pixels, grid_thw=grid).pooler_output
        return self.second(self.activation(self.first(found)))


@dataclass(frozen=True)
class PublishedPatches(PublishedSoft):
    """A layout with a tower over patches.

    Attributes:
        prefix: of the names of the two products.
        activation: between them.
    """

    prefix: str = "projector"
    activation: type[nn.Module] = nn.GELU

    def model(self, seed: int = 0) -> nn.Module:
        """The reference with random weights."""
        tower_class, config_class, fields = self.reference
        torch.manual_seed(seed)
        language = QwenLanguage(
            Qwen2VLTextConfig(
                vocab_size=self.rows,
                hidden_size=WIDTH,
                intermediate_size=HIDDEN,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                rms_norm_eps=1e-6,
                tie_word_embeddings=False,
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": 1_000_000.0,
                    "mrope_section": SECTIONS,
                },
                attn_implementation="eager",
            )
        )
        whole = PatchReference(language, tower_class(config_class(**fields)), self.activation())
        for name, weight in whole.named_parameters():
            is_norm = any(one in name for one in ("norm", "ln_q")) and name.endswith("weight")
            wide = 0.25 if name.startswith("language") else 0.1
            nn.init.normal_(weight, 1.0 if is_norm else 0.0, 0.1 if is_norm else wide)
        return whole.eval()

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Language model, tower and products."""
        found = super().weights(model.language)
        for name, weight in model.tower.state_dict().items():
            found[f"visual.{name}"] = weight.clone()
        for number, product in ((1, model.first), (2, model.second)):
            for name, weight in product.state_dict().items():
                found[f"{self.prefix}.linear_{number}.{name}"] = weight.clone()
        return found

    def features(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """(n, D) features of each picture, one picture at a time."""
        found, at = [], 0
        for grid in inputs["image_grid_thw"]:
            count = int(grid.prod())
            found.append(model.features(inputs["pixel_values"][at : at + count], grid[None]))
            at += count
        return found

    def positions(self, inputs: Mapping[str, Tensor], length: int) -> Tensor:
        """(3, 1, length): a picture's grid, everything else behind the largest before it."""
        row = inputs["input_ids"][0].tolist()
        row += [0] * (length - len(row))
        grids = iter(inputs["image_grid_thw"].tolist())
        places: list[tuple[int, int, int]] = []
        while len(places) < length:
            start = max((max(place) for place in places), default=-1) + 1
            if row[len(places)] != self.soft:
                places.append((start, start, start))
                continue
            times, rows, columns = next(grids)
            places += [
                (start + time, start + down, start + across)
                for time in range(times)
                for down in range(rows // 2)
                for across in range(columns // 2)
            ]
        return torch.tensor(places).T[:, None]


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
LLADA_V = PublishedTiles(
    "llada-v",
    sizes(
        model_type="llava_llada",
        architectures=["LlavaLLaDAModelLM"],
        mask_token_id=MASK,
        rms_norm_eps=1e-5,
        bos_token_id=128000,  # as published: behind the last row
        **PICTURES,
    ),
    LLAMA,
    full,
    generation={"_from_model_config": True, "bos_token_id": BOS, "eos_token_id": END},
    specials=LLADA_SPECIALS,
    soft=EOT + 1,
    never=(*range(BOS, EOT), EOT + 1),  # of the special ones the end of a turn is said
    most=4,
)
_LAVIDA = {
    **PICTURES,
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": str([tuple(one) for one in CANVASES]),
    "mm_spatial_pool_mode": "bilinear",
}
LAVIDA = PublishedTiles(
    "lavida",
    {**LLADA_CONFIG, "model_type": "llava_llada", **_LAVIDA},
    LLAMA,
    full,
    llada_name,
    never=(SOFT,),
    pool=2,
    hides=True,
)
LAVIDA_DREAM = PublishedTiles(
    "lavida-dream",
    sizes(model_type="llava_dream", mask_token_id=MASK, **_LAVIDA),
    next(one for one in TABLE if one.name == "dream").reference,
    full,
    shift=1,
    never=(SOFT,),
    pool=2,
    hides=True,
)
TOWER_OUT, SECTIONS = 24, [1, 1, 2]
QWEN_SPECIALS = ("<|begin|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
IMAGE_PAD = 256 + len(SPECIALS) + 3
_QWEN2 = {
    "depth": 2,
    "embed_dim": 32,
    "hidden_size": TOWER_OUT,
    "num_heads": 2,
    "mlp_ratio": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_QWEN2_5 = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": HIDDEN,
    "out_hidden_size": TOWER_OUT,
    "num_heads": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 56,
    "fullatt_block_indexes": [1],
}
DREAM_VL = PublishedPatches(
    "dream-vl",
    sizes(
        model_type="dream-vl",
        mask_token_id=MASK,
        image_token_id=IMAGE_PAD,
        full_attn_mask=True,
        mrope_section=SECTIONS,
        projector_hidden_act="gelu",
        rope_scaling=None,
        vision_config={
            **_QWEN2,
            "hidden_act": "quick_gelu",
            "in_chans": 3,
            "spatial_patch_size": 14,
        },
    ),
    (Qwen2VisionTransformerPretrainedModel, Qwen2VLVisionConfig, _QWEN2),
    full,
    shift=1,
    specials=QWEN_SPECIALS,
    never=(IMAGE_PAD,),
    soft=IMAGE_PAD,
)
DIMPLE = PublishedPatches(
    "dimple",
    sizes(
        model_type="dimple",
        mask_token_id=MASK,
        image_token_id=IMAGE_PAD,
        full_attn_mask=True,
        mrope_section=SECTIONS,
        rope_scaling=None,
        vision_config={**_QWEN2_5, "hidden_act": "silu", "tokens_per_second": 2},
    ),
    (Qwen2_5_VisionTransformerPretrainedModel, Qwen2_5_VLVisionConfig, _QWEN2_5),
    full,
    shift=1,
    specials=QWEN_SPECIALS,
    never=(IMAGE_PAD,),
    soft=IMAGE_PAD,
    prefix="img_projector",
    activation=nn.SiLU,
)
SOFT_TABLE = (LLADA_V, LAVIDA, LAVIDA_DREAM, DREAM_VL, DIMPLE)
