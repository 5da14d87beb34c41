"""What is added to the embeddings of tokens: learned positions, or what is a picture.

Learned positions turn no heads: a table has a vector for each of them, another one for each of two
texts that are read together, of which there is one here, and a norm stands behind the sum. Source:
BERT, arXiv 1810.04805, section 3. Vectors of text and picture, and of a picture's number: UniDisc,
arXiv 2503.20853. Checked in tests/convert/test_families.py and test_unidisc.py.
"""

# Shapes: B batch, Q tokens, N tokens of all rows in one line, D width.

import torch
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


class UniDiffPictures(nn.Module):
    """Embeddings of text and of pictures, and of the first picture, the second, ..."""

    def __init__(self, config: UniDiffConfig) -> None:
        """Tables of the configuration's sizes."""
        super().__init__()
        width, numbers = config.hidden_size, config.num_picture_numbers
        self.kinds = nn.Embedding(2, width)
        self.numbers = nn.Embedding(numbers, width) if numbers else None

    def forward(self, hidden: Tensor, position: Tensor) -> Tensor:
        """What the first layer is given.

        Args:
            hidden: (B, Q, D) or (N, D) embeddings of tokens.
            position: (B, Q) or (N,) int64, of a picture -1 for the first, -2 for the second, ...

        Raises:
            ValueError: if there are more pictures than numbers.
        """
        is_picture = position < 0
        hidden = hidden + self.kinds(is_picture.long())
        if self.numbers is None:
            return hidden
        number, most = (-position - 1).clamp(min=0), self.numbers.num_embeddings
        if number.numel() and int(number.max()) >= most:
            raise ValueError(f"the model tells {most} pictures apart, and a row has more")
        return hidden + torch.where(is_picture[..., None], self.numbers(number), 0)


def fresh_inputs(config: UniDiffConfig) -> UniDiffInputs | UniDiffPictures | None:
    """What a configuration adds to embeddings; None: nothing."""
    if config.num_positions is not None:
        return UniDiffInputs(config)
    return UniDiffPictures(config) if config.picture_axes else None
