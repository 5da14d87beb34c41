"""The Llama-family block: RMSNorm, three-section rotary positions, grouped attention, SwiGLU.

Knows tensors and the configuration; knows nothing of canvases, noise or decoding. Parameter names
are those of Qwen3.
"""

# Shapes: B batch, Q query rows, S key rows, D width, H heads, G key-value heads, E head dim.

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .cache import BlockCache
from .configuration import UniDiffConfig


class UniDiffRMSNorm(nn.Module):
    """Root-mean-square normalisation, computed in float32 (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        """Scale of ones for the last dimension of `size`."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalised tensor of the same shape and dtype."""
        return nn.functional.rms_norm(
            hidden, self.weight.shape, self.weight.to(hidden.dtype), self.eps
        )


class UniDiffRotaryEmbedding(nn.Module):
    """Cosines and sines of three-section positions; frequency i turns with section i mod 3.

    With equal sections this is ordinary one-dimensional RoPE (arXiv 2104.09864). Interleaving gives
    every section fast and slow frequencies. Checked in tests/model/test_layers.py.
    """

    def __init__(self, config: UniDiffConfig) -> None:
        """Inverse frequencies from the configuration's `rope_theta`."""
        super().__init__()
        self.head_dim = config.head_dim
        assert config.rope_parameters is not None  # filled by the configuration
        self.theta = config.rope_parameters["rope_theta"]

    def inverse_frequencies(self, device: torch.device | str = "cpu") -> Tensor:
        """(E / 2,) float32 radians per position; no buffer, which `.bfloat16()` would round."""
        exponent = torch.arange(0, self.head_dim, 2, device=device).float() / self.head_dim
        return self.theta**-exponent

    @torch.no_grad()
    def forward(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each (B, 1, Q, E), of (3, B, Q) positions."""
        section = torch.arange(self.head_dim // 2, device=position_ids.device) % 3
        position_BQF = position_ids.movedim(0, -1).to(torch.float32)[..., section]
        angle_BQF = position_BQF * self.inverse_frequencies(position_ids.device)
        angle_BQE = torch.cat([angle_BQF, angle_BQF], dim=-1).unsqueeze(1)
        return angle_BQE.cos().to(dtype), angle_BQE.sin().to(dtype)


def rotate(heads_BHQE: Tensor, cosine_B1QE: Tensor, sine_B1QE: Tensor) -> Tensor:
    """Heads turned by their positions; same shape."""
    first, second = heads_BHQE.chunk(2, dim=-1)
    return heads_BHQE * cosine_B1QE + torch.cat([-second, first], dim=-1) * sine_B1QE


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, Tensor]:
    """Attention written out; transformers' attention interface, boolean mask, True = attends.

    Args:
        module: holds `num_key_value_groups`.
        query: (B, H, Q, E).
        key: (B, G, S, E).
        value: (B, G, S, E).
        attention_mask: (B, 1, Q, S) bool or None.
        scaling: factor on the scores.
        dropout: probability of dropping a weight in training.
        kwargs: ignored fields of the interface.

    Returns:
        ((B, Q, H, E) output, (B, H, Q, S) weights).
    """
    del kwargs
    groups: int = module.num_key_value_groups  # type: ignore[assignment]  # nn.Module's getattr
    key = key.repeat_interleave(groups, dim=1)
    value = value.repeat_interleave(groups, dim=1)
    score_BHQS = query * scaling @ key.transpose(-1, -2)
    if attention_mask is not None:
        bias = torch.zeros_like(attention_mask, dtype=score_BHQS.dtype)
        bias.masked_fill_(~attention_mask, torch.finfo(score_BHQS.dtype).min)
        score_BHQS = score_BHQS + bias
    weight_BHQS = score_BHQS.softmax(dim=-1)
    weight_BHQS = nn.functional.dropout(weight_BHQS, dropout, training=module.training)
    return (weight_BHQS @ value).transpose(1, 2).contiguous(), weight_BHQS


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
        self.o_proj = nn.Linear(heads * dim, config.hidden_size, bias=False)
        norm = config.use_qk_norm
        self.q_norm = UniDiffRMSNorm(dim, config.rms_norm_eps) if norm else nn.Identity()
        self.k_norm = UniDiffRMSNorm(dim, config.rms_norm_eps) if norm else nn.Identity()

    def forward(
        self,
        hidden_BQD: Tensor,
        rotation: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        cache: BlockCache | None,
        num_stored_B: Tensor | None,
    ) -> Tensor:
        """(B, Q, D) output; stores the first `num_stored_B` new keys of each row in the cache.

        Args:
            hidden_BQD: (B, Q, D) normalised input.
            rotation: cosine and sine, (B, 1, Q, E).
            attention_mask: (B, 1, Q, S + Q) bool, True = attends; None: everything attends.
            cache: committed keys and values, S slots per row; None: no past.
            num_stored_B: (B,) int64 or None for a read-only probe.
        """
        batch, length, _ = hidden_BQD.shape
        shape = (batch, length, -1, self.config.head_dim)
        query = self.q_norm(self.q_proj(hidden_BQD).view(shape)).transpose(1, 2)
        key = self.k_norm(self.k_proj(hidden_BQD).view(shape)).transpose(1, 2)
        value = self.v_proj(hidden_BQD).view(shape).transpose(1, 2)
        query, key = rotate(query, *rotation), rotate(key, *rotation)
        past = cache.read(self.layer_index) if cache is not None else None
        if cache is not None and num_stored_B is not None:
            cache.write(self.layer_index, key, value, num_stored_B)
        if past is not None:
            key = torch.cat([past[0], key], dim=2)
            value = torch.cat([past[1], value], dim=2)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
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
        return self.o_proj(output.reshape(batch, length, -1))


class UniDiffMLP(nn.Module):
    """SwiGLU feed-forward (arXiv 2002.05202)."""

    def __init__(self, config: UniDiffConfig) -> None:
        """Gate, up and down projections without bias."""
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        """Tensor of the same shape."""
        return self.down_proj(self.activation(self.gate_proj(hidden)) * self.up_proj(hidden))


class UniDiffLayer(GradientCheckpointingLayer):
    """One pre-norm transformer layer."""

    def __init__(self, config: UniDiffConfig, layer_index: int) -> None:
        """Attention and MLP, each behind its norm."""
        super().__init__()
        self.self_attn = UniDiffAttention(config, layer_index)
        self.mlp = UniDiffMLP(config)
        self.input_layernorm = UniDiffRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = UniDiffRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_BQD: Tensor, *attention_inputs: object) -> Tensor:
        """(B, Q, D) residual stream after the layer; arguments as `UniDiffAttention.forward`."""
        hidden_BQD = hidden_BQD + self.self_attn(
            self.input_layernorm(hidden_BQD), *attention_inputs
        )
        return hidden_BQD + self.mlp(self.post_attention_layernorm(hidden_BQD))
