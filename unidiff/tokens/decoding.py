"""From ids back to text, pictures and actions: any ids give a valid answer.

Special and unknown ids are left out of a text; ids of another modality are clamped.
"""

# Shapes: B batch, L sequence, K canvas, T timesteps, D dimensions.

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .action_tokenizer import ActionTokenizer
from .image_processing import UniDiffImageProcessor
from .image_tokenizer import ImageTokenizer
from .layout import TokenLayout
from .prompts import canvas_modalities, canvases_of
from .sequence import TokenSequence
from .text import decode_plain


def as_ids(ids: ArrayLike | Tensor) -> NDArray[np.int64]:
    """Ids as an int64 array; raises TypeError if they are not integers."""
    array = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"token ids must be integers, got {array.dtype}")
    return array.astype(np.int64)


def decode_text(
    tokenizer: PreTrainedTokenizerBase,
    layout: TokenLayout,
    ids: ArrayLike | Tensor,
    skip_special_tokens: bool = True,
) -> str:
    """Text of the ids; what is no text (codes, unknown ids) is left out.

    Args:
        tokenizer: the text tokenizer.
        layout: tells text from the other modalities.
        ids: (L,) integers.
        skip_special_tokens: leave out special tokens instead of spelling them out.
    """
    array = as_ids(ids).reshape(-1)
    text = layout.range_of("text")
    is_kept = (array >= text.start) & (array < min(text.stop, len(tokenizer)))
    if skip_special_tokens:
        is_kept &= ~np.isin(array, layout.special_ids)
        return decode_plain(tokenizer, array[is_kept].tolist())
    names = layout.delimiter_names
    cuts = np.flatnonzero(np.isin(array, list(names)))
    texts = [
        decode_plain(tokenizer, array[first:stop][is_kept[first:stop]].tolist())
        for first, stop in zip([0, *(cuts + 1)], [*cuts, len(array)], strict=True)
    ]
    spelled = [names[int(array[cut])] for cut in cuts]
    return "".join(part for pair in zip(texts, [*spelled, ""], strict=True) for part in pair)


def select_codes(
    layout: TokenLayout, modality: str, ids: ArrayLike | Tensor, count: int
) -> NDArray[np.int64]:
    """(count,) codes of one image or action chunk; ids of another modality are clamped.

    Args:
        layout: id ranges.
        modality: whose codes.
        ids: (count,) integers; or more, of which exactly `count` lie in the modality's range,
            such as a whole sequence with one image in it.
        count: codes wanted.

    Raises:
        ValueError: if there are more or fewer: half an action chunk is no action.
    """
    array = as_ids(ids).reshape(-1)
    if len(array) != count:
        id_range = layout.range_of(modality)
        array = array[(array >= id_range.start) & (array < id_range.stop)]
    if len(array) != count:
        raise ValueError(
            f"{modality} needs {count} ids, got {as_ids(ids).size} of which {len(array)} are "
            f"{modality} ids: pass the ids of one {modality}"
        )
    return layout.decode(modality, array)


def until_end(layout: TokenLayout, ids: ArrayLike | Tensor) -> NDArray[np.int64]:
    """The ids before the first one that ends a turn."""
    array = as_ids(ids).reshape(-1)
    ends = np.flatnonzero(np.isin(array, layout.end_token_ids))
    return array[: ends[0]] if len(ends) else array


class AnswerDecoder:
    """The decoding half of `UniDiffProcessor`, which provides the attributes."""

    tokenizer: PreTrainedTokenizerBase
    layout: TokenLayout
    image_processor: UniDiffImageProcessor
    image_tokenizer: ImageTokenizer
    bins_of: Callable[[str], ActionTokenizer]
    modality: Callable[[str], Any]

    def decode_text(self, ids: ArrayLike | Tensor) -> str:
        """Text of (L,) ids up to the end of the turn, special tokens and codes left out."""
        return decode_text(self.tokenizer, self.layout, until_end(self.layout, ids))

    def decode_image(self, ids: ArrayLike | Tensor) -> Image.Image:
        """RGB picture of the (h * w,) ids of one image, or of a sequence with one image in it.

        Raises:
            ValueError: if there are more or fewer ids than one image has.
        """
        grid = self.layout.image_grid
        codes = select_codes(self.layout, "image", ids, math.prod(grid))
        model = self.image_tokenizer
        batch = torch.from_numpy(codes)[None].to(model.device)
        pictures = self.image_processor.postprocess(model.decode_image_tokens(batch, grid))
        return pictures[0]

    def decode_actions(self, ids: ArrayLike | Tensor) -> NDArray[np.float32]:
        """(T, D) action chunk of its T * D ids, or of a sequence with one chunk in it.

        Raises:
            ValueError: if there are more or fewer ids than one chunk has.
        """
        bins = self.bins_of("action")
        return bins.decode(select_codes(self.layout, "action", ids, bins.num_tokens))

    def decode(self, ids: ArrayLike | Tensor, skip_special_tokens: bool = True) -> str:
        """Text of (L,) ids from the first to the last, codes left out."""
        return decode_text(self.tokenizer, self.layout, ids, skip_special_tokens)

    def batch_decode(
        self, sequences: ArrayLike | Tensor, skip_special_tokens: bool = True
    ) -> list[str]:
        """`decode` of each row."""
        return [self.decode(row, skip_special_tokens) for row in sequences]  # type: ignore[union-attr]

    def post_process(self, output: Any, inputs: Mapping[str, Any]) -> list[Any]:
        """Answer of each row of `generate(**inputs)`.

        Args:
            output: what `generate` returned: (B, L + generated) ids, or an object with `sequences`.
            inputs: what a `for_...` method returned.

        Returns:
            For each row a str, a PIL image, a (T, D) array, or what a further modality decodes to;
            for a canvas with several modalities a dictionary of them by modality.

        Raises:
            ValueError: if a canvas did not come back whole.
        """
        sequences = as_ids(getattr(output, "sequences", output))
        generated = sequences[:, inputs["input_ids"].shape[1] :]
        if "canvas" not in inputs:
            return [self.decode_text(row) for row in generated]
        rows = zip(generated, canvases_of(inputs), strict=True)
        return [self._answer(row, canvas) for row, canvas in rows]

    def decode_response(self, ids: ArrayLike | Tensor, inputs: Mapping[str, Any]) -> Any:
        """As `post_process`, of the generated ids of a single row.

        Args:
            ids: (G,) integers.
            inputs: the request of that row alone.
        """
        prompt = as_ids(inputs["input_ids"])
        return self.post_process(np.concatenate([prompt, as_ids(ids)[None]], axis=1), inputs)[0]

    def decode_value(self, modality: str, ids: ArrayLike | Tensor) -> Any:
        """Value of the ids of one text, image, action chunk, state or further modality.

        Raises:
            ValueError: if the number of ids is wrong, or the layout has no such modality.
        """
        if modality == "text":
            return self.decode_text(ids)
        if modality == "image":
            return self.decode_image(ids)
        if modality == "action":
            return self.decode_actions(ids)
        if modality == "state":
            return self.bins_of("state").decode(self.layout.decode("state", as_ids(ids)))
        grid, own = self.layout.grid_of(modality), self.layout.range_of(modality)
        array = as_ids(ids).reshape(-1)
        count = math.prod(grid or (int(((array >= own.start) & (array < own.stop)).sum()),))
        return self.modality(modality).decode(select_codes(self.layout, modality, array, count))

    def _answer(self, ids: NDArray[np.int64], canvas: TokenSequence) -> Any:
        """Answer of one filled canvas; a text that may have changed its length ends at its end."""
        names = canvas_modalities(canvas, self.layout)
        if names == ["text"] and self.layout.expand_token_id is not None:
            return self.decode_text(ids)
        if len(ids) < len(canvas):
            raise ValueError(f"a canvas of {len(canvas)} tokens came back with {len(ids)}")
        answers = {}
        for name in names:
            here = canvas.modality_L == self.layout.modality_id(name)
            answers[name] = self.decode_value(name, ids[: len(canvas)][here])
        return next(iter(answers.values())) if len(answers) == 1 else answers
