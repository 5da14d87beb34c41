"""Pictures in prompts: read by the model's tower once, before the first forward over the row."""

# Shapes: B rows, L prompt columns, N soft positions of a row, D width.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .configuration import UniDiffConfig
from .soft_positions import embedded, pictures_of_rows, soft_mask
from .vision import PatchedVision


@dataclass(frozen=True)
class RowPictures:
    """The pictures of one row, in the order of their places.

    Attributes:
        features: (n, D) of each picture.
        shapes: of each, as the processor gave it.
    """

    features: list[Tensor]
    shapes: list[list[int]]

    @property
    def soft(self) -> Tensor | None:
        """(N, D) features at the row's soft positions; None without pictures."""
        return torch.cat(self.features) if self.features else None


class PictureMethods:
    """What a model does with pictures; the model provides the attributes."""

    config: UniDiffConfig
    vision: Any
    model: Any

    def read_pictures(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pixel_values: Tensor | None,
        image_sizes: Tensor | None,
        image_grid_thw: Tensor | None,
    ) -> list[RowPictures] | None:
        """Pictures of each row, read by the tower; None where there are none.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), non-zero at real tokens; None: all are.
            pixel_values: pieces of all pictures, as the processor made them, torch or numpy.
            image_sizes: (P, 2) int64, (height, width) of each picture in pixels, for a tower over
                tiles.
            image_grid_thw: (P, 3) int64, (times, rows, columns) of each in patches, for one over
                patches.

        Raises:
            ValueError: if the model has no tower, pixels or shapes are missing or of the other
                kind, or pixels, shapes and places do not fit together.
        """
        given = {"image_sizes": image_sizes, "image_grid_thw": image_grid_thw}
        if pixel_values is None and all(value is None for value in given.values()):
            if self.vision is not None and bool(self.is_soft(input_ids, attention_mask).any()):
                raise ValueError(
                    f"input_ids have positions for features of pictures, and there are no "
                    f"pictures: pass pixel_values and {self.vision.shape_name} of the processor"
                )
            return None
        if self.vision is None:
            raise ValueError(
                "pixel_values need a model that reads pictures as features (config.vision), this "
                "one has no tower; leave them out"
            )
        name = self.vision.shape_name
        shapes = given.pop(name)
        if pixel_values is None or shapes is None or any(v is not None for v in given.values()):
            raise ValueError(
                f"this model's pictures are pixel_values and {name}: pass both and no "
                f"{next(iter(given))}, as the processor made them"
            )
        shapes = torch.as_tensor(shapes)
        features = self.vision(torch.as_tensor(pixel_values), shapes)
        places_B = self.is_soft(input_ids, attention_mask).sum(1).tolist()
        rows = pictures_of_rows(places_B, [len(one) for one in features])
        sizes = shapes.tolist()
        return [RowPictures([features[n] for n in own], [sizes[n] for n in own]) for own in rows]

    def is_soft(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, L) bool, real tokens that stand for features."""
        is_soft_BL = soft_mask(input_ids, self.config.layout.soft_token_id)
        return is_soft_BL if attention_mask is None else is_soft_BL & attention_mask.bool()

    def embed_pictures(
        self, input_ids: Tensor, attention_mask: Tensor | None, pictures: Sequence[RowPictures]
    ) -> Tensor:
        """(B, L, D) embeddings of prompts with their pictures' features in place."""
        is_soft_BL = self.is_soft(input_ids, attention_mask)
        soft = [row.soft for row in pictures]
        return embedded(self.model.embed_tokens, input_ids, is_soft_BL, soft)

    def picture_positions(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pictures: Sequence[RowPictures] | None,
    ) -> Tensor | None:
        """(3, B, L) positions of rows whose pictures keep their grids; None: tokens are counted.

        Args:
            input_ids: (B, L) int64, or (1, L) for rows that have the same prompt.
            attention_mask: of the same shape, non-zero at real tokens; None: all are.
            pictures: of each row; a row that has no place for them has none of them in it.
        """
        if pictures is None or not isinstance(self.vision, PatchedVision):
            return None
        token = self.config.layout.soft_token_id
        assert token is not None  # checked by the configuration
        ids_BL = input_ids.expand(len(pictures), -1).cpu().numpy()
        real_BL = np.ones_like(ids_BL, dtype=bool)
        if attention_mask is not None:
            real_BL = attention_mask.bool().expand(len(pictures), -1).cpu().numpy()
        positions_3BL = np.zeros((3, *ids_BL.shape), dtype=np.int64)
        for row, (ids_L, real_L) in enumerate(zip(ids_BL, real_BL, strict=True)):
            shapes = pictures[row].shapes if token in ids_L[real_L] else []
            own = self.vision.patches.positions(ids_L[real_L], token, shapes)
            positions_3BL[:, row, real_L] = own
        return torch.from_numpy(positions_3BL).to(input_ids.device)
