"""The Llama-family block: RMSNorm, three-section rotary positions, grouped attention, SwiGLU.

By the configuration its norms may be LayerNorms, adaptive ones (`modulation.py`) and stand behind
attention and MLP or once before both, and its MLP may be two plain products: the blocks of
diffusion transformers, of BERT and of Phi.

Knows tensors and the configuration; knows nothing of canvases, noise or decoding. Parameter names
are those of Qwen3.
"""

# Shapes: B batch, Q query rows, S key rows, D width, H heads, G key-value heads, E head dim,
# R rotated dimensions of a head, C size of the vector that moves adaptive norms.

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import decoding_attention, eager_attention
from .cache import BlockCache
from .configuration import UniDiffConfig
from .experts import UniDiffMixture
from .modulation import Part
from .norms import UniDiffLayerNorm, fresh_norm
from .packing import PackedLayer
from .placement import Placement


class UniDiffRotaryEmbedding(nn.Module):
    """Cosines and sines of three-section positions; frequency i turns with section i mod 3.

    With equal sections this is ordinary one-dimensional RoPE (arXiv 2104.09864). Interleaving gives
    every section fast and slow frequencies. Checked in tests/model/test_layers.py. With
    `mrope_section` frequencies turn with one section after the other (Qwen2-VL, arXiv 2409.12191).
    """

    def __init__(self, config: UniDiffConfig) -> None:
        """Frequencies of the configuration's `rope_parameters`."""
        super().__init__()
        self.config = config
        assert config.rope_parameters is not None  # filled by the configuration
        self.kind = config.rope_parameters.get("rope_type", "default")
        self.theta = config.rope_parameters["rope_theta"]

    def inverse_frequencies(self, device: torch.device | str = "cpu") -> tuple[Tensor, float]:
        """((R / 2,) float32 radians per position, factor of the rotation).

        No buffer, which `.bfloat16()` would round. Scaled ones (llama3, linear, yarn) are
        transformers' own.
        """
        if self.kind != "default":
            return ROPE_INIT_FUNCTIONS[self.kind](self.config, torch.device(device))
        dim = self.config.rotary_dim
        exponent = torch.arange(0, dim, 2, device=device).float() / dim
        return self.theta**-exponent, 1.0

    def _sections(self, num_frequencies: int) -> Tensor:
        """(F,) int64, the section that each frequency turns with."""
        assert self.config.rope_parameters is not None  # filled by the configuration
        counts = self.config.rope_parameters.get("mrope_section")
        if counts is None:
            return torch.arange(num_frequencies) % 3
        return torch.arange(3).repeat_interleave(torch.tensor(counts))

    @torch.no_grad()
    def forward(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each (B, 1, Q, R), of (3, B, Q) positions."""
        frequency_F, factor = self.inverse_frequencies(position_ids.device)
        section = self._sections(len(frequency_F)).to(position_ids.device)
        position_BQF = position_ids.movedim(0, -1).to(torch.float32)[..., section]
        angle_BQF = position_BQF * frequency_F
        if self.config.picture_axes:
            picture_BQF = self._picture_angles(position_ids, frequency_F)
            angle_BQF = torch.where(position_ids[0, ..., None] < 0, picture_BQF, angle_BQF)
        angle_BQR = torch.cat([angle_BQF, angle_BQF], dim=-1).unsqueeze(1)
        return (angle_BQR.cos() * factor).to(dtype), (angle_BQR.sin() * factor).to(dtype)

    def _picture_angles(self, position_ids: Tensor, frequency_F: Tensor) -> Tensor:
        """(B, Q, F) radians along a picture's rows and columns, which share every frequency."""
        slot = torch.arange(len(frequency_F), device=position_ids.device)
        axis_BQF = position_ids.movedim(0, -1).to(torch.float32)[..., 1 + slot % 2]
        return axis_BQF * frequency_F[slot - slot % 2] / self.config.picture_rope_factor


def rotate(heads_BHQE: Tensor, cosine_B1QR: Tensor, sine_B1QR: Tensor) -> Tensor:
    """Heads whose first R dimensions are turned by their positions; same shape."""
    dim = cosine_B1QR.shape[-1]
    if dim == 0:
        return heads_BHQE
    if dim < heads_BHQE.shape[-1]:
        turned = rotate(heads_BHQE[..., :dim], cosine_B1QR, sine_B1QR)
        return torch.cat([turned, heads_BHQE[..., dim:]], dim=-1)
    first, second = heads_BHQE.chunk(2, dim=-1)
    return heads_BHQE * cosine_B1QR + torch.cat([-second, first], dim=-1) * sine_B1QR


class UniDiffAttention(nn.Module):
    """Grouped-query attention of new tokens over the cache and themselves."""

    def __init__(self, config: UniDiffConfig, layer_index: int) -> None:
        """Projections named as in Qwen3."""
        super().__init__()
        self.config = config
        self.layer_index = layer_index
        self.is_causal = False  # transformers' sdpa would otherwise assume a causal mask
        heads, dim = config.num_attention_heads, config.head_dim
        groups = config.num_key_value_heads or heads
        self.num_key_value_groups = heads // groups
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, heads * dim, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, groups * dim, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, groups * dim, bias=bias)
        self.o_proj = nn.Linear(heads * dim, config.hidden_size, bias=config.output_bias)
        self.q_norm = _head_norm(config, heads)
        self.k_norm = _head_norm(config, groups)

    def forward(
        self,
        hidden_BQD: Tensor,
        rotation: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        cache: BlockCache | None,
        placement: Placement | None,
        packed: PackedLayer | None = None,
    ) -> Tensor:
        """(B, Q, D) output of new tokens over themselves and what the cache holds.

        Args:
            hidden_BQD: (B, Q, D) normalised input.
            rotation: cosine and sine, (B, 1, Q, R).
            attention_mask: (B, 1, Q, S) bool, True = attends; or what `masks.decode_mask` adds to
                scores; None: everything attends.
            cache: committed keys and values; None: no past, S = Q.
            placement: where in the cache's slots the new tokens stand.
            packed: the projections in a faster layout; None: the module's own.
        """
        batch, length, _ = hidden_BQD.shape
        shape = (batch, length, -1, self.config.head_dim)
        query, key, value = (packed.project.split if packed else self.project)(hidden_BQD)
        query = rotate(self.heads(self.q_norm, query).transpose(1, 2), *rotation)
        key = rotate(self.heads(self.k_norm, key).transpose(1, 2), *rotation)
        value = value.view(shape).transpose(1, 2)
        implementation = self.config._attn_implementation
        if cache is not None and placement is not None:
            key, value = cache.extend(self.layer_index, key, value, placement)
            implementation = decoding_attention(implementation, query)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
        output, _ = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.config.head_dim**-0.5,
            is_causal=False,
        )
        output_BQD = output.reshape(batch, length, -1)
        return packed.attention_out(output_BQD) if packed else self.o_proj(output_BQD)

    def heads(self, norm: nn.Module, projected: Tensor) -> Tensor:
        """(..., heads, E) normalised queries or keys of their (..., heads times E) projection."""
        size = (-1, self.config.head_dim)
        if self.config.qk_norm_type == "all_heads":
            return norm(projected).unflatten(-1, size)
        return norm(projected.unflatten(-1, size))

    def project(self, hidden_BQD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, Q, heads times E)."""
        return self.q_proj(hidden_BQD), self.k_proj(hidden_BQD), self.v_proj(hidden_BQD)


def _head_norm(config: UniDiffConfig, num_heads: int) -> nn.Module:
    """The norm of queries or keys of as many heads."""
    if not config.use_qk_norm:
        return nn.Identity()
    if config.qk_norm_type == "all_heads":
        return UniDiffLayerNorm(num_heads * config.head_dim, 1e-5, has_shift=True)
    return fresh_norm(config, config.head_dim)


class UniDiffMLP(nn.Module):
    """SwiGLU feed-forward (arXiv 2002.05202)."""

    def __init__(self, config: UniDiffConfig, width: int | None = None) -> None:
        """Gate, up and down projections without bias.

        Args:
            config: sizes.
            width: between the projections; None: `config.intermediate_size`.
        """
        super().__init__()
        width = width or config.intermediate_size
        self.gate_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.down_proj = nn.Linear(width, config.hidden_size, bias=False)
        self.activation = ACT2FN[config.hidden_act]

    @property
    def entrances(self) -> list[nn.Module]:
        """The products of its input."""
        return [self.gate_proj, self.up_proj]

    def forward(self, hidden: Tensor, packed: PackedLayer | None = None) -> Tensor:
        """Tensor of the same shape; `packed` as in `UniDiffAttention.forward`."""
        if packed is not None:
            gate, up = packed.mlp_in.split(hidden)
            return packed.down(self.activation(gate) * up)
        return self.down_proj(self.activation(self.gate_proj(hidden)) * self.up_proj(hidden))


class UniDiffPlainMLP(nn.Module):
    """Feed-forward of two products with biases, the activation between them."""

    def __init__(self, config: UniDiffConfig) -> None:
        """Up and down projections."""
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]

    @property
    def entrances(self) -> list[nn.Module]:
        """The products of its input."""
        return [self.up_proj]

    def forward(self, hidden: Tensor, packed: PackedLayer | None = None) -> Tensor:
        """Tensor of the same shape; `packed` as in `UniDiffAttention.forward`."""
        if packed is not None:
            return packed.down(self.activation(packed.mlp_in(hidden)))
        return self.down_proj(self.activation(self.up_proj(hidden)))


def _feed_forward(config: UniDiffConfig, layer_index: int) -> nn.Module:
    """The MLP of a layer, or its mixture of experts."""
    if layer_index not in config.mixture_layers:
        return (UniDiffMLP if config.mlp_type == "gated" else UniDiffPlainMLP)(config)
    assert config.moe_intermediate_size is not None  # filled by the configuration
    shared = config.num_shared_experts * config.moe_intermediate_size
    return UniDiffMixture(config, UniDiffMLP(config, shared) if shared else None)


class UniDiffLayer(GradientCheckpointingLayer):
    """One transformer layer: attention and an MLP, which norms stand around."""

    def __init__(self, config: UniDiffConfig, layer_index: int) -> None:
        """Attention, and an MLP or a mixture of experts, each with its norm or with one of both."""
        super().__init__()
        self.placement = config.norm_placement
        self.self_attn = UniDiffAttention(config, layer_index)
        self.mlp = _feed_forward(config, layer_index)
        self.input_layernorm = fresh_norm(config, config.hidden_size)
        if self.placement != "parallel":
            self.post_attention_layernorm = fresh_norm(config, config.hidden_size)
        if self.placement == "sandwich":
            self.attention_out_layernorm = fresh_norm(config, config.hidden_size)
            self.mlp_out_layernorm = fresh_norm(config, config.hidden_size)
        size = config.modulation_dim
        self.modulation = None if size is None else nn.Linear(size, 6 * config.hidden_size)

    def parts(self, condition_C: Tensor | None) -> tuple[Part, Part]:
        """What stands around attention and MLP; `condition_C` of adaptive norms, else None."""
        if self.placement == "parallel":
            return Part(self.input_layernorm), Part(self.input_layernorm)
        norms = self.input_layernorm, self.post_attention_layernorm
        if self.placement == "sandwich":
            after = self.attention_out_layernorm, self.mlp_out_layernorm
            return Part(norms[0], after=after[0]), Part(norms[1], after=after[1])
        if self.modulation is None:
            is_behind = self.placement == "post"
            return Part(norms[0], is_behind=is_behind), Part(norms[1], is_behind=is_behind)
        vectors = self.modulation(condition_C).chunk(6)
        return Part(norms[0], *vectors[:3]), Part(norms[1], *vectors[3:])

    def mlp_stream(self, before: Tensor, behind: Tensor) -> Tensor:
        """(..., D) what the MLP reads of: the stream behind the attention, or that before it."""
        return before if self.placement == "parallel" else behind

    def forward(
        self,
        hidden_BQD: Tensor,
        condition_C: Tensor | None,
        *attention_inputs: object,
        packed: PackedLayer | None = None,
    ) -> Tensor:
        """(B, Q, D) residual stream after the layer; arguments as `UniDiffAttention.forward`."""
        around_attention, around_mlp = self.parts(condition_C)
        output_BQD = self.self_attn(
            around_attention.enter(hidden_BQD), *attention_inputs, packed=packed
        )
        joined_BQD = around_attention.join(hidden_BQD, output_BQD)
        read_BQD = self.mlp_stream(hidden_BQD, joined_BQD)
        return around_mlp.join(joined_BQD, self.mlp(around_mlp.enter(read_BQD), packed))
