"""The UniDiff transformer and its head.

`UniDiffModel` turns ids into hidden states under any boolean mask. `UniDiffForBlockDiffusion`
reads logits at the positions asked for, in the id range asked for. Which tokens are noisy, which
are committed and which are revealed is decided elsewhere (`streams.py`, `denoiser.py`,
`unidiff.generation`).
"""

# Shapes: B batch, Q new tokens, S cached slots, D width, V vocabulary, N selected positions, C size
# of the vector that moves adaptive norms.

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, initialization
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import ModelOutput

from unidiff.generation.config import UniDiffGenerationConfig
from unidiff.tokens.foreign import (
    HUB_OPTIONS,
    PICKLES,
    converting,
    hub_options,
    is_foreign,
    local_folder,
)

from .adapters import AdapterMethods, adapter_base, only_linear
from .cache import BlockCache
from .checkpoint import check_complete, check_model_folder
from .configuration import UniDiffConfig
from .experts import STACKS, UniDiffExperts
from .huggingface import UniDiffGenerationMixin
from .inputs import fresh_inputs
from .layers import UniDiffLayer, UniDiffRotaryEmbedding
from .likelihood import NllEstimate, ar_nll, nll
from .masks import Stream, context_mask, full_mask, keep_diagonal, prefix_mask
from .modulation import Part, UniDiffCondition
from .norms import fresh_norm
from .packing import PackedWeights
from .pictures import PictureMethods
from .placement import Placement
from .routing import UniDiffRouter
from .vision import TiledVision, vision_of


@dataclass
class UniDiffOutput(ModelOutput):
    """What `UniDiffForBlockDiffusion.forward` returns.

    Attributes:
        logits: (B, Q, V), or (N, range) at the positions and ids asked for; None with labels.
        token_losses: (B, Q) float32 cross-entropy in nats, zero where a label is -100.
        past_key_values: the cache handed in.
        hidden_states: (B, Q, D) after the final norm.
    """

    logits: Tensor | None = None
    token_losses: Tensor | None = None
    past_key_values: BlockCache | None = None
    hidden_states: Tensor | None = None


class UniDiffPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation shared by the UniDiff classes."""

    config: UniDiffConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["UniDiffLayer"]
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = False
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict: ClassVar[list[str]] = ["expert_bias"]

    def _init_weights(self, module: nn.Module) -> None:
        """Fresh weights of a module, those of a mixture among them."""
        super()._init_weights(module)
        stacks: list[Any] = []
        if isinstance(module, UniDiffExperts):
            stacks = [getattr(module, name) for name in STACKS]
        elif isinstance(module, TiledVision):
            stacks = [module.newline]
        elif isinstance(module, UniDiffRouter):
            stacks = [module.weight]
            if module.expert_bias is not None:
                initialization.zeros_(module.expert_bias)
        for stack in stacks:
            initialization.normal_(stack, mean=0.0, std=self.config.initializer_range)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any = None, *model_args: Any, **kwargs: Any
    ) -> Any:
        """Model of a checkpoint, or of an adapter folder: its base with the adapter active.

        Takes what transformers' method of this name takes. A checkpoint of another format (LLaDA,
        Dream, SDAR, Qwen3, ...), a local folder or a name on the hub, is converted while it is
        read. `use_safetensors=False` allows weights in pickles where there are no safetensors; only
        tensors are read from them (`weights_only=True`).

        Raises:
            FileNotFoundError: if a file of a local folder is missing, or an adapter's base.
            ValueError: if one is damaged or cut short, a weight is missing (unless
                `output_loading_info` asks for the report of it) or has another shape than the
                configuration says, or an adapter belongs to another base.
        """
        allow_pickle, subfolder = kwargs.get("use_safetensors") is False, kwargs.get("subfolder")
        folder = local_folder(
            pretrained_model_name_or_path or "",
            subfolder or "",
            PICKLES if allow_pickle else (),
            **hub_options(kwargs),
        )
        if pretrained_model_name_or_path and (base := adapter_base(folder)) is not None:
            return cls._with_adapter(folder, base, *model_args, **kwargs)
        if pretrained_model_name_or_path and is_foreign(folder):
            for name in ("subfolder", "use_safetensors", *HUB_OPTIONS):
                kwargs.pop(name, None)
            return converting("load_foreign")(folder, cls, allow_pickle=allow_pickle, **kwargs)
        is_whole = not any(kwargs.get(name) for name in ("state_dict", "gguf_file", "variant"))
        if pretrained_model_name_or_path and folder.is_dir() and is_whole:
            check_model_folder(folder, allow_pickle)
        wants_report = kwargs.pop("output_loading_info", False)
        try:
            model, report = super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
            )
        except RuntimeError as error:
            if "mismatch" not in str(error):
                raise
            raise ValueError(
                f"weights in {folder} have other shapes than its config.json says ({error}): they "
                "belong to different checkpoints"
            ) from error
        if wants_report:
            return model, report
        check_complete(report["missing_keys"], folder)
        return model

    @classmethod
    def _with_adapter(cls, folder: Path, base: str, *model_args: Any, **kwargs: Any) -> Any:
        """The base of an adapter folder with the adapter on it, active."""
        for name in ("config", "adapter_kwargs", "subfolder"):  # the folder's own, from AutoModel
            kwargs.pop(name, None)
        adapter_name = kwargs.pop("adapter_name", "default")
        model = cls.from_pretrained(base, *model_args, **kwargs)
        model.load_adapter(folder, adapter_name=adapter_name)
        if (folder / "generation_config.json").is_file() and model.can_generate():
            model.generation_config = UniDiffGenerationConfig.from_pretrained(folder)
        return model


class UniDiffModel(UniDiffPreTrainedModel):
    """Embedding, layers and final norm."""

    def __init__(self, config: UniDiffConfig) -> None:
        """Fresh weights from the configuration."""
        super().__init__(config)
        width = config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.embed_inputs = fresh_inputs(config)
        self.layers = nn.ModuleList(
            UniDiffLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.transform = nn.Linear(width, width) if config.head_transform else None
        self.norm = fresh_norm(config, width)
        size = config.modulation_dim
        self.condition = None if size is None else UniDiffCondition(size)
        self.modulation = None if size is None else nn.Linear(size, 2 * width)
        self.rotary = UniDiffRotaryEmbedding(config)
        self.prefix_end = config.layout.prefix_end_token_id
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: BlockCache | None = None,
        inputs_embeds: Tensor | None = None,
        placement: Placement | None = None,
        packed: PackedWeights | None = None,
        **kwargs: object,
    ) -> BaseModelOutputWithPast:
        """Hidden states of new tokens.

        Args:
            input_ids: (B, Q) int64.
            attention_mask: (B, 1, Q, S) bool, True = attends; or (B, Q) padding mask or None, which
                give the checkpoint's own pattern over clean tokens (without cache).
            position_ids: (3, B, Q), or (B, Q) for text; None counts each row's real tokens.
            past_key_values: committed tokens that every new token may attend to.
            inputs_embeds: (B, Q, D) instead of `input_ids`.
            placement: where in the cache's slots the new tokens stand; with it a mask of None lets
                every token attend to every slot.
            packed: the same weights in a faster layout (`packing.py`).
            kwargs: ignored (transformers passes `use_cache`, `return_dict`).

        Raises:
            ValueError: if neither or both of `input_ids` and `inputs_embeds` are given, a cache
                comes without `placement`, or a row is longer than a table of learned positions.
        """
        del kwargs
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds")
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = default_positions(hidden, attention_mask)
        if position_ids.ndim == 2:
            position_ids = position_ids.expand(3, *position_ids.shape)
        if self.embed_inputs is not None:
            hidden = self.embed_inputs(hidden, position_ids[0])
        if placement is None:
            if past_key_values is not None and past_key_values.num_slots:
                raise ValueError(
                    "past_key_values need a placement of the new tokens: decode with generate()"
                )
            if attention_mask is None or attention_mask.ndim == 2:
                attention_mask = self.clean_mask(hidden, attention_mask, input_ids)
        rotation = self.rotary(position_ids, hidden.dtype)
        packed_layers = packed.layers if packed else [None] * len(self.layers)
        condition_C = self.condition_vector()
        inputs = (condition_C, rotation, attention_mask, past_key_values, placement)
        for layer, packed_layer in zip(self.layers, packed_layers, strict=True):
            hidden = layer(hidden, *inputs, packed=packed_layer)
        return BaseModelOutputWithPast(
            last_hidden_state=self.finish(hidden, condition_C), past_key_values=past_key_values
        )

    def condition_vector(self) -> Tensor | None:
        """(C,) vector that moves adaptive norms; None where there are none."""
        return None if self.condition is None else self.condition()

    def finish(self, hidden: Tensor, condition_C: Tensor | None) -> Tensor:
        """(..., D) hidden states for the head, of the (..., D) residual stream."""
        if self.transform is not None:
            hidden = ACT2FN[self.config.hidden_act](self.transform(hidden))
        if self.modulation is None:
            return Part(self.norm).enter(hidden)
        return Part(self.norm, *self.modulation(condition_C).chunk(2)).enter(hidden)

    def clean_mask(
        self, hidden_BQD: Tensor, attention_mask: Tensor | None, input_ids: Tensor | None
    ) -> Tensor:
        """(B, 1, Q, Q) mask of the checkpoint's pattern over clean, possibly padded rows."""
        if attention_mask is None:
            attention_mask = hidden_BQD.new_ones(hidden_BQD.shape[:2], dtype=torch.bool)
        if self.config.attention_pattern == "full":
            return full_mask(attention_mask)
        real = attention_mask.bool()
        index = real.long().cumsum(1) - 1
        sample = torch.where(real, 0, -1)
        stream = Stream(sample, index, torch.full_like(index, -1), index)
        mask = context_mask(stream, self.config.context_grid)
        if self.prefix_end is not None and input_ids is not None:
            is_end = real & (input_ids == self.prefix_end)
            first = torch.where(is_end, index, index.shape[1]).amin(1)
            mask |= prefix_mask(stream, torch.where(is_end.any(1), first + 1, 0))
        return keep_diagonal(mask).unsqueeze(1)


def default_positions(hidden_BQD: Tensor, attention_mask: Tensor | None) -> Tensor:
    """(B, Q) positions that count each row's real tokens from zero."""
    if attention_mask is not None and attention_mask.ndim == 2:
        return (attention_mask.long().cumsum(1) - 1).clamp(min=0)
    length = hidden_BQD.shape[1]
    return torch.arange(length, device=hidden_BQD.device).expand(hidden_BQD.shape[0], length)


class UniDiffForBlockDiffusion(
    AdapterMethods, PictureMethods, UniDiffPreTrainedModel, UniDiffGenerationMixin
):
    """The transformer with its token head; `generate`, `nll` and the denoiser build on it.

    A checkpoint that reads pictures as features has a tower besides (`vision.py`).
    """

    # PreTrainedModel's own comes first among the bases.
    generation_config_class = UniDiffGenerationConfig
    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: UniDiffConfig) -> None:
        """Fresh weights from the configuration."""
        super().__init__(config)
        self.model = UniDiffModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.head_bias)
        self.vision = vision_of(config.vision, config.hidden_size)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: BlockCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_at: Tensor | None = None,
        id_range: tuple[int, int] | None = None,
        placement: Placement | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        **kwargs: object,
    ) -> UniDiffOutput:
        """Logits, or per-token losses when `labels` are given.

        Args:
            input_ids: as in `UniDiffModel.forward`, like every argument not named here.
            attention_mask: see there.
            position_ids: see there.
            past_key_values: see there.
            inputs_embeds: see there.
            labels: (B, Q) int64, the id each row should score at its own place (nothing is shifted
                here), -100 for none. The softmax runs over the ids of the label's modality.
            logits_at: (B, Q) bool, positions whose logits are wanted; None: all.
            id_range: (start, stop) of the ids whose logits are wanted; None: all.
            placement: see there.
            pixel_values: pieces of the pictures at the soft positions of `input_ids`.
            image_sizes: see `PictureMethods.read_pictures`.
            image_grid_thw: see there.
            kwargs: ignored.

        Raises:
            ValueError: if pictures and their places do not fit together.
        """
        if input_ids is not None:
            pictures = self.read_pictures(
                input_ids, attention_mask, pixel_values, image_sizes, image_grid_thw
            )
            if pictures is not None:
                if position_ids is None:
                    position_ids = self.picture_positions(input_ids, attention_mask, pictures)
                inputs_embeds = self.embed_pictures(input_ids, attention_mask, pictures)
                input_ids = None
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            placement=placement,
            **kwargs,
        )
        hidden = output.last_hidden_state
        result = UniDiffOutput(past_key_values=past_key_values, hidden_states=hidden)
        if labels is not None:
            result.token_losses = self.token_losses(hidden, labels)
            return result
        if logits_at is not None:
            hidden = hidden[logits_at]
        result.logits = self.read_head(hidden, id_range)
        return result

    def nll(
        self, batch: Mapping[str, Tensor], num_samples: int = 32, seed: int = 0, exact: bool = False
    ) -> NllEstimate:
        """ELBO of each row's labelled tokens in nats; see `unidiff.model.likelihood.nll`."""
        return nll(self, batch, num_samples, seed, exact=exact)

    def ar_nll(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B,) nats of each row's text labels, read left to right; see `likelihood.ar_nll`."""
        return ar_nll(self, batch)

    def read_head(self, hidden: Tensor, id_range: tuple[int, int] | None = None) -> Tensor:
        """(..., V) logits of (..., D) hidden states, or those of the ids in [start, stop) alone."""
        if id_range is None:
            return self.lm_head(hidden)
        ids, head = slice(*id_range), only_linear(self.lm_head)
        if head is None:  # an adapter on the head: its weight is not all
            return self.lm_head(hidden)[..., ids]
        bias = head.bias[ids] if head.bias is not None else None
        return nn.functional.linear(hidden, head.weight[ids], bias)

    def token_losses(self, hidden_BQD: Tensor, labels_BQ: Tensor) -> Tensor:
        """(B, Q) float32 cross-entropy in nats over the ids allowed to each label's modality.

        Raises:
            ValueError: if a label is an id that no canvas position may take.
        """
        layout = self.config.layout
        loss_BQ = hidden_BQD.new_zeros(labels_BQ.shape, dtype=torch.float32)
        num_scored = 0
        for modality in layout.modalities:
            if modality not in layout.ranges:
                continue
            id_range = layout.range_of(modality)
            allowed_V = layout.allowed_ids(modality, self.config.vocab_size).to(labels_BQ.device)
            at_BQ = (labels_BQ >= id_range.start) & (labels_BQ < id_range.stop)
            at_BQ &= allowed_V[labels_BQ.clamp(min=0, max=self.config.vocab_size - 1)]
            ids = (id_range.start, id_range.stop)
            logits_NV = self.read_head(hidden_BQD[at_BQ], ids).float()
            logits_NV = logits_NV.masked_fill(~allowed_V[slice(*ids)], float("-inf"))
            target_N = labels_BQ[at_BQ] - id_range.start
            loss_N = nn.functional.cross_entropy(logits_NV, target_N, reduction="none")
            loss_BQ = loss_BQ.masked_scatter(at_BQ, loss_N)
            num_scored += int(at_BQ.sum())
        if num_scored != int((labels_BQ != -100).sum()):
            raise ValueError(
                "labels hold ids that no canvas position may take (the mask id, a reserved special "
                "id, or an id outside the layout): check the collator's loss mask"
            )
        return loss_BQ
