"""What one can ask of a model, as the arguments of `generate()`: chat, draw, act, fill holes.

Every prompt is the beginning of the sequence that training makes of the same conversation. The
encoder and the codes come from the processor, which inherits from `RequestBuilders`.
"""

# Shapes: B batch, L prompt, K canvas, h x w image codes.

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase

from .foreign_chat import encoder_for
from .image_processing import UniDiffImageProcessor
from .infill import infill_sequence, split_at_markers
from .layout import TokenLayout
from .prompts import batch_prompts, empty_canvas, infill_inputs, prompts_with_canvases, stacked
from .sequence import SequenceEncoder, TokenSequence, join, run_of

Conversation = Sequence[Mapping[str, Any]]


class RequestBuilders:
    """The `for_...` methods of `UniDiffProcessor`; each returns what `generate()` takes."""

    tokenizer: PreTrainedTokenizerBase
    chat_template: str
    _encoder: SequenceEncoder | None
    layout: TokenLayout
    image_processor: UniDiffImageProcessor
    coded: Callable[[Conversation], list[dict[str, Any]]]
    soft_inputs: Callable[[Sequence[Sequence[Mapping[str, Any]]]], dict[str, Any]]
    picture: Callable[[Any], Image.Image]
    image_codes: Callable[[Any], NDArray[np.int64]]

    @property
    def encoder(self) -> SequenceEncoder:
        """Encoder of conversations whose parts carry codes; training uses the same class."""
        if self._encoder is None or self._encoder.chat_template != self.chat_template:
            self._encoder = encoder_for(self.tokenizer, self.layout, self.chat_template)
        return self._encoder

    def build(
        self,
        conversations: Conversation | Sequence[Conversation],
        want: str | Sequence[str] = "text",
    ) -> BatchFeature:
        """Arguments of `generate()` for an answer to each conversation.

        Args:
            conversations: one conversation or several; see `UniDiffProcessor.apply_chat_template`.
            want: "text", or a modality whose values have a grid: "image", "action", ...; or several
                such modalities, which share one canvas in that order and are denoised together.

        Returns:
            `BatchFeature` of input_ids and attention_mask, (B, L); unless text is wanted also
            canvas, pinned_mask and canvas_modality_ids, (B, K). Where pictures are read as features
            also pixel_values and their shapes.

        Raises:
            ValueError: if `want` is unknown or a conversation is empty or malformed.
        """
        names = [n for n in self.layout.modalities if self.layout.grid_of(n)]
        wanted = [want] if isinstance(want, str) else list(want)
        is_good = wanted and not set(wanted) - set(names) and len(set(wanted)) == len(wanted)
        if wanted != ["text"] and not is_good:
            raise ValueError(
                f"want must be 'text', or one or more of {tuple(names)}, each once; got {want!r}"
            )
        for name in wanted:
            self.layout.range_of(name)  # says what to do where there is none
        coded = [self.coded(messages) for messages in as_batch(conversations)]
        prompts = [self.encoder.conversation(messages, True, wanted) for messages in coded]
        if wanted == ["text"]:
            return BatchFeature(batch_prompts(prompts, self.layout) | self.soft_inputs(coded))
        canvas = self._empty_canvas(wanted)
        if self.layout.has_bare_pictures:
            return prompts_with_canvases(prompts, [canvas] * len(prompts), self.layout)
        opening = run_of([self.encoder.delimiters(wanted[0])[0]], "text")
        if self.layout.opens_canvas:
            canvas = opening + canvas
        else:
            prompts = [prompt + opening for prompt in prompts]
        return prompts_with_canvases(prompts, [canvas] * len(prompts), self.layout)

    def for_chat(self, messages: Conversation | Sequence[Conversation]) -> BatchFeature:
        """Prompt of a text answer to a conversation, or to each of several."""
        return self.build(messages, want="text")

    def for_completion(self, text: str | Sequence[str]) -> BatchFeature:
        """Prompt that a text continues: `<|bos|>` and the text; "" asks for any text."""
        texts = [text] if isinstance(text, str) else list(text)
        if not all(isinstance(one, str) for one in texts):
            raise TypeError("text must be a str or a list of str")
        return BatchFeature(batch_prompts([self._opened(one) for one in texts], self.layout))

    def for_image(self, prompt: str | Conversation | Sequence[str | Conversation]) -> BatchFeature:
        """Prompt and empty canvas of a drawing; a str is a user's turn, a list of str a batch."""
        requests = _as_requests(prompt)
        chats = [_one_turn(one) if isinstance(one, str) else one for one in requests]
        return self.build(chats, want="image")

    def for_dropped_condition(self, want: str | Sequence[str] = "image") -> BatchFeature:
        """Prompt of guidance's weaker branch: a request that says nothing, as in training."""
        dropped = self.build(_one_turn([{"type": "uncond"}]), want)
        return BatchFeature({name: dropped[name] for name in ("input_ids", "attention_mask")})

    def for_action(self, image: Any, state: ArrayLike | None, instruction: str) -> BatchFeature:
        """Prompt and empty canvas of one action chunk.

        Args:
            image: what the camera sees, any form of a content part's image; of several cameras a
                list, or a dictionary by camera, in the order of training. At least one.
            state: (D,) hand position; None leaves it out.
            instruction: what to do.

        Raises:
            ValueError: if there is no image, or the checkpoint knows no actions.
        """
        content: list[dict[str, Any]] = [_image_part(one) for one in _views(image)]
        if state is not None:
            content.append({"type": "state", "state": state})
        content.append({"type": "text", "text": instruction})
        return self.build(_one_turn(content), want="action")

    def for_text_infill(
        self, text: str | Sequence[str | int], hole_length: int = 4
    ) -> BatchFeature:
        """Canvas of a text with holes, of fixed length or, for DreamOn, of one to begin with.

        Where the layout has an expand token, holes grow and shrink up to `max_infill_tokens` of
        `generate()` together, and `post_process` gives the text that came of it.

        Args:
            text: a str with `<|hole|>` where a hole of `hole_length` tokens is; or a list of str
                and int, where an int is a hole of that many tokens.
            hole_length: tokens of each marked hole.
        """
        pieces = split_at_markers(text, hole_length) if isinstance(text, str) else list(text)
        return self._infill([{"type": "text", "text": pieces}])

    def for_image_infill(
        self, image: Any, hole: ArrayLike, text: str | None = None
    ) -> BatchFeature:
        """Canvas of an image with a hole; a text given with it is pinned.

        Args:
            image: any form of a content part's image.
            hole: bool, True where the image is unknown: one entry per code (h, w), per pixel of the
                processor's size, or per pixel of the image.
            text: caption that the image shall fit.
        """
        parts = [self._image_with_hole(image, hole)]
        if text is not None:
            parts.append({"type": "text", "text": [text]})
        return self._infill(parts)

    def for_joint_infill(
        self,
        image: Any,
        hole: ArrayLike | None,
        text: str | Sequence[str | int],
        hole_length: int = 4,
    ) -> BatchFeature:
        """Canvas of an image and a text of which either may have holes; arguments as above.

        Args:
            image: see `for_image_infill`.
            hole: see `for_image_infill`; None for a known image.
            text: see `for_text_infill`; a str without a marker is known.
            hole_length: tokens of each marked hole.
        """
        pieces = list(text)
        if isinstance(text, str):
            pieces = split_at_markers(text, hole_length, allow_none=True)
        known = np.zeros(self.layout.image_grid, dtype=bool)
        return self._infill(
            [
                self._image_with_hole(image, known if hole is None else hole),
                {"type": "text", "text": pieces},
            ]
        )

    def batch(self, requests: Sequence[BatchFeature]) -> BatchFeature:
        """One batch of several requests, all with a canvas or all without; lengths may differ."""
        return stacked(requests, self.layout)

    def _empty_canvas(self, wanted: Sequence[str]) -> TokenSequence:
        """Whole values of several modalities, of which nothing is known, one after the other."""
        pieces = [empty_canvas(wanted[0], self.layout)]
        for before, name in pairwise(wanted):
            between = [self.encoder.delimiters(before)[1], self.encoder.delimiters(name)[0]]
            pieces += [run_of(between, "text"), empty_canvas(name, self.layout)]
        if self.layout.closes_canvas:
            pieces.append(run_of([self.encoder.delimiters(wanted[-1])[1]], "text"))
        if self.layout.canvas_end_token_id is not None:
            pieces.append(run_of([self.layout.canvas_end_token_id], "text"))
        return join(pieces)

    def _infill(self, parts: list[dict[str, Any]]) -> BatchFeature:
        """Arguments of `generate()` for the parts of one infilling."""
        return infill_inputs(infill_sequence(self.encoder, parts), self.layout)

    def _opened(self, text: str) -> TokenSequence:
        """A text behind the token that begins every sequence."""
        return self.encoder.beginning() + self.encoder.text(text)

    def _image_with_hole(self, image: Any, hole: ArrayLike) -> dict[str, Any]:
        """The infilling part of an image and its mask."""
        codes_given = isinstance(image, Mapping) and image.get("codes") is not None
        if isinstance(image, Mapping) and not codes_given:
            image = image.get("image", image.get("path"))
        picture = None if codes_given else self.picture(image)
        is_hole = hole_codes(hole, self.layout.image_grid, self.image_processor, picture)
        codes = self.image_codes(image if codes_given else picture)
        return {"type": "image", "codes": codes, "is_hole": is_hole}


def as_batch(conversations: Any) -> list[Conversation]:
    """One conversation, or several, as a list of conversations.

    Raises:
        TypeError: if it is neither.
        ValueError: if there is nothing in it.
    """
    if isinstance(conversations, (str, Mapping)) or not isinstance(conversations, Sequence):
        raise TypeError(
            "a conversation must be a list of messages such as "
            f"{{'role': 'user', 'content': 'hello'}}, got {type(conversations).__name__}"
        )
    batch = [conversations] if is_conversation(conversations) else list(conversations)
    if not batch or not all(len(conversation) for conversation in batch):
        raise ValueError("a conversation needs at least one message, got none")
    if not all(is_conversation(conversation) for conversation in batch):
        raise TypeError("every conversation must be a list of messages with 'role' and 'content'")
    return batch


def turns(text: str | Sequence[str] | None, images: Any) -> list[Conversation]:
    """One user's turn per text, with its image before it."""
    texts = [text] if isinstance(text, str) else list(text or [])
    pictures = list(images) if isinstance(images, (list, tuple)) else [images]
    if len(texts) != len(pictures):
        raise ValueError(
            f"text and images must be as many, got {len(texts)} and {len(pictures)}: use messages "
            "for several images in one turn"
        )
    return [
        _one_turn([{"type": "image", "image": picture}, {"type": "text", "text": one}])
        for one, picture in zip(texts, pictures, strict=True)
    ]


def hole_codes(
    hole: ArrayLike,
    grid: tuple[int, int],
    image_processor: UniDiffImageProcessor,
    picture: Image.Image | None = None,
) -> NDArray[np.bool_]:
    """(h, w) bool: codes of which at least one pixel is unknown.

    Args:
        hole: bool mask of shape (h, w), of the processor's size, or of the image's size.
        grid: (h, w).
        image_processor: places the mask as it places the image.
        picture: the image, if it is known.

    Raises:
        TypeError: if the mask is not bool.
        ValueError: if it has another shape.
    """
    mask = np.asarray(hole)
    if mask.dtype != np.bool_:
        raise TypeError(f"a hole mask must be bool, True where unknown; got {mask.dtype}")
    size = image_processor.size
    shapes = [tuple(grid), (size["height"], size["width"])]
    if picture is not None:
        shapes.append((picture.height, picture.width))
    if mask.shape not in shapes:
        raise ValueError(f"a hole mask must have one of the shapes {shapes}, got {mask.shape}")
    if mask.shape == shapes[0]:
        return mask
    pixels = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    placed, nothing = image_processor(
        [pixels, np.zeros_like(pixels)], return_tensors="np", pad_value=0
    )["pixel_values"][:, 0]
    is_hole: NDArray[np.bool_] = placed > nothing
    rows, columns = is_hole.shape[0] // grid[0], is_hole.shape[1] // grid[1]
    by_code = is_hole.reshape(grid[0], rows, grid[1], columns)
    return np.asarray(by_code.any(axis=(1, 3)))


def is_conversation(value: Any) -> bool:
    """Whether this is a non-empty list of messages."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in value)
    )


def _as_requests(prompt: Any) -> list[Any]:
    """One request, or several, as a list."""
    is_batch = isinstance(prompt, Sequence) and not isinstance(prompt, str)
    return list(prompt) if is_batch and not is_conversation(prompt) else [prompt]


def _one_turn(content: str | list[dict[str, Any]]) -> Conversation:
    """A conversation in which the user has said this."""
    return [{"role": "user", "content": content}]


def _views(image: Any) -> list[Any]:
    """The image of each camera; a dictionary with a type is one image's content part."""
    if isinstance(image, Mapping) and "type" not in image:
        image = list(image.values())
    views = list(image) if isinstance(image, (list, tuple)) else [image]
    if not views:
        raise ValueError("an action needs at least one image, got none")
    return views


def _image_part(image: Any) -> dict[str, Any]:
    """Content part of an image in any form."""
    return dict(image) if isinstance(image, Mapping) else {"type": "image", "image": image}
