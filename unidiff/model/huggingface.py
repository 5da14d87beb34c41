"""The bridge to transformers' generation: the only file that touches its private helpers.

`UniDiffGenerationMixin` inherits `GenerationMixin`, so that `pipeline`, `peft`, `Trainer` and
streamers find what they look for, and overrides `generate`. Contract:
tests/contracts/test_transformers_helpers.py.
"""

# Shapes: B rows, L prompt columns, K canvas columns.

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.generation import StopStringCriteria

from unidiff.generation.config import UniDiffGenerationConfig, resolve_options
from unidiff.generation.generate import generate as generate_rows
from unidiff.generation.inputs import GenerationInputs, as_list
from unidiff.generation.options import plain_option
from unidiff.generation.output import UniDiffGenerateOutput
from unidiff.generation.session import DecodingSession

from .pictures import RowPictures
from .reuse import denoiser_for
from .row_adapters import names_from_peft

# Keywords that transformers and peft pass along and that mean nothing here.
_IGNORED = ("return_dict", "cache_position", "token_type_ids", "synced_gpus")


class UniDiffGenerationMixin(GenerationMixin):
    """`generate` for masked diffusion under transformers' name and contract."""

    generation_config: GenerationConfig

    def adjust_generation_fn(self, *args: Any, **kwargs: Any) -> None:
        """Load `generation_config.json` with transformers, then give it our class back."""
        super().adjust_generation_fn(*args, **kwargs)
        self.generation_config = as_unidiff_config(self.generation_config)

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """Inputs of a plain forward; decoding does not call this, peft looks for it."""
        kwargs.pop("past_key_values", None)
        return {"input_ids": input_ids, "attention_mask": kwargs.get("attention_mask")}

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Any] | None = None,
        stopping_criteria: Sequence[Any] | None = None,
        streamer: Any = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        canvas: Tensor | None = None,
        pinned_mask: Tensor | None = None,
        draft_mask: Tensor | None = None,
        canvas_modality_ids: Tensor | None = None,
        negative_input_ids: Tensor | Sequence[Tensor] | None = None,
        negative_attention_mask: Tensor | Sequence[Tensor | None] | None = None,
        past_key_values: Any = None,
        canvas_allowed_ids: Any = None,
        tokenizer: Any = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor | UniDiffGenerateOutput:
        """Continue prompts with text, or fill one canvas of any modality.

        Args:
            inputs: (B, L) int64 prompt ids; `input_ids` is the same.
            generation_config: options for this call; what it leaves out comes from the checkpoint.
            logits_processor: transformers' processors; they see (positions, vocabulary) logits.
            stopping_criteria: transformers' criteria; they see (1, n) ids after each new token of a
                finished block.
            streamer: receives the prompt, finished blocks and, if it has `put_draft`, every step.
            input_ids: (B, L) int64 prompt ids, padded anywhere.
            attention_mask: (B, L), non-zero at real tokens; None: all are.
            position_ids: (B, L) or (3, B, L) int64; None: from the tokens' modalities.
            canvas: (B, K) int64; exactly this block is denoised and returned behind the prompt.
            pinned_mask: (B, K) bool, True where the canvas is known.
            draft_mask: (B, K) bool, True where the canvas shows a token that may change: `revision`
                ("secondary" or "edit") decides whether it does. None: what is not pinned is masked.
            canvas_modality_ids: (B, K) int64 modality of each position, -1 behind a short canvas.
            negative_input_ids: (B, M) or (1, M) int64 prompt of the weaker condition of
                `guidance_scale`; a list of them, the weakest first, for a list of scales.
            negative_attention_mask: padding mask of each.
            past_key_values: `past_key_values` of an earlier output; never changed.
            canvas_allowed_ids: (B, K, V) or (K, V) bool, ids that each canvas position may take; or
                a list of ids (None: any) for each position; or one such list per row.
            tokenizer: needed by `stop_strings`, `regex`, `json_schema` and `choices`.
            pixel_values: pieces of the pictures whose features stand at the prompts' soft
                positions; a negative prompt shows its row's pictures or none.
            image_sizes: (P, 2) int64, see `PictureMethods.read_pictures`.
            image_grid_thw: (P, 3) int64, see there.
            kwargs: options of `unidiff.generation.options.OPTIONS`. Those in `PER_ROW` there may be
                lists with one value per row. A `seed` that is a number is expanded to one key per
                row; a list or tensor holds the keys themselves, as `row_seeds` of an output does.

        Returns:
            (B, L + new) int64 sequences, or `UniDiffGenerateOutput` with
            `return_dict_in_generate=True`.

        Raises:
            ValueError: if an option is unknown or does not fit the checkpoint or the tensors.
            TypeError: if a tensor or an option has the wrong type.
            ImportError: if `regex` or `json_schema` lacks the extra `unidiff[grammar]`.
        """
        has_canvas = canvas is not None or canvas_modality_ids is not None
        if has_canvas and kwargs.get("max_new_tokens") is not None:
            raise ValueError("max_new_tokens does not apply to a canvas: leave it out")
        options = self._options(generation_config, kwargs)
        prompt_BL = self._prompt(inputs, input_ids, options)
        pictures = self.read_pictures(  # type: ignore[attr-defined]
            prompt_BL, attention_mask, pixel_values, image_sizes, image_grid_thw
        )
        output = generate_rows(
            denoiser_for(self, options),
            options,
            GenerationInputs(
                **self._with_pictures(
                    pictures,
                    input_ids=prompt_BL,
                    attention_mask=attention_mask,
                    position_ids=position_ids,
                    negative_input_ids=negative_input_ids,
                    negative_attention_mask=negative_attention_mask,
                ),
                canvas=canvas,
                pinned_mask=pinned_mask,
                draft_mask=draft_mask,
                canvas_modality_ids=canvas_modality_ids,
                canvas_allowed_ids=canvas_allowed_ids,
                tokenizer=tokenizer,
            ),
            processors=_callables("logits_processor", logits_processor),
            criteria=_criteria(stopping_criteria, options, tokenizer),
            streamer=streamer,
            past=past_key_values,
        )
        if options["return_dict_in_generate"]:
            return output
        assert output.sequences is not None
        return output.sequences

    def decoding_session(
        self,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Any] | None = None,
        stopping_criteria: Sequence[Any] | None = None,
        *,
        max_rows: int | None = None,
        tokenizer: Any = None,
        **kwargs: Any,
    ) -> DecodingSession:
        """A session whose requests join and leave between steps and share forwards.

        Args:
            generation_config: options of the session, as `generate` takes them.
            logits_processor: rules for every request.
            stopping_criteria: conditions for every request.
            max_rows: rows decoded at once at most; the others wait. None: no limit.
            tokenizer: needed by `stop_strings` and grammars.
            kwargs: options; those of `REQUEST_OPTIONS` may also be given to `submit`. Outputs carry
                `past_key_values` with `return_dict_in_generate=True`.

        Raises:
            ValueError: if an option is unknown or does not fit the checkpoint.
            TypeError: if an option has the wrong type.
        """
        options = self._options(generation_config, kwargs)
        return DecodingSession(
            denoiser_for(self, options),
            options,
            processors=_callables("logits_processor", logits_processor),
            criteria=_criteria(stopping_criteria, options, tokenizer),
            max_rows=max_rows,
            tokenizer=tokenizer,
        )

    def _with_pictures(self, pictures: list[RowPictures] | None, **prompts: Any) -> dict[str, Any]:
        """Fields of `GenerationInputs` for prompts and their pictures, which may say positions."""
        if pictures is None:
            return prompts
        positions: Any = self.picture_positions  # type: ignore[attr-defined]
        prompts["soft"] = [row.soft for row in pictures]
        if prompts["position_ids"] is None:
            own = prompts["input_ids"], prompts["attention_mask"]
            prompts["position_ids"] = positions(*own, pictures)
        weaker = as_list(prompts["negative_input_ids"])
        masks = as_list(prompts["negative_attention_mask"]) or [None] * len(weaker)
        prompts["negative_position_ids"] = [
            positions(ids, mask, pictures) for ids, mask in zip(weaker, masks, strict=False)
        ]
        return prompts

    def _options(
        self, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Every option's value: keyword over given over saved."""
        if generation_config is not None and not isinstance(generation_config, GenerationConfig):
            raise TypeError(
                "generation_config must be a UniDiffGenerationConfig or None, got "
                f"{type(generation_config).__name__}: pass single options as keywords"
            )
        overrides = {n: plain_option(n, v) for n, v in kwargs.items() if n not in _IGNORED}
        if overrides.get("adapter_names") is None and (names := names_from_peft(self)):
            overrides["adapter_names"] = names
        options = resolve_options(self.generation_config, generation_config, overrides)
        if options["bos_token_id"] is None:
            options["bos_token_id"] = self.config.bos_token_id
        return options

    def _prompt(
        self, inputs: Tensor | None, input_ids: Tensor | None, options: dict[str, Any]
    ) -> Tensor:
        """(B, L) prompt ids on the model's device; without a prompt, one row of bos."""
        if inputs is not None and input_ids is not None:
            raise ValueError("pass the prompt once: inputs or input_ids")
        prompt = inputs if inputs is not None else input_ids
        if prompt is None:
            start = options["bos_token_id"]
            if start is None:
                raise ValueError("pass input_ids: the checkpoint has no bos_token_id to start from")
            prompt = torch.tensor([[start]], dtype=torch.int64)
        if not isinstance(prompt, Tensor):
            raise TypeError(f"input_ids must be a tensor, got {type(prompt).__name__}")
        return prompt.to(self.device)


def as_unidiff_config(config: GenerationConfig) -> UniDiffGenerationConfig:
    """The same options in our class."""
    if isinstance(config, UniDiffGenerationConfig):
        return config
    values = {name: value for name, value in config.to_dict().items() if value is not None}
    return UniDiffGenerationConfig(**values)


def _callables(name: str, value: Any) -> list[Any]:
    """The list of callables that a keyword holds; raises TypeError if it holds something else."""
    items = list(value) if isinstance(value, Iterable) else []
    if not (value is None or isinstance(value, Iterable)) or not all(map(callable, items)):
        raise TypeError(f"{name} must be a list of callables, got {value!r}")
    return items


def _criteria(value: Any, options: dict[str, Any], tokenizer: Any) -> list[Any]:
    """The caller's stopping criteria, and that of `stop_strings`."""
    criteria = _callables("stopping_criteria", value)
    if options["stop_strings"]:
        criteria.append(_stop_strings(options["stop_strings"], tokenizer))
    return criteria


def _stop_strings(strings: Any, tokenizer: Any) -> StopStringCriteria:
    """Criterion that ends a row behind a stop string; raises ValueError without a tokenizer."""
    if tokenizer is None:
        raise ValueError("stop_strings needs tokenizer=: the tokenizer that decodes the ids")
    return StopStringCriteria(tokenizer=tokenizer, stop_strings=strings)
