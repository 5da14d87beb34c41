"""Dream-VL and Dimple: Dream that reads pictures through Qwen's towers, patch by patch.

Dream-VL has Qwen2-VL's tower, Dimple Qwen2.5-VL's; behind either stand two products. Positions
have the sections of M-RoPE. Names and maths: `modeling_dreamvl.py` of DreamLM/Dream-VLX and
`modeling_dimple.py` of yu-rp/Dimple, in own words.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unidiff.model.configuration import UniDiffConfig
from unidiff.tokens.checkpoint import read_json
from unidiff.tokens.layout import IdRange, TokenLayout
from unidiff.tokens.patches import Patches
from unidiff.tokens.soft_prompts import PatchedPictures

from .family import ForeignFolder
from .keys import Renamed, Rule
from .llama_like import CHATML, DREAM, dream
from .llama_like import rules as llama_rules

_OURS, _THEIRS = "vision.tower.", "visual."
_SECTIONS = [16, 24, 24]  # of the frequencies of a head of 128
_IMAGE = 151655  # "<|image_pad|>"
_AROUND = "<|vision_start|>", "<|vision_end|>"
# Of `vision_config`, by the type of the tower, with the published classes' values.
_TOWERS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 3584,
        "hidden_act": "quick_gelu",
        "mlp_ratio": 4,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "qwen2_5_vl": {
        "depth": 32,
        "hidden_size": 1280,
        "hidden_act": "silu",
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
}
# Tensors of a block, besides `attn`, that the towers name differently.
_BLOCKS = {
    "qwen2_vl": ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "mlp.fc1", "mlp.fc2"),
    "qwen2_5_vl": ("norm1.weight", "norm2.weight", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
_MIN_PIXELS, _MAX_PIXELS = 56 * 56, 28 * 28 * 1280


def _settings(folder: ForeignFolder, kind: str, activation: str) -> dict[str, Any]:
    """Dream with a tower.

    Args:
        folder: of the checkpoint.
        kind: of the tower.
        activation: between the products behind it.

    Raises:
        ValueError: for what the model does not have, or one id for masks and features.
    """
    folder.wants("full_attn_mask", True)
    own = dream(folder)
    sections = folder.config.get("mrope_section", _SECTIONS)
    soft = folder.config.get("image_token_id", _IMAGE)
    if soft == own["mask_token_id"]:
        raise ValueError(
            f"{folder.path / 'config.json'} has {soft} as image_token_id and as mask_token_id: "
            "features of pictures and masks need an id each"
        )
    layout = TokenLayout(
        ranges={"text": IdRange(0, own["vocab_size"])},
        mask_token_id=own["mask_token_id"],
        pad_token_id=own["pad_token_id"] or 0,
        end_token_ids=tuple(folder.end_ids),
        soft_token_id=soft,
    )
    said: Mapping[str, Any] = folder.config.get("vision_config") or {}
    tower = {name: said.get(name, value) for name, value in _TOWERS[kind].items()}
    return {
        **own,
        "rope_parameters": {**own["rope_parameters"], "mrope_section": list(sections)},
        "token_layout": layout.to_dict(),
        "vision": {
            "kind": "patches",
            "tower_type": kind,
            "tower": tower,
            "projector_depth": 2,
            "projector_activation": activation,
        },
    }


def dream_vl(folder: ForeignFolder) -> dict[str, Any]:
    """Dream with Qwen2-VL's tower."""
    folder.wants("projector_hidden_act", "gelu")
    return _settings(folder, "qwen2_vl", "gelu")


def dimple(folder: ForeignFolder) -> dict[str, Any]:
    """Dream with Qwen2.5-VL's tower, behind it the language model's activation."""
    return _settings(folder, "qwen2_5_vl", folder.config.get("hidden_act", "silu"))


def _tower_rules(config: UniDiffConfig, projector: str) -> list[Rule]:
    """Names of the tensors of the tower and of the products behind it."""
    assert config.vision is not None  # by the settings
    kind = config.vision["tower_type"]
    whole = ["attn.qkv", "attn.proj", *(one for one in _BLOCKS[kind] if one.startswith("mlp"))]
    block = [f"{one}.{part}" for one in whole for part in ("weight", "bias")]
    block += [one for one in _BLOCKS[kind] if one.startswith("norm")]
    names = ["patch_embed.proj.weight", *(f"blocks.{{n}}.{one}" for one in block)]
    names += [f"merger.mlp.{n}.{part}" for n in (0, 2) for part in ("weight", "bias")]
    names += ["merger.ln_q.weight", *(["merger.ln_q.bias"] if kind == "qwen2_vl" else [])]
    return [
        *(Renamed(_THEIRS + name, _OURS + name) for name in names),
        *(
            Renamed(f"{projector}.linear_{number}.{part}", f"vision.projector.{place}.{part}")
            for number, place in ((1, 0), (2, 2))
            for part in ("weight", "bias")
        ),
    ]


def dream_vl_rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of all tensors of Dream-VL."""
    return [*llama_rules(folder, config), *_tower_rules(config, "projector")]


def dimple_rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of all tensors of Dimple."""
    return [*llama_rules(folder, config), *_tower_rules(config, "img_projector")]


def pictures(folder: ForeignFolder, config: UniDiffConfig) -> PatchedPictures:
    """Patches of a picture's own size, by `preprocessor_config.json` where there is one."""
    assert config.vision is not None  # by the settings
    path, tower = folder.path / "preprocessor_config.json", config.vision["tower"]
    said = read_json(path) if path.is_file() else {}
    sizes = said.get("size") or {}  # newer files have the numbers of pixels there
    return PatchedPictures(
        Patches(tower["patch_size"], tower["temporal_patch_size"], tower["spatial_merge_size"]),
        min_pixels=said.get("min_pixels") or sizes.get("shortest_edge") or _MIN_PIXELS,
        max_pixels=said.get("max_pixels") or sizes.get("longest_edge") or _MAX_PIXELS,
        opening=_AROUND[0],
        closing=_AROUND[1],
        mean=tuple(said.get("image_mean", _MEAN)),
        std=tuple(said.get("image_std", _STD)),
    )


def dream_vl_pictures(folder: ForeignFolder, config: UniDiffConfig) -> PatchedPictures:
    """The same, with small pictures enlarged as Dream-VL's own code does."""
    return replace(pictures(folder, config), enlarges=True)


DREAM_VL = replace(
    DREAM,
    name="dream-vl",
    settings=dream_vl,
    rules=dream_vl_rules,
    pictures=dream_vl_pictures,
    decoding={
        "max_new_tokens": 128,
        "block_length": 128,
        "unmasking_strategy": "static",
        "temperature": 0.1,
        "do_sample": True,
    },
    template=CHATML,
)
DIMPLE = replace(
    DREAM,
    name="dimple",
    settings=dimple,
    rules=dimple_rules,
    pictures=pictures,
    decoding={
        "max_new_tokens": 64,
        "block_length": 64,
        "unmasking_strategy": "dynamic",
        "confidence_threshold": 0.95,
        "temperature": 0.2,
        "top_p": 0.95,
        "do_sample": True,
    },
    template=CHATML,
)
