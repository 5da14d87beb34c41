"""What published image tokenizers call the tensors of ours.

Layouts: showlab's `modeling_magvitv2.py`, FoundationVision's and deepseek-ai's `vq_model.py`,
diffusers' `vq_model.py` and `vae.py`, transformers' Janus and Chameleon, TencentARC's `model.py`
and `improved_model.py`, in own words.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .keys import Linear, Renamed, Rule, Unread

_HALVES = ("encoder", "decoder")
_ENDS = ("conv_in", "norm_out", "conv_out")
_NORM_AND_CONV = {one: one for one in ("norm1", "conv1", "norm2", "conv2")}
_BLOCK = {**_NORM_AND_CONV, "nin_shortcut": "shortcut"}
_DIFFUSERS_BLOCK = {**_NORM_AND_CONV, "conv_shortcut": "shortcut"}
_ATTENTION = {"norm": "norm", "q": "q", "k": "k", "v": "v", "proj_out": "out"}
# The second four are of diffusers before version 0.18.
_DIFFUSERS_ATTENTION = {
    **{"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "out"},
    **{"query": "q", "key": "k", "value": "v", "proj_attn": "out"},
}
_BOOK = Renamed("quantize.embedding.weight", "codebook.weight")
MAGVIT_BUFFERS = ("quantize.embedding", "quantize.power_vals")
_CODES = {"quant_conv": "to_code", "post_quant_conv": "from_code"}


@dataclass
class _Places:
    """Where modules stand in a layout, by their place in ours.

    Attributes:
        blocks: residual blocks.
        attentions: layers of attention.
        layers: convolutions and norms by themselves.
    """

    blocks: dict[str, str] = field(default_factory=dict)
    attentions: dict[str, str] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)

    def rules(self) -> list[Rule]:
        """The names of their tensors, as taming-transformers calls the parts of a module."""
        return [
            *_parts(self.blocks, _BLOCK),
            *_parts(self.attentions, _ATTENTION),
            *_layers(self.layers),
        ]


def magvit_rules(num_levels: int) -> list[Rule]:
    """MAGVIT-v2 of Show-o: the decoder's levels are counted from the finest.

    The convolutions of codes stand inside the halves; the lookup by signs implies the buffers.
    """
    places = _taming((str(num_levels - 1 - n), str(n)) for n in range(num_levels))
    places.layers |= {
        "encoder.quant_conv": "to_code",
        "decoder.post_quant_conv": "from_code",
    }
    return [*places.rules(), *map(Unread, MAGVIT_BUFFERS)]


def ibq_rules(num_levels: int) -> list[Rule]:
    """IBQ of SEED-Voken: MAGVIT-v2's names, with the convolutions of codes outside the halves."""
    places = _taming((str(num_levels - 1 - n), str(n)) for n in range(num_levels))
    places.layers |= _CODES
    return [*places.rules(), _BOOK]


def open_magvit_rules(num_levels: int) -> list[Rule]:
    """Open-MAGVIT2 of SEED-Voken: the decoder's levels are counted from the finest."""
    places = _Places({"encoder.down.{l}.block.{b}": "encoder.levels.{l}.{b}"})
    places.layers["encoder.down.{l}.downsample"] = "encoder.halvings.{l}"
    for number in range(num_levels):
        theirs = num_levels - 1 - number
        level, norm = f"decoder.up.{theirs}", f"decoder.adaptive.{theirs}"
        places.blocks[f"{level}.block.{{b}}"] = f"decoder.levels.{number}.{{b}}"
        places.layers |= {
            f"{level}.upsample.conv1": f"decoder.doublings.{number}.conv",
            f"{norm}.gamma": f"decoder.norms.{number}.scale",
            f"{norm}.beta": f"decoder.norms.{number}.shift",
        }
    for half in _HALVES:
        places.blocks[f"{half}.mid_block.{{b}}"] = f"{half}.middle.{{b}}"
        places.layers |= {f"{half}.{one}": f"{half}.{one}" for one in _ENDS}
    return places.rules()


def janus_rules() -> list[Rule]:
    """Janus in transformers: the decoder's levels are in the order in which they are applied."""
    places = _taming([("{l}", "{l}")])
    places.layers |= _CODES
    return [*places.rules(), _BOOK]


def chameleon_rules() -> list[Rule]:
    """Chameleon in transformers: one layer of a decoder that was not published is left."""
    places = _taming([])
    places.layers["quant_conv"] = "to_code"
    left = ("post_quant_conv.weight", "post_quant_conv.bias")
    return [*places.rules(), _BOOK, *map(Unread, left)]


def llamagen_rules() -> list[Rule]:
    """LlamaGen, and Janus as DeepSeek publishes it."""
    places = _Places()
    for half in _HALVES:
        level, own = f"{half}.conv_blocks.{{l}}", f"{half}.levels.{{l}}"
        places.blocks |= {f"{level}.res.{{b}}": f"{own}.blocks.{{b}}"}
        places.attentions |= {f"{level}.attn.{{b}}": f"{own}.attentions.{{b}}"}
        _add_ends(places, half, f"{half}.mid.0", f"{half}.mid.1", f"{half}.mid.2")
    places.layers |= {
        "encoder.conv_blocks.{l}.downsample.conv": "encoder.halvings.{l}.conv",
        "decoder.conv_blocks.{l}.upsample.conv": "decoder.doublings.{l}.conv",
        **_CODES,
    }
    return [*places.rules(), _BOOK, Unread("quantize.codebook_used")]


def diffusers_rules() -> list[Rule]:
    """Diffusers' `VQModel`: the parts of attention are linear maps there."""
    places = _Places()
    for half, blocks_of in (("encoder", "down_blocks"), ("decoder", "up_blocks")):
        level, middle = f"{half}.{blocks_of}.{{l}}", f"{half}.mid_block"
        places.blocks |= {
            f"{level}.resnets.{{b}}": f"{half}.levels.{{l}}.blocks.{{b}}",
            f"{middle}.resnets.0": f"{half}.middle.block_in",
            f"{middle}.resnets.1": f"{half}.middle.block_out",
        }
        places.attentions |= {
            f"{level}.attentions.{{b}}": f"{half}.levels.{{l}}.attentions.{{b}}",
            f"{middle}.attentions.0": f"{half}.middle.attention",
        }
        places.layers |= {f"{half}.{one}": f"{half}.{one}" for one in ("conv_in", "conv_out")}
        places.layers |= {f"{half}.conv_norm_out": f"{half}.norm_out"}
    places.layers |= {
        "encoder.down_blocks.{l}.downsamplers.0.conv": "encoder.halvings.{l}.conv",
        "decoder.up_blocks.{l}.upsamplers.0.conv": "decoder.doublings.{l}.conv",
        **_CODES,
    }
    return [
        *_parts(places.blocks, _DIFFUSERS_BLOCK),
        *_parts(places.attentions, {"group_norm": "norm"}),
        *(rule for one, own in places.attentions.items() for rule in _linear_attention(one, own)),
        *_layers(places.layers),
        _BOOK,
    ]


def _taming(decoder_levels: Iterable[tuple[str, str]]) -> _Places:
    """Places as taming-transformers names them.

    Args:
        decoder_levels: (number of a level of the decoder there, the number here), or a template's.
    """
    places = _Places(
        {"encoder.down.{l}.block.{b}": "encoder.levels.{l}.blocks.{b}"},
        {"encoder.down.{l}.attn.{b}": "encoder.levels.{l}.attentions.{b}"},
        {"encoder.down.{l}.downsample.conv": "encoder.halvings.{l}.conv"},
    )
    for number, own in decoder_levels:
        level = f"decoder.up.{number}"
        places.blocks[f"{level}.block.{{b}}"] = f"decoder.levels.{own}.blocks.{{b}}"
        places.attentions[f"{level}.attn.{{b}}"] = f"decoder.levels.{own}.attentions.{{b}}"
        places.layers[f"{level}.upsample.conv"] = f"decoder.doublings.{own}.conv"
    for half in _HALVES:
        middle = f"{half}.mid"
        _add_ends(places, half, f"{middle}.block_1", f"{middle}.attn_1", f"{middle}.block_2")
    return places


def _add_ends(places: _Places, half: str, block_in: str, attention: str, block_out: str) -> None:
    """Add the middle of a half, and its first and last layers, which keep their names."""
    places.blocks |= {
        block_in: f"{half}.middle.block_in",
        block_out: f"{half}.middle.block_out",
    }
    places.attentions[attention] = f"{half}.middle.attention"
    places.layers |= {f"{half}.{one}": f"{half}.{one}" for one in _ENDS}


def _parts(places: Mapping[str, str], layers: Mapping[str, str]) -> list[Rule]:
    """The layers of modules of one kind at several places."""
    return _layers(
        {
            f"{theirs}.{layer}": f"{ours}.{own}"
            for theirs, ours in places.items()
            for layer, own in layers.items()
        }
    )


def _layers(places: Mapping[str, str]) -> list[Rule]:
    """The weight and the bias of layers at several places."""
    return [
        Renamed(f"{theirs}.{one}", f"{ours}.{one}")
        for theirs, ours in places.items()
        for one in ("weight", "bias")
    ]


def _linear_attention(theirs: str, ours: str) -> list[Rule]:
    """The linear maps of one layer of attention in diffusers."""
    return [
        rule
        for layer, own in _DIFFUSERS_ATTENTION.items()
        for rule in (
            Linear(f"{theirs}.{layer}.weight", f"{ours}.{own}.weight"),
            Renamed(f"{theirs}.{layer}.bias", f"{ours}.{own}.bias"),
        )
    ]
