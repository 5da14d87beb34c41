"""Which image tokenizer a folder or a file holds: the table of what can be loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unidiff.tokens.emu3 import Emu3ImageTokenizer
from unidiff.tokens.image_tokenizer import ImageTokenizer
from unidiff.tokens.open_magvit import OpenMagvitImageTokenizer
from unidiff.tokens.vq import VQImageTokenizer

from .family import ForeignFolder
from .image_names import (
    MAGVIT_BUFFERS,
    chameleon_rules,
    diffusers_rules,
    janus_rules,
    llamagen_rules,
    magvit_rules,
)
from .keys import Renamed, Rule
from .seed_voken import (
    ibq_names,
    ibq_settings,
    is_ibq,
    is_open_magvit,
    open_magvit_names,
    open_magvit_settings,
)

# MAGVIT-v2's sizes, which its files do not say: multiples of the first width, and residual blocks,
# in the order in which the levels are applied.
_MAGVIT_ENCODER = ((1, 2, 2, 4, 4), (4, 3, 4, 3, 4))
_MAGVIT_DECODER = ((4, 2, 2, 1, 1), (3, 4, 3, 4, 4))
# LlamaGen's, by the number of levels: VQ-8 and VQ-16.
_LLAMAGEN_WIDTHS = {4: (1, 2, 2, 4), 5: (1, 1, 2, 2, 4)}
_LEVEL_TYPES = {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D"),
}


@dataclass(frozen=True)
class ImageFamily:
    """Image tokenizers of one layout.

    Attributes:
        name: of the family.
        knows: whether a folder is of it, by its `config.json` and the names of its tensors.
        settings: fields of our configuration that a folder's files say.
        rules: the names of its tensors.
        prefixes: what may stand before every name, where a whole model holds the tokenizer.
        model: our class.
    """

    name: str
    knows: Callable[[ForeignFolder], bool]
    settings: Callable[[ForeignFolder], dict[str, Any]]
    rules: Callable[[ForeignFolder], Sequence[Rule]]
    prefixes: tuple[str, ...] = ("",)
    model: type[ImageTokenizer] = VQImageTokenizer


def magvit_settings(folder: ForeignFolder) -> dict[str, Any]:
    """MAGVIT-v2 of Show-o and MMaDA; its `config.json` has no sizes."""
    width = folder.shapes["encoder.conv_in.weight"][0]
    size = folder.shapes["encoder.quant_conv.weight"][0]
    return {
        **_half("encoder", width, *_MAGVIT_ENCODER),
        **_half("decoder", width, *_MAGVIT_DECODER),
        "latent_size": size,
        "code_size": size,
        "codebook_size": 1 << size,
        "lookup": "signs",
    }


def llamagen_settings(folder: ForeignFolder) -> dict[str, Any]:
    """LlamaGen's VQ-8 and VQ-16, and Janus' tokenizer as DeepSeek publishes it.

    Raises:
        ValueError: if it has another number of levels.
    """
    count = sum(name.endswith("downsample.conv.weight") for name in folder.shapes) + 1
    if count not in _LLAMAGEN_WIDTHS:
        raise ValueError(
            f"{folder.path} has an encoder of {count} levels; LlamaGen published "
            f"{sorted(_LLAMAGEN_WIDTHS)}"
        )
    width, widths = folder.shapes["encoder.conv_in.weight"][0], _LLAMAGEN_WIDTHS[count]
    return {
        **_half("encoder", width, widths, (2,) * count, (count - 1,)),
        **_half("decoder", width, widths[::-1], (3,) * count, (0,)),
        **_book(folder),
        "latent_size": folder.shapes["encoder.conv_out.weight"][0],
        "lookup": "cosine",
    }


def diffusers_settings(folder: ForeignFolder) -> dict[str, Any]:
    """`VQModel` of diffusers, as Lumina-DiMOO, aMUSEd and Muddit have it.

    Those models are known by `lookup_from_codebook`; their pipelines feed pixels in [0, 1], and
    those of the others, of latent diffusion, [-1, 1].

    Raises:
        ValueError: for maths that the model does not have.
    """
    folder.wants("act_fn", "silu")
    folder.wants("norm_type", "group")
    for name in ("in_channels", "out_channels"):
        folder.wants(name, 3)
    config = folder.config
    sizes, count = config["block_out_channels"], config.get("layers_per_block", 1)
    down, up = (_attending(folder, name, len(sizes)) for name in _LEVEL_TYPES)
    latent = config.get("latent_channels", 3)
    return {
        **_half("encoder", 1, sizes, (count,) * len(sizes), down),
        **_half("decoder", 1, sizes[::-1], (count + 1,) * len(sizes), up),
        "attends_middle": config.get("mid_block_add_attention", True),
        "latent_size": latent,
        "code_size": config.get("vq_embed_dim") or latent,
        "codebook_size": config.get("num_vq_embeddings", 256),
        "lookup": "nearest",
        "num_groups": config.get("norm_num_groups", 32),
        "lowest_pixel": 0.0 if config.get("lookup_from_codebook") else -1.0,
    }


def janus_settings(folder: ForeignFolder) -> dict[str, Any]:
    """Janus in transformers: the network of LlamaGen.

    Its class compares latents with rows as they are, where DeepSeek's compares both at length 1;
    the weights were trained with the latter, which is taken here.
    """
    config = _vq_config(folder)
    widths = tuple(config.get("channel_multiplier", (1, 1, 2, 2, 4)))
    width, count = config.get("base_channels", 128), config.get("num_res_blocks", 2)
    last = len(widths) - 1
    return {
        **_half("encoder", width, widths, (count,) * len(widths), (last,)),
        **_half("decoder", width, widths[::-1], (count + 1,) * len(widths), (0,)),
        **_book(folder),
        "latent_size": config.get("latent_channels", 256),
        "lookup": "cosine",
    }


def chameleon_settings(folder: ForeignFolder) -> dict[str, Any]:
    """Chameleon in transformers, which has no decoder: it makes codes and no images."""
    config = _vq_config(folder)
    widths = tuple(config.get("channel_multiplier", (1, 1, 2, 2, 4)))
    sides = [config.get("resolution", 512) >> level for level in range(len(widths))]
    is_vanilla = config.get("attn_type", "vanilla") == "vanilla"
    attending = config.get("attn_resolutions") or () if is_vanilla else ()
    levels = tuple(level for level, side in enumerate(sides) if side in attending)
    width, count = config.get("base_channels", 128), config.get("num_res_blocks", 2)
    return {
        **_half("encoder", width, widths, (count,) * len(widths), levels),
        **_half("decoder", width, (), ()),
        **_book(folder),
        "attends_middle": is_vanilla,
        "latent_size": config.get("latent_channels", 256),
        "lookup": "nearest",
        "image_size": config.get("resolution", 512),
    }


def emu3_settings(folder: ForeignFolder) -> dict[str, Any]:
    """Emu3 in transformers."""
    return {"vq_config": dict(_vq_config(folder))}


def _half(
    half: str,
    width: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    attending: Sequence[int] = (),
) -> dict[str, Any]:
    """The fields of one half."""
    return {
        f"{half}_sizes": [width * one for one in widths],
        f"{half}_blocks": list(blocks),
        f"{half}_attention": list(attending),
    }


def _book(folder: ForeignFolder) -> dict[str, Any]:
    """The sizes of a code book."""
    count, size = folder.shapes["quantize.embedding.weight"]
    return {"codebook_size": count, "code_size": size}


def _attending(folder: ForeignFolder, name: str, count: int) -> tuple[int, ...]:
    """Levels with attention, from diffusers' types of them; raises ValueError for other types."""
    kinds = folder.config[name]
    if len(kinds) != count or not set(kinds) <= set(_LEVEL_TYPES[name]):
        raise ValueError(
            f"{folder.path / 'config.json'} has {name} = {kinds}; what can be loaded are {count} "
            f"of {_LEVEL_TYPES[name]}"
        )
    return tuple(level for level, kind in enumerate(kinds) if kind.startswith("Attn"))


def _vq_config(folder: ForeignFolder) -> Mapping[str, Any]:
    """The tokenizer's configuration, by itself or within that of a whole model."""
    config: Mapping[str, Any] = folder.config.get("vq_config", folder.config)
    return config


def _is_magvit(folder: ForeignFolder) -> bool:
    """Its class was renamed, and a derivative's folder may name none."""
    name = str(folder.config.get("_class_name", "")).lower()
    return name == "magvitv2" or set(MAGVIT_BUFFERS) <= set(folder.shapes)


def _of_class(*kinds: str) -> Callable[[ForeignFolder], bool]:
    """Known by the `model_type` of transformers."""
    return lambda folder: folder.config.get("model_type") in kinds


_IN_MODEL = ("model.vqmodel.", "vqmodel.", "")
IMAGE_FAMILIES = (
    ImageFamily(
        "emu3",
        _of_class("emu3_vqgan", "emu3"),
        emu3_settings,
        lambda folder: [Renamed(name, f"network.{name}") for name in folder.shapes],
        _IN_MODEL,
        Emu3ImageTokenizer,
    ),
    ImageFamily(
        "chameleon",
        _of_class("chameleon_vqgan", "chameleon"),
        chameleon_settings,
        lambda folder: chameleon_rules(),
        _IN_MODEL,
    ),
    ImageFamily(
        "janus",
        _of_class("janus_vqgan", "janus"),
        janus_settings,
        lambda folder: janus_rules(),
        _IN_MODEL,
    ),
    ImageFamily(
        "diffusers",
        lambda folder: folder.config.get("_class_name") == "VQModel",
        diffusers_settings,
        lambda folder: diffusers_rules(),
    ),
    ImageFamily(
        "magvit-v2",
        _is_magvit,
        magvit_settings,
        lambda folder: magvit_rules(len(_MAGVIT_DECODER[0])),
    ),
    ImageFamily(
        "llamagen",
        lambda folder: any("encoder.conv_blocks.0.res.0." in name for name in folder.shapes),
        llamagen_settings,
        lambda folder: llamagen_rules(),
        ("gen_vision_model.", ""),
    ),
    ImageFamily(
        "open-magvit2",
        is_open_magvit,
        open_magvit_settings,
        open_magvit_names,
        model=OpenMagvitImageTokenizer,
    ),
    ImageFamily("ibq", is_ibq, ibq_settings, ibq_names),
)


def image_family_of(folder: ForeignFolder) -> ImageFamily:
    """The family of an image tokenizer.

    Raises:
        ValueError: if it is of none that can be loaded.
    """
    found = [family for family in IMAGE_FAMILIES if family.knows(folder)]
    if not found:
        kind = folder.config.get("model_type") or folder.config.get("_class_name")
        raise ValueError(
            f"{folder.path} holds no image tokenizer that can be loaded (its config.json says "
            f"{kind!r}); what can be loaded is {[family.name for family in IMAGE_FAMILIES]}, and "
            "UniDiff's own"
        )
    return found[0]
