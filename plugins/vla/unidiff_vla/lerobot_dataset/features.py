"""What a frame holds: names, dtypes and shapes, as `meta/info.json` says them.

Four features of every data set are ours to fill: `timestamp`, `frame_index`, `episode_index`,
`index`, and with them `task_index`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

IMAGE = "image"
FRESH = "observation.is_fresh"  # (1,) bool of ours: False where a picture is an earlier step's
NUMBERS = ("float32", "float64", "int64", "int32", "bool", "uint8")


@dataclass(frozen=True)
class Feature:
    """One column of a data set.

    Attributes:
        dtype: "image", or a numpy name out of `NUMBERS`.
        shape: (H, W, 3) of an image, (n,) of numbers.
        names: of the parts of a vector or of the image's sides; None where there are none.

    Raises:
        ValueError: if dtype and shape do not belong together.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        rank = 3 if self.dtype == IMAGE else 1
        if self.dtype not in (IMAGE, *NUMBERS) or len(self.shape) != rank:
            raise ValueError(
                f"expected a feature of dtype image with shape (H, W, 3), or of {NUMBERS} with "
                f"shape (n,); got {self.dtype=} {self.shape=}. Videos are not read: convert the "
                "data set to images (use_videos=False)"
            )

    @property
    def numpy_dtype(self) -> np.dtype:
        """Dtype of the feature's arrays."""
        return np.dtype(np.uint8 if self.dtype == IMAGE else self.dtype)

    def to_json(self) -> dict[str, Any]:
        """As in `meta/info.json`."""
        names = None if self.names is None else list(self.names)
        return {"dtype": self.dtype, "shape": list(self.shape), "names": names}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Feature":
        """Of an entry of `meta/info.json`; names given as a dict are dropped."""
        names = entry.get("names")
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return cls(entry["dtype"], tuple(entry["shape"]), tuple(names or ()) if is_list else None)


INDEX_FEATURES = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}


def image_feature(height: int, width: int) -> Feature:
    """The feature of a camera."""
    return Feature(IMAGE, (height, width, 3), ("height", "width", "channels"))


def check_frames(features: Mapping[str, Feature], frames: Mapping[str, np.ndarray]) -> int:
    """The number of frames T of an episode, after a look at every array.

    Args:
        features: what is expected, without `INDEX_FEATURES`.
        frames: name -> (T, *shape).

    Raises:
        ValueError: if a name is missing or unknown, an array has another shape, length or dtype,
            or holds a number that is not finite.
    """
    missing, unknown = set(features) - set(frames), set(frames) - set(features)
    if missing or unknown:
        raise ValueError(
            f"expected the features {sorted(features)}; missing {sorted(missing)}, unknown "
            f"{sorted(unknown)}"
        )
    lengths = {name: len(values) for name, values in frames.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"expected one length >= 1 of all features of an episode; got {lengths}")
    for name, values in frames.items():
        check_array(name, features[name], values)
    return next(iter(lengths.values()))


def check_array(name: str, feature: Feature, values: np.ndarray) -> None:
    """Refuse an array (T, *shape) that is not what a feature says.

    Raises:
        ValueError: as `check_frames`.
    """
    if values.shape[1:] != feature.shape or values.dtype != feature.numpy_dtype:
        raise ValueError(
            f"expected {name!r} as (T, {', '.join(map(str, feature.shape))}) "
            f"{feature.numpy_dtype}; got {values.shape} {values.dtype}"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        frame = int(np.argwhere(~np.isfinite(values))[0][0])
        raise ValueError(
            f"expected finite numbers in {name!r}; frame {frame} holds {values[frame].tolist()}. "
            "Drop the episode or record it again"
        )
