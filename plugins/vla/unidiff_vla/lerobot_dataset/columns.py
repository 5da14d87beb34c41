"""Arrays <-> columns of a parquet table: pictures as PNG, vectors as lists of fixed length."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from .features import IMAGE, Feature

_IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def column_of(feature: Feature, values: np.ndarray) -> pa.Array:
    """The column of (T, *shape) values; vectors of one number become plain numbers."""
    if feature.dtype == IMAGE:
        pictures = [{"bytes": _png_of(picture), "path": None} for picture in values]
        return pa.array(pictures, type=_IMAGE_TYPE)
    flat = pa.array(values.reshape(-1), type=pa.from_numpy_dtype(feature.numpy_dtype))
    is_single = feature.shape == (1,)
    return flat if is_single else pa.FixedSizeListArray.from_arrays(flat, feature.shape[0])


def array_of(name: str, feature: Feature, column: Any) -> np.ndarray:
    """The (T, *shape) values of a column.

    Raises:
        ValueError: if a value is missing, a picture cannot be read or has another size, or a list
            has another length.
    """
    if column.null_count:
        raise ValueError(
            f"expected a value in every frame of {name!r}; {column.null_count} of {len(column)} "
            "are missing. Drop the episode or record it again"
        )
    if feature.dtype == IMAGE:
        return _pictures_of(name, feature, column.to_pylist())
    width = feature.shape[0]
    if pa.types.is_fixed_size_list(column.type) and column.type.list_size == width:
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return flat.astype(feature.numpy_dtype).reshape(-1, width)
    values = column.to_pylist()
    widths = {1 if np.ndim(value) == 0 else len(value) for value in values}
    if widths != {width}:
        raise ValueError(
            f"expected {width} numbers in every frame of {name!r}, as meta/info.json says; got "
            f"{sorted(widths)}. Correct the shape, or drop the episode"
        )
    return np.array(values, dtype=feature.numpy_dtype).reshape(-1, width)


def hub_features(features: Mapping[str, Feature]) -> dict[str, Any]:
    """The schema as the package `datasets` keeps it in the parquet metadata `huggingface`."""
    return {"info": {"features": {name: _hub_type(one) for name, one in features.items()}}}


def _hub_type(feature: Feature) -> dict[str, Any]:
    if feature.dtype == IMAGE:
        return {"_type": "Image"}
    value = {"dtype": feature.dtype, "_type": "Value"}
    if feature.shape == (1,):
        return value
    return {"feature": value, "length": feature.shape[0], "_type": "List"}


def _png_of(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def _pictures_of(name: str, feature: Feature, values: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The pictures of a column; one that repeats the frame before is not decoded again."""
    pictures: list[np.ndarray] = []
    for place, value in enumerate(values):
        is_repeated = place > 0 and value == values[place - 1]
        pictures.append(pictures[-1] if is_repeated else _picture_of(name, feature, value))
    return np.stack(pictures)


def _picture_of(name: str, feature: Feature, value: Mapping[str, Any]) -> np.ndarray:
    if not value.get("bytes"):
        raise ValueError(
            f"expected the bytes of a PNG in {name!r}; got a path {value.get('path')!r}. Pictures "
            "beside the table are not read: embed them"
        )
    try:
        with Image.open(io.BytesIO(value["bytes"])) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError) as error:  # Pillow says SyntaxError of a broken PNG
        raise ValueError(f"expected a readable picture in {name!r}; {error}") from error
    if pixels.shape != feature.shape:
        raise ValueError(
            f"expected pictures of {feature.shape} in {name!r}, as meta/info.json says; got "
            f"{pixels.shape}"
        )
    return pixels
