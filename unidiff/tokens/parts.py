"""Content parts of a message: pictures, states, actions and further modalities become codes.

Knows the values that people pass; knows nothing of ids, turns or canvases.
"""

# Shapes: h x w image codes, T timesteps, D dimensions.

import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .action_tokenizer import ActionTokenizer
from .decoding import as_ids
from .image_processing import UniDiffImageProcessor
from .image_tokenizer import ImageTokenizer
from .layout import TokenLayout
from .soft_prompts import SoftPrompts, picture_inputs

_MOST_KNOWN = 20_000  # pictures whose codes are kept: a data set is read many times
_VALUE_NAMES = {"image": ("image", "path"), "state": ("state",), "action": ("action",)}


class PartCoder:
    """The coding half of `UniDiffProcessor`, which provides the attributes."""

    layout: TokenLayout
    image_processor: UniDiffImageProcessor
    image_tokenizer: ImageTokenizer
    action_bins: ActionTokenizer | None
    state_bins: ActionTokenizer | None
    modality: Callable[[str], Any]
    soft_prompts: SoftPrompts | None
    _known_codes: dict[bytes, NDArray[np.int64]]

    def image_codes(self, image: Any) -> NDArray[np.int64]:
        """(h * w,) codes of one picture.

        Args:
            image: PIL image of any mode, array, tensor, path, or {"codes": (h, w) or (h * w,)}.

        Raises:
            TypeError: if it is not an image.
            ValueError: if it cannot be one, or the number of codes is wrong.
        """
        if isinstance(image, Mapping):
            codes: NDArray[np.int64] = self.coded_part({"type": "image", **image})["codes"]
            return codes
        pixels = self.image_processor(self.picture(image), return_tensors="pt")["pixel_values"]
        key = blake2b(pixels.numpy().tobytes(), digest_size=16).digest()
        if key not in self._known_codes:
            model = self.image_tokenizer
            found = as_ids(model.get_image_tokens(pixels.to(model.device))[0])
            if len(self._known_codes) >= _MOST_KNOWN:
                self._known_codes.clear()
            self._known_codes[key] = found
        return self._known_codes[key].copy()

    def picture(self, image: Any) -> Image.Image:
        """RGB picture, in its own size, of a PIL image of any mode, an array, a tensor or a path.

        Raises:
            TypeError: if it is not an image.
            ValueError: if it cannot be one, or the file holds none.
            FileNotFoundError: if there is no such file.
        """
        if isinstance(image, (str, Path)):
            image = _opened(image)
        channels = self.image_processor.process_image(image, self.image_processor.pad_value)
        return Image.fromarray(np.ascontiguousarray(np.moveaxis(channels, 0, -1)))

    def coded(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The conversation with every value but text replaced by its codes."""
        coded = []
        for message in messages:
            content = message["content"]
            if content is None:
                raise ValueError(
                    f"a message's content must be a str or a list of parts, got None: {message!r}"
                )
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            parts = [self.coded_part(part) for part in content]
            coded.append({"role": message["role"], "content": parts})
        return coded

    def coded_part(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """One content part as `SequenceEncoder` takes it: text, or codes of the right number.

        Raises:
            TypeError: if the part is no mapping or a text is no str.
            ValueError: if the value is missing, not finite, or the number of codes wrong.
        """
        if not isinstance(part, Mapping):
            raise TypeError(f"a content part must be a dict with a 'type', got {part!r}")
        kind = part.get("type")
        if kind == "text" and not isinstance(part.get("text"), str):
            raise TypeError(f"a text part needs a str under 'text', got {part.get('text')!r}")
        if kind == "text" or kind not in self.layout.modalities:
            return dict(part)
        if kind == "image" and self.soft_prompts is not None:
            return self._soft_part(part, self.soft_prompts)
        codes = part.get("codes")
        codes = as_ids(self._codes_of(kind, part) if codes is None else codes).reshape(-1)
        count = self._num_codes(kind)
        if count is not None and len(codes) != count:
            raise ValueError(f"{kind} needs {count} codes, got {len(codes)}")
        return {"type": kind, "codes": codes}

    def soft_inputs(self, coded: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Tensor]:
        """Arguments of `generate()` for the pictures of coded conversations; often none."""
        pictures = [
            part["soft"]
            for messages in coded
            for message in messages
            for part in message["content"]
            if "soft" in part
        ]
        if self.soft_prompts is None:
            return {}
        return picture_inputs(pictures, self.soft_prompts.shape_name)

    def _soft_part(self, part: Mapping[str, Any], soft_prompts: SoftPrompts) -> dict[str, Any]:
        """The part of a picture that is read as features."""
        if part.get("codes") is not None:
            raise ValueError("this checkpoint reads pictures as features: pass the image, no codes")
        picture = self.picture(_value_of("image", part))
        around = soft_prompts.opening, soft_prompts.closing
        return {"type": "image", "soft": soft_prompts(picture), "around": around}

    def bins_of(self, modality: str) -> ActionTokenizer:
        """Tokenizer of "action" or "state"; raises ValueError if the checkpoint has none."""
        bins = self.action_bins if modality == "action" else self.state_bins
        if bins is None:
            raise ValueError(
                f"this processor has no {modality}_bins: load a checkpoint trained with {modality}s"
            )
        return bins

    def _codes_of(self, kind: str, part: Mapping[str, Any]) -> NDArray[np.int64]:
        """Codes of the value that a part carries."""
        value = _value_of(kind, part)
        if kind == "image":
            return self.image_codes(value)
        coder = self.bins_of(kind) if kind in _VALUE_NAMES else self.modality(kind)
        codes: NDArray[np.int64] = coder.encode(value)
        return codes

    def _num_codes(self, kind: str) -> int | None:
        """Codes of one value; None for a modality without a grid, whose lines have any length."""
        self.layout.range_of(kind)
        grid = self.layout.grid_of(kind)
        if grid is not None:
            return math.prod(grid)
        return self.bins_of(kind).num_tokens if kind in _VALUE_NAMES else None


def _value_of(kind: str, part: Mapping[str, Any]) -> Any:
    """The value that a part carries; raises ValueError if there is none."""
    names = _VALUE_NAMES.get(kind, (kind,))
    value = next((part[name] for name in names if part.get(name) is not None), None)
    if value is None:
        raise ValueError(
            f"a part of type {kind!r} needs one of {(*names, 'codes')}, got {sorted(part)}"
        )
    return value


def _opened(path: str | Path) -> Image.Image:
    """The picture in a file; ValueError names a file that holds none."""
    try:
        with Image.open(path) as opened:
            return opened.copy()
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no picture, or damaged or cut short ({error})") from error
