"""What is added to the embeddings of tokens where positions are learned and turn no heads.

A table has a vector for each position; one for each of two texts that are read together, of which
there is one here; and a norm stands behind the sum. Source: BERT, arXiv 1810.04805, section 3.
Checked in tests/convert/test_families.py.
"""

# Shapes: B batch, Q tokens, N tokens of all rows in one line, D width.

from torch import Tensor, nn

from .configuration import UniDiffConfig
from .norms import fresh_norm


class UniDiffInputs(nn.Module):
    """Learned positions and segments, and the norm behind them."""

    def __init__(self, config: UniDiffConfig) -> None:
        """Tables of the configuration's sizes."""
        super().__init__()
        assert config.num_positions is not None  # else there is none of these
        self.first = config.first_position
        self.positions = nn.Embedding(config.num_positions, config.hidden_size)
        self.segments = nn.Embedding(config.num_segments, config.hidden_size)
        self.norm = fresh_norm(config, config.hidden_size)

    def forward(self, hidden: Tensor, position: Tensor) -> Tensor:
        """What the first layer is given.

        Args:
            hidden: (B, Q, D) or (N, D) embeddings of tokens.
            position: (B, Q) or (N,) int64, from 0.

        Raises:
            ValueError: if a position lies behind the table.
        """
        row, rows = position + self.first, self.positions.num_embeddings
        if row.numel() and int(row.max()) >= rows:
            raise ValueError(
                f"the model has learned {rows - self.first} positions, and a row has "
                f"{int(position.max()) + 1}: shorten the prompt or max_new_tokens"
            )
        return self.norm(hidden + self.positions(row) + self.segments.weight[0])
