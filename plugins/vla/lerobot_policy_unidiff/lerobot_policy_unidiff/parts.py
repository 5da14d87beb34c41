"""Model and processor of a policy: from lerobot's own folder, a UniDiff checkpoint, or re-laid."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unidiff.bundled import bundled_checkpoint
from unidiff.generation.config import UniDiffGenerationConfig
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.image_processing import UniDiffImageProcessor
from unidiff.tokens.processor import UniDiffProcessor

from .configuration_unidiff import RANGES, UniDiffVLAConfig

logger = logging.getLogger(__name__)

SUBFOLDER = "unidiff"  # of lerobot's folder: processor and model configuration; weights lie above
# Own bins stay only where the data fill this share of their range: an eighth leaves 32 of 256 bins.
_LEAST_SHARE = 1 / 8
_MOST_CODES = 1024  # of one picture: a prompt beyond it is rather a camera left at its full size

Statistics = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Parts:
    """What a policy is made of.

    Attributes:
        model: in float32.
        processor: with bins of the policy's chunk size and dimensions.
    """

    model: UniDiffForBlockDiffusion
    processor: UniDiffProcessor

    def save(self, folder: Path) -> None:
        """Write all but the weights into the sub-folder of lerobot's folder."""
        self.processor.save_pretrained(folder / SUBFOLDER)
        self.model.config.save_pretrained(folder / SUBFOLDER)
        self.model.generation_config.save_pretrained(folder / SUBFOLDER)


def parts_of(config: UniDiffVLAConfig, statistics: Statistics | None) -> Parts:
    """The parts that a configuration asks for, fitted to a data set where one is given.

    A policy that lerobot saved comes back as it was, whatever the statistics; its weights are
    lerobot's to load.

    Args:
        config: with the features of data set or environment.
        statistics: lerobot's, by feature, to which bins are fitted that do not suit them; None:
            the checkpoint's own bins stay.

    Raises:
        FileNotFoundError: if a folder is not there.
        ValueError: if checkpoint and features do not fit, or statistics are missing.
    """
    if config.pretrained_path is not None:
        parts = _saved(Path(config.pretrained_path))
    elif config.checkpoint is not None:
        parts = _loaded(Path(config.checkpoint))
    else:
        return _relaid(config, statistics)
    check_fit(config, parts.processor)
    if config.pretrained_path is None and statistics is not None:
        processor = parts.processor
        processor.action_bins = _fitted(processor.action_bins, statistics, "action", config)
        processor.state_bins = _fitted(
            processor.state_bins, statistics, "observation.state", config
        )
    return parts


def check_fit(config: UniDiffVLAConfig, processor: UniDiffProcessor) -> None:
    """Raise ValueError unless a checkpoint plans such chunks and reads such observations."""
    bins, states = processor.bins_of("action"), processor.state_bins
    if bins.horizon != config.chunk_size:
        raise ValueError(
            f"chunk_size must be the checkpoint's horizon, {bins.horizon}; got "
            f"{config.chunk_size}: pass --policy.chunk_size={bins.horizon} (and n_action_steps of "
            "at most that), or leave out --policy.checkpoint"
        )
    own = {"action": bins.dim, "observation.state": None if states is None else states.dim}
    given = {"action": config.action_dim, "observation.state": config.state_dim}
    if own != given:
        raise ValueError(
            f"the checkpoint has the dimensions {own}, data set or environment {given}: use those "
            "it was trained on, or leave out --policy.checkpoint"
        )
    size = processor.image_processor.size
    codes = (size["height"], size["width"])
    if _picture_size(config) != codes:
        raise ValueError(
            f"pictures must be (height, width) {codes} for this checkpoint; got "
            f"{_picture_size(config)} of the cameras {config.cameras}: record them so, or pass "
            f"--policy.image_size={max(codes)} to have them fitted"
        )


def _picture_size(config: UniDiffVLAConfig) -> tuple[int, int]:
    """(height, width) in pixels at which pictures are coded."""
    if config.image_size is not None:
        return config.image_size, config.image_size
    sizes = set(config.cameras.values())
    if len(sizes) != 1:
        raise ValueError(
            f"the cameras must have one size; got {config.cameras}: pass --policy.image_size=64 "
            "to have them fitted into that"
        )
    return sizes.pop()


def _saved(folder: Path) -> Parts:
    """Parts that lerobot saved, with fresh weights; it loads the trained ones itself."""
    inner = folder / SUBFOLDER
    if not inner.is_dir():
        raise FileNotFoundError(
            f"{folder} has no folder {SUBFOLDER}, which a UniDiff policy has in each checkpoint of "
            "lerobot: give --policy.path a folder `pretrained_model`"
        )
    model: Any = UniDiffForBlockDiffusion(UniDiffConfig.from_pretrained(inner))
    model.generation_config = UniDiffGenerationConfig.from_pretrained(inner)
    processor = UniDiffProcessor.from_pretrained(inner)
    return Parts(model.float(), processor)


def _loaded(folder: Path) -> Parts:
    """Parts of a UniDiff checkpoint."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} is no UniDiff checkpoint: config.json is missing. Give --policy.checkpoint "
            "the folder of one, or leave it out for the bundled weights"
        )
    model: Any = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    return Parts(model, UniDiffProcessor.from_pretrained(folder))


def _relaid(config: UniDiffVLAConfig, statistics: Statistics | None) -> Parts:
    """The bundled weights with the grids and bins of other features.

    Every id keeps its meaning, but those of bins where they are fitted anew; a larger picture has
    more codes, a longer chunk more bins, of the same kinds.
    """
    base = _loaded(bundled_checkpoint())
    old = base.processor
    height, width = _picture_size(config)
    factor = old.image_tokenizer.config.downsample_factor
    num_codes = (height // factor) * (width // factor)
    if height % factor or width % factor or not 1 <= num_codes <= _MOST_CODES:
        raise ValueError(
            f"pictures of {height} x {width} pixels cannot be coded: their sides must be multiples "
            f"of {factor} and give at most {_MOST_CODES} codes of {factor} x {factor} pixels; pass "
            "--policy.image_size=64 to have them fitted into that"
        )
    action_bins, state_bins = _bins(config, old, statistics)
    ranges = dict(old.layout.ranges)
    if state_bins is None:
        del ranges["state"]  # a policy refuses tokens of states without their range
    layout = replace(
        old.layout,
        ranges=ranges,
        image_grid=(height // factor, width // factor),
        action_grid=action_bins.grid,
    )
    processor = UniDiffProcessor(
        image_processor=UniDiffImageProcessor(size={"height": height, "width": width}),
        tokenizer=old.tokenizer,
        token_layout=layout,
        action_bins=action_bins,
        state_bins=state_bins,
        image_model=old.image_tokenizer,
    )
    base.model.config.token_layout = layout.to_dict()
    return Parts(base.model, processor)


def _bins(
    config: UniDiffVLAConfig, old: UniDiffProcessor, statistics: Statistics | None
) -> tuple[Any, Any]:
    """(action bins, state bins or None) of these dimensions: those there are, or a data set's."""
    actions, states = old.bins_of("action"), old.bins_of("state")
    wanted = ((config.chunk_size, config.action_dim), config.state_dim)
    if statistics is None:
        if (actions.shape, states.dim) != wanted:
            raise ValueError(
                "the statistics of a data set are missing, and the bundled checkpoint's bins, "
                f"(horizon, action), state = {(actions.shape, states.dim)}, do not fit {wanted}: "
                "train with lerobot-train first, then pass --policy.path"
            )
        return actions, states
    if actions.shape != wanted[0]:
        actions = bins_from(statistics, "action", config, actions.num_codes, config.chunk_size)
    actions = _fitted(actions, statistics, "action", config)
    if config.state_dim is None:
        return actions, None
    if states.dim != config.state_dim:
        states = bins_from(statistics, "observation.state", config, states.num_codes)
    return actions, _fitted(states, statistics, "observation.state", config)


def _fitted(old: Any, statistics: Statistics, name: str, config: UniDiffVLAConfig) -> Any:
    """Bins that suit a data set: the old ones if they do, for the weights know what they mean.

    Tokenizers of other kinds than bins keep their ranges, which statistics cannot replace.
    """
    if not isinstance(old, BinTokenizer):
        return old
    new = bins_from(statistics, name, config, old.num_bins, old.horizon)
    if _suits(old, new):
        return old
    logger.info("bins of %s are fitted to the data set: %s to %s", name, new.low, new.high)
    return new


def _suits(old: BinTokenizer, new: BinTokenizer) -> bool:
    """Whether old bins hold the new range, up to one bin, and resolve it well enough."""
    low, high = np.array(old.low), np.array(old.high)
    new_low, new_high = np.array(new.low), np.array(new.high)
    width = high - low
    is_inside = (new_low >= low - width / old.num_bins) & (new_high <= high + width / old.num_bins)
    return bool((is_inside & (new_high - new_low >= _LEAST_SHARE * width)).all())


def bins_from(
    statistics: Statistics,
    name: str,
    config: UniDiffVLAConfig,
    num_bins: int,
    horizon: int | None = None,
) -> BinTokenizer:
    """Bins over the range that a data set's statistics give for a feature.

    Raises:
        ValueError: if the statistics are missing, of another shape or not finite.
    """
    ends = RANGES[config.bin_statistics]
    found = statistics.get(name, {})
    if missing := [end for end in ends if end not in found]:
        raise ValueError(
            f"meta/stats.json must hold {list(ends)} of {name!r}; missing are {missing}, there are "
            f"{sorted(found)}: have lerobot compute them again, or pass --policy.bin_statistics="
            f"{'min_max' if config.bin_statistics == 'q01_q99' else 'q01_q99'}"
        )
    low, high = (np.asarray(found[end], dtype=np.float64).reshape(-1) for end in ends)
    dim = config.action_dim if name == "action" else config.state_dim
    if len(low) != dim or len(high) != dim:
        raise ValueError(
            f"statistics of {name!r} must have {dim} values; got {len(low)} and {len(high)}"
        )
    ranges = tuple(low.tolist()), tuple(high.tolist())
    return BinTokenizer(*ranges, num_bins, horizon, statistics=config.bin_statistics)
