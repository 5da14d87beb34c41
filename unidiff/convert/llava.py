"""LLaDA-V and LaViDa: LLaDA or Dream that read pictures through SigLIP, tile by tile.

The layout is LLaVA-NeXT's. Its `config.json` says nothing of the tower's sizes, which the authors'
class has built in: what can be read off the tensors is, the rest is SigLIP so400m's. Names and
maths: `llava_arch.py`, `siglip_encoder.py` and `mm_utils.py` of ML-GSAI/LLaDA-V and of
jacklishufan/LaViDa, in own words.
"""

import ast
import math
import re
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from unidiff.model.configuration import UniDiffConfig
from unidiff.tokens.layout import IdRange, TokenLayout
from unidiff.tokens.soft_prompts import TiledPictures
from unidiff.tokens.tiles import Tiles

from .family import ForeignFolder
from .keys import Renamed, Rule
from .llada import LLADA, TABLE
from .llada import rules as llada_rules
from .llada import settings as llada_settings
from .llama_like import DREAM, dream, shape
from .llama_like import rules as llama_rules

_TOWER = "model.vision_tower.vision_tower.vision_model."
_OURS = "vision.tower."
_PLACES = "embeddings.position_embedding.weight"
_PROJECTOR, _NEWLINE = "model.mm_projector.", "model.image_newline"
_LAYER = "encoder.layers.{n}."
_SIDES = {27: 384}  # pixels of a tile whose features are so many along a side and no whole patches
_HEAD_DIM = 72  # of so400m, whose 16 heads `config.json` does not tell of
_MASK = 126336
_LAVIDA_CODE = "github.com/jacklishufan/LaViDa"
# What the authors' loop never lets stand at a masked position.
_SILENT = ("<|endoftext|>", "<|startoftext|>", "<|start_header_id|>", "<|end_header_id|>")
_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
# Before a template: what the authors have the system say where nobody else has it say something.
_OPENING = (
    "{% if messages[0]['role'] != 'system' %}"
    "{% set messages = [{'role': 'system', 'content': '" + _SYSTEM + "'}] + messages %}"
    "{% endif %}"
)


def llada_v(folder: ForeignFolder) -> dict[str, Any]:
    """LLaDA under Llama's names, with a tower.

    Raises:
        ValueError: for a tower or a way to lay out tiles that the model does not have.
    """
    mask = folder.config.get("mask_token_id") or folder.special_ids.get("<|mdm_mask|>", _MASK)
    own = {**shape(folder), "attention_pattern": "full", "canvas_length": 32, "mask_token_id": mask}
    own["bos_token_id"] = first_id(folder, own["vocab_size"])
    silent = (folder.special_ids[name] for name in _SILENT if name in folder.special_ids)
    return _with_tower(folder, own, tuple(silent))


def first_id(folder: ForeignFolder, rows: int) -> int | None:
    """Id that begins a text: the first of those that the files say which has one of the rows.

    LLaDA-V's training started from a `config.json` that says 128000, of 126464 rows;
    `generation_config.json` and the tokenizer beside it say 126080. Where no id has a row, the
    first one, for `check_ids` to name.
    """
    said = (
        folder.decoding.get("bos_token_id"),
        folder.named_token("bos_token"),
        folder.config.get("bos_token_id"),
    )
    found = [one for one in said if one is not None]
    return next((one for one in found if 0 <= one < rows), found[0] if found else None)


def lavida(folder: ForeignFolder) -> dict[str, Any]:
    """LLaDA under its own names; the prompt does not see the response, and features are pooled."""
    return _with_tower(folder, {**llada_settings(folder), "attention_pattern": "prefix"}, pool=2)


def lavida_dream(folder: ForeignFolder) -> dict[str, Any]:
    """Dream, the same way."""
    return _with_tower(folder, {**dream(folder), "attention_pattern": "prefix"}, pool=2)


def _with_tower(
    folder: ForeignFolder, own: dict[str, Any], silent: tuple[int, ...] = (), pool: int = 1
) -> dict[str, Any]:
    """Settings with a tower; a row behind those of the tokenizer stands for a feature.

    Args:
        folder: of the checkpoint.
        own: settings of the language model.
        silent: ids that no response has.
        pool: features along a side that become one.
    """
    layout = TokenLayout(
        ranges={"text": IdRange(0, own["vocab_size"])},
        mask_token_id=own["mask_token_id"],
        pad_token_id=own["pad_token_id"] or 0,
        end_token_ids=tuple(folder.end_ids),
        reserved_token_ids=silent,
        soft_token_id=soft_id(folder, own["vocab_size"]),
    )
    vision = tower(folder, most_tiles(folder), pool)
    return {**own, "token_layout": layout.to_dict(), "vision": vision}


def soft_id(folder: ForeignFolder, rows: int) -> int:
    """An id that no text has: the first behind the tokenizer's, without one the last row.

    Raises:
        ValueError: if every row is an id of the tokenizer.
    """
    found = rows - 1 if folder.num_ids is None else folder.num_ids
    if found >= rows:
        raise ValueError(
            f"{folder.path}: each of the {rows} rows of the embedding is an id of the tokenizer, "
            "and features of pictures need one that is not"
        )
    return found


def most_tiles(folder: ForeignFolder) -> int | None:
    """Tiles' worth of features that a picture keeps, by `image_aspect_ratio`; None: all."""
    said = folder.config["image_aspect_ratio"]
    found = re.fullmatch(r"anyres(?:_max_([1-9]\d*))?", str(said))
    if found is None:
        raise ValueError(
            f"{folder.path / 'config.json'} has image_aspect_ratio = {said!r}; what can be loaded "
            "is 'anyres' or 'anyres_max_' and a number from 1 on"
        )
    return None if found[1] is None else int(found[1])


def tower(folder: ForeignFolder, most: int | None, pool: int) -> dict[str, Any]:
    """`UniDiffConfig.vision` of a folder.

    Args:
        folder: of the checkpoint.
        most: tiles' worth of features that a picture keeps; None: all.
        pool: features along a side that become one.

    Raises:
        ValueError: for what the model does not have.
    """
    folder.wants("mm_patch_merge_type", "spatial_unpad")
    folder.wants("mm_vision_select_feature", "patch")
    folder.wants("mm_spatial_pool_mode", "bilinear")
    folder.wants("mm_vision_select_layer", -2)
    folder.wants("mm_use_im_start_end", False)
    projector = folder.config.get("mm_projector_type", "linear")
    depth = re.fullmatch(r"mlp(\d+)x_gelu", projector)
    if depth is None:
        raise ValueError(
            f"{folder.path / 'config.json'} has mm_projector_type = {projector!r}; what can be "
            "loaded is 'mlp2x_gelu' or another number of products"
        )
    width, _, patch, _ = folder.shapes[f"{_TOWER}embeddings.patch_embedding.weight"]
    features = math.isqrt(folder.shapes[_TOWER + _PLACES][0])
    side = _SIDES.get(features, features * patch)
    layers = {name for name in folder.shapes if name.startswith(f"{_TOWER}encoder.layers.")}
    first_product = f"{_TOWER}{_LAYER.format(n=0)}mlp.fc1.weight"
    tiles = Tiles(side, features, canvases(folder, side), most, pool)
    return {
        "kind": "tiles",
        "projector_depth": int(depth[1]),
        "tiles": tiles.to_dict(),
        "tower": {
            "hidden_size": width,
            "intermediate_size": folder.shapes[first_product][0],
            "num_hidden_layers": sum(name.endswith("layer_norm1.weight") for name in layers),
            "num_attention_heads": max(width // _HEAD_DIM, 1),
            "image_size": side,
            "patch_size": patch,
        },
    }


def canvases(folder: ForeignFolder, side: int) -> tuple[tuple[int, int], ...]:
    """(width, height) in pixels of the canvases of tiles.

    `image_grid_pinpoints` has them as pairs, or as "(1x1),...,(6x6)": the first and the last number
    of tiles, and all between.
    """
    said = folder.config["image_grid_pinpoints"]
    ends = re.findall(r"\((\d+)x(\d+)\)", said) if isinstance(said, str) else []
    if ends:
        across, down = (range(int(ends[0][n]), int(ends[-1][n]) + 1) for n in (0, 1))
        return tuple((side * columns, side * rows) for columns in across for rows in down)
    pairs = ast.literal_eval(said) if isinstance(said, str) else said
    return tuple((int(width), int(height)) for width, height in pairs)


def tower_rules() -> list[Rule]:
    """Names of the tensors of tower, network and newline."""
    products = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")
    within = (*products, "mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2")
    parts = ["embeddings.patch_embedding", "post_layernorm", *(_LAYER + one for one in within)]
    names = [f"{part}.{kind}" for part in parts for kind in ("weight", "bias")]
    return [
        Renamed(_TOWER + _PLACES, _OURS + _PLACES),
        *(Renamed(_TOWER + name, _OURS + name) for name in names),
        *(
            Renamed(f"{_PROJECTOR}{{n}}.{kind}", f"vision.projector.{{n}}.{kind}")
            for kind in ("weight", "bias")
        ),
        Renamed(_NEWLINE, "vision.newline"),
    ]


def llada_v_rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of all tensors of LLaDA-V, and of LaViDa over Dream."""
    return [*llama_rules(folder, config), *tower_rules()]


def lavida_rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of all tensors of LaViDa over LLaDA."""
    return [*llada_rules(folder, config), *tower_rules()]


def prompts(folder: ForeignFolder, tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The chat template with the authors' system turn before conversations that have none."""
    del folder, tokenizer
    return _OPENING + template


def pictures(folder: ForeignFolder, config: UniDiffConfig) -> TiledPictures:
    """Tiles with values in [-1, 1]; a line ends behind each picture."""
    del folder
    assert config.vision is not None  # by the settings
    return TiledPictures(Tiles.from_dict(config.vision["tiles"]), closing="\n")


LLADA_V = replace(
    LLADA,
    name="llada-v",
    settings=llada_v,
    rules=llada_v_rules,
    prompts=prompts,
    pictures=pictures,
    decoding={"max_new_tokens": 128, "block_length": 128, "unmasking_strategy": "static"},
    own_code="github.com/ML-GSAI/LLaDA-V",
)
LAVIDA = replace(
    LLADA,
    name="lavida",
    settings=lavida,
    rules=lavida_rules,
    prompts=prompts,
    pictures=pictures,
    decoding={"max_new_tokens": 64, "block_length": 64, "unmasking_strategy": "static"},
    own_code=_LAVIDA_CODE,
)
LAVIDA_DREAM = replace(
    DREAM,
    name="lavida-dream",
    settings=lavida_dream,
    rules=llada_v_rules,
    prompts=prompts,
    pictures=pictures,
    own_code=_LAVIDA_CODE,
)


def has_llada_names(folder: ForeignFolder) -> bool:
    """Whether the language model has LLaDA's own names: LaViDa's, under LLaDA-V's `model_type`."""
    return TABLE in folder.shapes
