"""The SwiGLU feed-forward of a dense layer, and of the experts that every token goes through."""

from torch import Tensor, nn
from transformers.activations import ACT2FN

from .configuration import UniDiffConfig
from .packing import PackedLayer


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

    def forward(self, hidden: Tensor, packed: PackedLayer | None = None) -> Tensor:
        """Tensor of the same shape; `packed` as in `UniDiffAttention.forward`."""
        if packed is not None and packed.mlp is not None:
            gate, up = packed.mlp.gate_and_up.split(hidden)
            return packed.mlp.down(self.activation(gate) * up)
        return self.down_proj(self.activation(self.gate_proj(hidden)) * self.up_proj(hidden))
