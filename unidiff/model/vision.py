"""Towers that read pictures: transformers' own vision models, and what leads from them to ours.

Each gives a picture's features as vectors as wide as the embeddings; where they go is decided in
`soft_positions.py`. Tensors of the published checkpoints keep their shapes.
"""

# Shapes: P pictures, N tiles or patches of all of them, F features of a tile along a side, W width
# of the tower, D width of the model.

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from unidiff.tokens.patches import Patches
from unidiff.tokens.tiles import Tiles

_COLOURS = 3


class TiledVision(nn.Module):
    """SigLIP over the tiles of a picture, and a small network (LLaVA-NeXT, LLaDA-V, LaViDa).

    The tower's last norm is there, as it is published, and not used.
    """

    shape_name: ClassVar[str] = "image_sizes"

    def __init__(self, settings: Mapping[str, Any], width: int) -> None:
        """Fresh weights.

        Args:
            settings: `tower`, fields of `SiglipVisionConfig`; `tiles`, of `Tiles`; and
                `projector_depth`, products of the network.
            width: of the model's embeddings.
        """
        super().__init__()
        from transformers import SiglipVisionConfig, SiglipVisionModel

        self.tiles = Tiles.from_dict(settings["tiles"])
        config = SiglipVisionConfig(**settings["tower"], vision_use_head=False)
        self.tower = SiglipVisionModel(config)
        self.projector = _projector(config.hidden_size, width, settings["projector_depth"])
        self.newline = nn.Parameter(torch.zeros(width))

    def forward(self, pixel_values: Tensor, shapes: Tensor) -> list[Tensor]:
        """(n, D) features of each picture; none without pictures.

        Args:
            pixel_values: (N, 3, side, side) float, the tiles of all pictures.
            shapes: (P, 2) int64, (height, width) of each picture in pixels.

        Raises:
            ValueError: if tiles have another size or are not as many as the pictures'.
        """
        sizes = _shapes("image_sizes", shapes, 2)
        counts = [self.tiles.num_tiles(size) for size in sizes]
        _check_pixels(pixel_values, (_COLOURS, self.tiles.side, self.tiles.side), counts)
        if not counts:
            return []
        pixels = pixel_values.to(self.tower.embeddings.patch_embedding.weight)
        hidden = self.tower.encoder(inputs_embeds=self.tower.embeddings(pixels)).last_hidden_state
        squares_NDFF = self._pooled(self.projector(hidden))
        return [
            self._arranged(own, size)
            for own, size in zip(squares_NDFF.split(counts), sizes, strict=True)
        ]

    def _pooled(self, features_NXD: Tensor) -> Tensor:
        """(N, D, F, F) features of tiles, fewer where the checkpoint pools them."""
        side = self.tiles.features
        squares = features_NXD.transpose(1, 2).unflatten(2, (side, side))
        if self.tiles.pool == 1:
            return squares
        return nn.functional.interpolate(squares, [self.tiles.pooled] * 2, mode="bilinear")

    def _arranged(self, squares_TDFF: Tensor, size: Sequence[int]) -> Tensor:
        """(n, D) features of one picture: the first tile's, then those of the canvas by rows."""
        first, rest = squares_TDFF[0], squares_TDFF[1:]
        rows, columns = self.tiles.grid(size)
        sheet = rest.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
        sheet_DRC = sheet.flatten(1, 2).flatten(2, 3)
        down, across = self.tiles.kept(size)
        sheet_DRC = sheet_DRC[:, down, across]
        fewer = self.tiles.thinned(*sheet_DRC.shape[1:])
        if fewer != tuple(sheet_DRC.shape[1:]):
            sheet_DRC = nn.functional.interpolate(sheet_DRC[None], fewer, mode="bilinear")[0]
        ends = self.newline[:, None, None].expand(-1, sheet_DRC.shape[1], 1)
        sheet_DRC = torch.cat([sheet_DRC, ends], dim=2)
        return torch.cat([first.flatten(1), sheet_DRC.flatten(1)], dim=1).T


class PatchedVision(nn.Module):
    """A tower of Qwen's over the patches of a picture (Dream-VL, Dimple)."""

    shape_name: ClassVar[str] = "image_grid_thw"

    def __init__(self, settings: Mapping[str, Any], width: int) -> None:
        """Fresh weights.

        Args:
            settings: `tower_type`, "qwen2_vl" or "qwen2_5_vl"; `tower`, fields of transformers'
                configuration of it; `projector_depth`, products of the network behind it; and
                `projector_activation` between them.
            width: of the model's embeddings.

        Raises:
            ValueError: if the heads of the tower do not divide its width.
        """
        super().__init__()
        config_class, tower_class, width_name = _patch_tower(settings["tower_type"])
        config = config_class(**settings["tower"])
        inside = getattr(config, "embed_dim", config.hidden_size)
        if inside % config.num_heads:
            raise ValueError(
                f"the width {inside} of the tower is no multiple of its {config.num_heads} heads"
            )
        self.patches = Patches(
            config.patch_size, config.temporal_patch_size, config.spatial_merge_size
        )
        self.tower = tower_class(config)
        self.projector = _projector(
            getattr(config, width_name),
            width,
            settings["projector_depth"],
            settings["projector_activation"],
        )

    def forward(self, pixel_values: Tensor, shapes: Tensor) -> list[Tensor]:
        """(n, D) features of each picture; none without pictures.

        Args:
            pixel_values: (N, 3 frames side side) float, the patches of all pictures.
            shapes: (P, 3) int64, (times, rows, columns) of each picture in patches.

        Raises:
            ValueError: if patches have another size or are not as many as the pictures'.
        """
        grids = _shapes("image_grid_thw", shapes, 3)
        sizes = [self.patches.num_positions(grid) for grid in grids]
        counts = [size * self.patches.merge**2 for size in sizes]
        values = _COLOURS * self.patches.frames * self.patches.side**2
        _check_pixels(pixel_values, (values,), counts)
        if not counts:
            return []
        weight = self.tower.patch_embed.proj.weight
        features = self.tower(pixel_values.to(weight), shapes.to(weight.device)).pooler_output
        return list(self.projector(features).split(sizes))


VISIONS: dict[str, type[TiledVision] | type[PatchedVision]] = {
    "tiles": TiledVision,
    "patches": PatchedVision,
}


def vision_of(settings: Mapping[str, Any] | None, width: int) -> nn.Module | None:
    """The tower that `UniDiffConfig.vision` describes; None where there is none.

    Args:
        settings: its `kind` is a name of `VISIONS`; see the class for the others.
        width: of the model's embeddings.
    """
    return None if settings is None else VISIONS[settings["kind"]](settings, width)


def _patch_tower(tower_type: str) -> tuple[Any, Any, str]:
    """A tower over patches: its configuration, itself, and the width that it gives."""
    from transformers.models.qwen2_5_vl import configuration_qwen2_5_vl, modeling_qwen2_5_vl
    from transformers.models.qwen2_vl import configuration_qwen2_vl, modeling_qwen2_vl

    towers = {
        "qwen2_vl": (
            configuration_qwen2_vl.Qwen2VLVisionConfig,
            modeling_qwen2_vl.Qwen2VisionTransformerPretrainedModel,
            "hidden_size",
        ),
        "qwen2_5_vl": (
            configuration_qwen2_5_vl.Qwen2_5_VLVisionConfig,
            modeling_qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel,
            "out_hidden_size",
        ),
    }
    return towers[tower_type]


def _projector(before: int, width: int, depth: int, activation: str = "gelu") -> nn.Sequential:
    """Products with an activation between; the numbers of its parts are names of tensors."""
    parts: list[nn.Module] = [nn.Linear(before, width)]
    for _ in range(depth - 1):
        parts += [ACT2FN[activation], nn.Linear(width, width)]
    return nn.Sequential(*parts)


def _shapes(name: str, shapes: Tensor, columns: int) -> list[list[int]]:
    """Shapes as lists; raises ValueError unless they are a (P, columns) matrix of positives."""
    is_matrix = shapes.ndim == 2 and shapes.shape[1] == columns
    if not is_matrix or shapes.is_floating_point() or bool((shapes < 1).any()):
        raise ValueError(
            f"{name} must be a (pictures, {columns}) tensor of whole numbers >= 1, got "
            f"{shapes.dtype} of shape {tuple(shapes.shape)}: take it from the processor"
        )
    found: list[list[int]] = shapes.tolist()
    return found


def _check_pixels(pixel_values: Tensor, shape: tuple[int, ...], counts: Sequence[int]) -> None:
    """Raise ValueError unless there are as many pieces as the pictures have, of this shape."""
    wanted = (sum(counts), *shape)
    if tuple(pixel_values.shape) != wanted:
        raise ValueError(
            f"pixel_values must have the shape {wanted} ({' + '.join(map(str, counts))} pieces of "
            f"the {len(counts)} pictures), got {tuple(pixel_values.shape)}: take both from the "
            "processor of this checkpoint"
        )
