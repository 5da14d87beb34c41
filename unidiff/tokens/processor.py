"""The processor: conversations, pictures and states become ids, and any ids become answers.

Holds the text tokenizer, the image processor, the image tokenizer (in the sub-folder
`image_tokenizer/`), the token layout and the bins. What a user writes is always plain text: only
the template writes special tokens.
"""

# Shapes: B batch, L prompt, h x w image codes, T timesteps, D dimensions.

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from .action_kinds import action_tokenizer
from .action_tokenizer import ActionTokenizer
from .checkpoint import (
    IMAGE_TOKENIZER_FOLDER,
    check_processor_folder,
    check_template,
)
from .decoding import AnswerDecoder
from .foreign import PICKLES, converting, hub_options, is_foreign, local_folder
from .image import FSQImageTokenizerConfig
from .image_loading import load_image_tokenizer
from .image_processing import UniDiffImageProcessor
from .image_tokenizer import ImageTokenizer
from .layout import TokenLayout
from .modalities import FurtherModalities
from .parts import PartCoder
from .prompts import batch_prompts, converted, layout_for_tokenizer, left_padded
from .requests import Conversation, RequestBuilders, as_batch, is_conversation, turns
from .sequence import CHAT_TEMPLATE
from .soft_prompts import SoftPrompts
from .soft_prompts import soft_prompts as as_soft_prompts


class UniDiffProcessor(
    RequestBuilders, PartCoder, AnswerDecoder, FurtherModalities, ProcessorMixin
):
    """Everything between what people use and token ids.

    Args:
        image_processor: a default one when None.
        tokenizer: text tokenizer with the special tokens of `unidiff.tokens.text`.
        chat_template: Jinja template; `sequence.CHAT_TEMPLATE` when None.
        token_layout: `TokenLayout` or its dictionary; None derives one from the other arguments.
        action_bins: what codes action chunks, an `ActionTokenizer` (bins, DCT, FAST) with a horizon
            and a fixed number of codes, or its dictionary; None without actions.
        state_bins: `BinTokenizer` without horizon, or its dictionary; None without states.
        image_model: the image tokenizer; None without images, or to set `image_tokenizer` later.
        soft_prompts: how pictures are read as features of a tower, or its dictionary; None: they
            are not.

    Raises:
        TypeError: if a part is of the wrong class.
        ValueError: if the parts do not fit the layout.
    """

    def __init__(
        self,
        image_processor: UniDiffImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        token_layout: TokenLayout | Mapping[str, Any] | None = None,
        action_bins: ActionTokenizer | Mapping[str, Any] | None = None,
        state_bins: ActionTokenizer | Mapping[str, Any] | None = None,
        image_model: ImageTokenizer | None = None,
        soft_prompts: SoftPrompts | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            image_processor or UniDiffImageProcessor(),
            tokenizer,
            chat_template=chat_template or CHAT_TEMPLATE,
        )
        self.action_bins = _as_bins(action_bins)
        self.state_bins = _as_bins(state_bins)
        if isinstance(soft_prompts, Mapping):
            soft_prompts = as_soft_prompts(soft_prompts)
        self.soft_prompts: SoftPrompts | None = soft_prompts
        self._image_tokenizer: ImageTokenizer | None = None
        self._image_source: tuple[str, dict[str, Any]] | None = None
        self._modalities = {}
        self._modality_source = None
        self._encoder = None
        self._known_codes = {}
        if token_layout is None:
            token_layout = self._derived_layout(image_model)
        if isinstance(token_layout, Mapping):
            token_layout = TokenLayout.from_dict(token_layout)
        self.layout = token_layout
        _check_bins(self.layout, "action", self.action_bins, self.layout.action_grid)
        _check_bins(self.layout, "state", self.state_bins, None)
        if image_model is not None:
            self.image_tokenizer = image_model

    @property
    def image_tokenizer(self) -> ImageTokenizer:
        """The image tokenizer, loaded on first use; raises ValueError when there is none."""
        if self._image_tokenizer is None:
            if self._image_source is None:
                raise ValueError(
                    "this processor has no image tokenizer: load it with from_pretrained from a "
                    "checkpoint that has one, pass image_tokenizer=... there for a checkpoint of "
                    "others or one that was converted without, or set processor.image_tokenizer"
                )
            source, options = self._image_source
            self.image_tokenizer = load_image_tokenizer(source, **options)
        return self._image_tokenizer  # type: ignore[return-value]

    @image_tokenizer.setter
    def image_tokenizer(self, model: ImageTokenizer) -> None:
        if not isinstance(model, ImageTokenizer):
            raise TypeError(f"image_tokenizer must be an ImageTokenizer, got {type(model)}")
        size = self.layout.range_of("image").size
        if model.codebook_size != size:
            raise ValueError(
                f"the image tokenizer has {model.codebook_size} codes but the layout's image range "
                f"holds {size}: they belong to different checkpoints"
            )
        self._image_tokenizer = model.eval()
        self._known_codes = {}

    @property
    def model_input_names(self) -> list[str]:
        """Keys of every result that a model reads."""
        return ["input_ids", "attention_mask"]

    def to_dict(self) -> dict[str, Any]:
        """Content of `processor_config.json`."""
        bins = {"action_bins": self.action_bins, "state_bins": self.state_bins}
        return {
            "processor_class": type(self).__name__,
            "image_processor": self.image_processor.to_dict(),
            "token_layout": self.layout.to_dict(),
            **{name: None if one is None else one.to_dict() for name, one in bins.items()},
            **({} if self.soft_prompts is None else {"soft_prompts": self.soft_prompts.to_dict()}),
        }

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> list[str]:
        """Write all files of the processor, those of image tokenizer and modalities included.

        Returns:
            Paths of the files, as transformers does.

        Raises:
            ValueError: if the layout has images but no image tokenizer was set.
        """
        if kwargs.get("push_to_hub"):
            raise ValueError("push_to_hub is not supported: save to a folder, then upload it")
        files: list[str] = super().save_pretrained(save_directory, **kwargs)
        if "image" in self.layout.ranges:
            folder = Path(save_directory) / IMAGE_TOKENIZER_FOLDER
            self.image_tokenizer.save_pretrained(folder)
            files += [str(folder / name) for name in ("config.json", "model.safetensors")]
        return files + self.save_modalities(Path(save_directory))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        image_tokenizer: str | Path | ImageTokenizer | None = None,
        **kwargs: Any,
    ) -> "UniDiffProcessor":
        """Processor of a checkpoint; what codes pictures and the like is loaded at first use.

        Of somebody else's checkpoint, on the disk or on the hub, it is made of their tokenizer.

        Args:
            pretrained_model_name_or_path: folder or repository of the checkpoint.
            image_tokenizer: what codes pictures, or where it is (see `load_image_tokenizer`), for a
                checkpoint of others that has rows for pictures, or one that was converted without;
                ours have theirs with them.
            kwargs: of transformers' `from_pretrained`; `use_safetensors=False` allows weights in
                pickles, as for the model: the image tokenizer's, and those whose shapes are read.

        Raises:
            FileNotFoundError: if a file is missing in a local folder.
            ValueError: if a file is damaged or cut short, or the image tokenizer has another number
                of codes than the checkpoint, or the checkpoint has its own.
        """
        allow_pickle, options = kwargs.pop("use_safetensors", None) is False, hub_options(kwargs)
        subfolder = kwargs.get("subfolder", "")
        folder = local_folder(
            pretrained_model_name_or_path, subfolder, PICKLES if allow_pickle else (), **options
        )
        if isinstance(image_tokenizer, (str, Path)):
            image_tokenizer = load_image_tokenizer(image_tokenizer, allow_pickle=allow_pickle)
        if is_foreign(folder):
            foreign: UniDiffProcessor = converting("load_foreign_processor")(
                folder, cls, image_tokenizer, allow_pickle=allow_pickle
            )
            return foreign
        if image_tokenizer is not None:
            complete: UniDiffProcessor = converting("processor_with_pictures", "records")(
                folder, image_tokenizer, cls
            )
            return complete
        if folder.is_dir():
            check_processor_folder(folder)
        processor: UniDiffProcessor = super().from_pretrained(
            pretrained_model_name_or_path, **kwargs
        )
        check_template(processor.tokenizer, processor.chat_template, folder)
        source = str(pretrained_model_name_or_path)
        processor._modality_source = (source, {"subfolder": subfolder, **options})
        if "image" in processor.layout.ranges:
            place = Path(subfolder, IMAGE_TOKENIZER_FOLDER).as_posix()
            processor._image_source = (source, {"subfolder": place, **options})
        return processor

    def __getstate__(self) -> dict[str, Any]:
        """State for pickling: the encoder's caches are rebuilt on demand."""
        return {**self.__dict__, "_encoder": None, "_known_codes": {}}

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: Any = None,
        messages: Conversation | Sequence[Conversation] | None = None,
        add_generation_prompt: bool = True,
        return_tensors: str | None = "pt",
        padding: bool | str = True,
    ) -> BatchFeature:
        """`input_ids` and `attention_mask`, (B, L), padded on the left.

        Args:
            text: without images, a text to continue (`<|bos|>` and the text); with images, what
                a user says about them. A list is a batch.
            images: one image for a text, or a list with one for each text.
            messages: one conversation or several, instead of text.
            add_generation_prompt: end conversations with the opening of the assistant's turn.
            return_tensors: "pt", "np" or None for lists.
            padding: True or "longest"; rows are always padded to the longest.

        Raises:
            ValueError: if neither or both of text and messages are given, or counts differ.
        """
        if padding not in (True, "longest"):
            raise ValueError(f"padding must be True or 'longest', got {padding!r}")
        if (text is None) == (messages is None) or (messages is not None and images is not None):
            raise ValueError("pass text, text and images, or messages (with the images in them)")
        if messages is None and images is None:
            return converted(self.for_completion(text), return_tensors)  # type: ignore[arg-type]
        if messages is None:
            messages = turns(text, images)
        result: BatchFeature = self.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, return_tensors=return_tensors
        )
        return result

    def apply_chat_template(
        self,
        conversation: Conversation | Sequence[Conversation],
        add_generation_prompt: bool = True,
        tokenize: bool = True,
        return_dict: bool = True,
        return_tensors: str | None = "pt",
        return_assistant_tokens_mask: bool = False,
    ) -> Any:
        """Conversations as ids, or as text without the codes.

        Args:
            conversation: a list of messages {"role", "content"}, or a list of such lists. Content
                is a str or a list of parts: {"type": "text", "text": str};
                {"type": "image", "image": PIL image, array or path};
                {"type": "state", "state": (D,)}; {"type": "action", "action": (T, D)}; a further
                modality's {"type": name, name: value}; all but text may carry "codes" instead.
            add_generation_prompt: end with the opening of the assistant's turn.
            tokenize: False returns a str (or a list of them) with the special tokens spelled out.
            return_dict: False returns the ids only.
            return_tensors: "pt", "np" or None for lists.
            return_assistant_tokens_mask: add `assistant_masks`, 1 at what the assistant says.

        Raises:
            TypeError: if a value is of the wrong class.
            ValueError: if a conversation is empty, or a role, part or value is not valid.
        """
        coded = [self.coded(messages) for messages in as_batch(conversation)]
        rows = [self.encoder.conversation(messages, add_generation_prompt) for messages in coded]
        if not tokenize:
            texts = [self.decode(row.ids_L, skip_special_tokens=False) for row in rows]
            return texts[0] if is_conversation(conversation) else texts
        data = batch_prompts(rows, self.layout) | self.soft_inputs(coded)
        if return_assistant_tokens_mask:
            masks = left_padded([row.is_wanted_L for row in rows], data["input_ids"].shape[1], 0)
            data["assistant_masks"] = torch.from_numpy(masks)
        result = converted(BatchFeature(data), return_tensors)
        return result if return_dict else result["input_ids"]

    def _derived_layout(self, image_model: ImageTokenizer | None) -> TokenLayout:
        """Layout of the parts given: text, then image, action and state where there are any."""
        sizes = {}
        grids = {}
        if image_model is not None:
            sizes["image"] = image_model.codebook_size
            codes = image_model.config.image_size // image_model.config.downsample_factor
            grids["image_grid"] = (codes, codes)
        if self.action_bins is not None:
            sizes["action"] = self.action_bins.num_codes
            grids["action_grid"] = self.action_bins.grid
        if self.state_bins is not None:
            sizes["state"] = self.state_bins.num_codes
        return layout_for_tokenizer(self.tokenizer, sizes, **grids)


def _as_bins(bins: ActionTokenizer | Mapping[str, Any] | None) -> ActionTokenizer | None:
    """Tokenizer of actions or states from one, a dictionary or nothing."""
    return action_tokenizer(bins) if isinstance(bins, Mapping) else bins


def _check_bins(
    layout: TokenLayout, modality: str, bins: ActionTokenizer | None, grid: tuple[int, int] | None
) -> None:
    """Raise ValueError if bins and layout contradict each other."""
    if bins is None:
        return
    if layout.range_of(modality).size != bins.num_codes:
        raise ValueError(
            f"{modality}_bins has {bins.num_codes} codes but the layout's {modality} range holds "
            f"{layout.range_of(modality).size}"
        )
    if grid is not None and (bins.horizon is None or bins.grid != tuple(grid)):
        raise ValueError(
            f"{modality}_bins has horizon {bins.horizon} and codes in a grid {bins.grid} but the "
            f"layout's grid is {tuple(grid)}"
        )
    if grid is None and bins.horizon is not None:
        raise ValueError(f"{modality}_bins must have horizon None, got {bins.horizon}")


# UniDiffConfig lives in model/, which this room may not import; the class is found by its name in
# processor_config.json, so any configuration of this package may stand for it.
AutoProcessor.register(FSQImageTokenizerConfig, UniDiffProcessor, exist_ok=True)
