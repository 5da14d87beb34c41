"""Configuration of the UniDiff transformer: sizes, attention pattern, token layout.

The defaults are a tiny model that a CPU runs in milliseconds; larger shapes are named functions in
`presets.py`. Weight names and semantics follow Qwen3, so its checkpoints load unchanged.
"""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from unidiff.diffusion.processes import NOISE_PROCESSES, UNIFORM_PREDICTIONS
from unidiff.tokens.layout import IdRange, TokenLayout

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
ATTENTION_PATTERNS = ("causal_context", "block_causal", "full", "prefix")
_WHOLE = 1 << 40  # a grid whose first block holds any context
ROUTER_SCORES = ("softmax", "sigmoid")
NORM_TYPES = ("rms", "layer")
NORM_PLACEMENTS = ("pre", "post", "parallel", "sandwich")
QK_NORM_TYPES = ("head", "all_heads")
MLP_TYPES = ("gated", "plain")
VISION_KINDS = ("tiles", "patches")


@strict
class UniDiffConfig(PreTrainedConfig):
    """Everything that `config.json` says about a UniDiff model.

    Raises:
        StrictDataclassError: of huggingface_hub, around the ValueError of `validate_architecture`
            when two fields contradict each other, or around a TypeError for a wrong type.
    """

    model_type = "unidiff"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    ignore_keys_at_rope_validation: ClassVar[set[str]] = {"mrope_section"}

    vocab_size: int = 512  # rows of the embedding
    hidden_size: int = 64  # width of the residual stream
    intermediate_size: int = 128  # width inside the MLP
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    num_key_value_heads: int | None = None  # None: as many as attention heads
    head_dim: int = 32
    hidden_act: str = "silu"  # inside the MLP
    mlp_type: str = "gated"  # SwiGLU; or "plain": two biased products around the activation
    max_position_embeddings: int = 4096  # longest position seen in training
    initializer_range: float = 0.02  # standard deviation of fresh weights
    rms_norm_eps: float = 1e-6  # of either norm
    norm_type: str = "rms"  # or "layer": LayerNorm
    norm_bias: bool = False  # a LayerNorm shifts as well as scales
    norm_placement: str = "pre"  # before attention and MLP; "post": behind each of their sums with
    # the residual stream (BERT); "parallel": once before both, which read the same (Phi);
    # "sandwich": before each, and behind its output (UniDisc)
    modulation_dim: int | None = None  # size of the vector of adaptive norms (DiT); None: none
    attention_bias: bool = False  # bias on the q, k, v projections (Qwen2)
    output_bias: bool = False  # bias on what leaves the attention
    use_qk_norm: bool = True  # norm of each query and key head (Qwen3)
    qk_norm_type: str = "head"  # each by itself, as `norm_type`; "all_heads": one LayerNorm of all
    picture_axes: bool = False  # a picture's positions are its own rows and columns, and what is a
    # picture has an embedding; see `TokenLayout.has_bare_pictures`
    picture_rope_factor: float = 1.0  # that rows and columns are divided by
    num_picture_numbers: int = 0  # rows of a table of the first picture, the second, ...; 0: none
    num_positions: int | None = None  # rows of a table of learned positions; None: rotary ones
    first_position: int = 0  # row of the first position
    num_segments: int = 1  # rows of the table beside that one, of which the first is read
    head_transform: bool = False  # a product and the activation before the last norm (BERT)
    head_bias: bool = False  # bias on the logits
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = True
    use_cache: bool = True
    rope_parameters: dict | None = None  # {"rope_type": "default", "rope_theta": ...}, and
    # "partial_rotary_factor": share of each head, from its start, that positions turn; and
    # "mrope_section": how many frequencies turn with time, row and column, one after the other
    num_experts: int | None = None  # of each mixture; None: every layer is dense
    num_experts_per_tok: int = 2  # experts that a token is given to
    moe_intermediate_size: int | None = None  # width inside an expert; None: intermediate_size
    num_shared_experts: int = 0  # experts that every token is given to besides
    mlp_only_layers: list[int] | None = None  # layers that are dense all the same; None: none
    router_scores: str = "softmax"  # or "sigmoid": what makes scores of the router's logits
    norm_topk_prob: bool = True  # the weights of a token's experts add up to one
    routed_scaling_factor: float = 1.0  # on those weights
    use_expert_bias: bool = False  # added to scores where experts are chosen, not to weights
    n_group: int = 1  # groups that the experts are divided into
    topk_group: int = 1  # groups that a token's experts may be of
    router_aux_loss_coef: float = 0.0  # of the balance loss in training
    attention_pattern: str = "causal_context"  # part of the checkpoint, never guessed
    canvas_length: int = 32  # default canvas; the trained grid under block_causal
    logits_shift: int = 0  # 0: a canvas row predicts itself; 1: its successor
    mask_token_id: int = 1
    token_layout: dict | None = None  # TokenLayout.to_dict(); None: text only
    vision: dict | None = None  # tower that reads pictures as features, see `vision.py`; None: none
    bidirectional_spans: list[str] | None = None  # modalities whose span attends within itself
    trained_on_visible: bool = False  # visible canvas rows carry a trained prediction
    noise_process: str = "absorbing"  # or "uniform": what the canvas was corrupted with
    uniform_prediction: str | None = None  # of a uniform head: "leave_one_out" or "posterior"
    pad_token_id: int | None = 0
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill the fields that follow from others."""
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.rope_parameters is None:
            self.rope_parameters = {"rope_type": "default", "rope_theta": 10_000.0}
        if self.bidirectional_spans is None:
            self.bidirectional_spans = []
        if self.num_experts is not None:
            self.moe_intermediate_size = self.moe_intermediate_size or self.intermediate_size
            self.mlp_only_layers = self.mlp_only_layers or []
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Raise ValueError when two fields contradict each other."""
        if self.attention_pattern not in ATTENTION_PATTERNS:
            raise ValueError(
                f"attention_pattern must be one of {ATTENTION_PATTERNS}, "
                f"got {self.attention_pattern!r}"
            )
        self._check_noise()
        self._check_experts()
        self._check_block()
        self._check_vision()
        # Both were filled in __post_init__.
        assert self.num_key_value_heads is not None
        assert self.rope_parameters is not None
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                "num_attention_heads must be a multiple of num_key_value_heads, got "
                f"{self.num_attention_heads} and {self.num_key_value_heads}"
            )
        turns = self.num_positions is None
        if turns and (self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim):
            raise ValueError(
                "head_dim must be even for rotary positions, and so must the share of it that "
                f"turns; got {self.head_dim} and {self.rotary_dim}"
            )
        section = self.rope_parameters.get("mrope_section")
        if section is not None and (len(section) != 3 or 2 * sum(section) != self.rotary_dim):
            raise ValueError(
                f"mrope_section must be three numbers that add up to half of the "
                f"{self.rotary_dim} dimensions that turn, got {section}"
            )
        if self.logits_shift not in (0, 1):
            raise ValueError(f"logits_shift must be 0 or 1, got {self.logits_shift}")
        if self.canvas_length < 1:
            raise ValueError(f"canvas_length must be >= 1, got {self.canvas_length}")
        if not 0 <= self.mask_token_id < self.vocab_size:
            raise ValueError(
                f"mask_token_id must lie in [0, vocab_size={self.vocab_size}), "
                f"got {self.mask_token_id}"
            )
        if self.rope_parameters.get("rope_type", "default") not in ROPE_TYPES:
            raise ValueError(
                f"rope_parameters must have a rope_type of {ROPE_TYPES}, got "
                f"{self.rope_parameters}: frequencies that change with the length would void the "
                "cache"
            )
        if self.bidirectional_spans:
            raise ValueError(
                f"bidirectional_spans is not supported yet, got {self.bidirectional_spans}: "
                "leave it empty"
            )
        if self.layout.num_ids > self.vocab_size:
            raise ValueError(
                f"token_layout uses {self.layout.num_ids} ids but vocab_size is {self.vocab_size}"
            )
        if self.layout.mask_token_id != self.mask_token_id:
            raise ValueError(
                f"mask_token_id is {self.mask_token_id}, but token_layout says "
                f"{self.layout.mask_token_id}: make them equal"
            )

    def _check_block(self) -> None:
        """Raise ValueError unless the parts of a block are among those that there are."""
        if self.norm_type not in NORM_TYPES:
            raise ValueError(f"norm_type must be one of {NORM_TYPES}, got {self.norm_type!r}")
        if self.mlp_type not in MLP_TYPES:
            raise ValueError(f"mlp_type must be one of {MLP_TYPES}, got {self.mlp_type!r}")
        if self.norm_placement not in NORM_PLACEMENTS:
            raise ValueError(
                f"norm_placement must be one of {NORM_PLACEMENTS}, got {self.norm_placement!r}"
            )
        if self.qk_norm_type not in QK_NORM_TYPES:
            raise ValueError(
                f"qk_norm_type must be one of {QK_NORM_TYPES}, got {self.qk_norm_type!r}"
            )
        if self.picture_axes and self.num_positions is not None:
            raise ValueError("picture_axes are rotary positions: leave num_positions out")
        if self.modulation_dim is not None and self.modulation_dim < 1:
            raise ValueError(f"modulation_dim must be >= 1 or None, got {self.modulation_dim}")
        if self.modulation_dim is not None and self.norm_placement != "pre":
            raise ValueError(
                "modulation_dim moves norms that stand before attention and MLP, got "
                f"norm_placement={self.norm_placement!r}"
            )
        if self.norm_bias and self.norm_type == "rms":
            raise ValueError("norm_bias shifts a LayerNorm, got norm_type='rms'")
        rows = self.max_position_embeddings + self.first_position
        if self.num_positions is not None and self.num_positions < rows:
            raise ValueError(
                f"num_positions must hold first_position + max_position_embeddings = {rows} rows, "
                f"got {self.num_positions}"
            )

    def _check_vision(self) -> None:
        """Raise ValueError unless a tower is of a known kind and has an id for its features."""
        if self.vision is None:
            return
        if self.vision.get("kind") not in VISION_KINDS:
            raise ValueError(
                f"vision must have a kind of {VISION_KINDS}, got {self.vision.get('kind')!r}"
            )
        if self.layout.soft_token_id is None:
            raise ValueError(
                "vision needs a token_layout with a soft_token_id, which stands for a feature"
            )

    def _check_noise(self) -> None:
        """Raise ValueError unless the noise process and the head's reading fit together."""
        if self.noise_process not in NOISE_PROCESSES:
            raise ValueError(
                f"noise_process must be one of {NOISE_PROCESSES}, got {self.noise_process!r}"
            )
        if self.noise_process == "absorbing" and self.uniform_prediction is not None:
            raise ValueError(
                "uniform_prediction belongs to noise_process='uniform', got "
                f"{self.uniform_prediction!r} with absorbing noise: leave it out"
            )
        if self.noise_process == "uniform" and self.uniform_prediction not in UNIFORM_PREDICTIONS:
            raise ValueError(
                f"noise_process='uniform' needs uniform_prediction, one of {UNIFORM_PREDICTIONS} "
                f"(one taken for the other gives wrong samples), got {self.uniform_prediction!r}"
            )
        if self.noise_process == "uniform" and self.logits_shift:
            raise ValueError(
                "noise_process='uniform' needs logits_shift=0: rows predict themselves"
            )

    def _check_experts(self) -> None:
        """Raise ValueError unless the fields of a mixture fit together."""
        if self.router_scores not in ROUTER_SCORES:
            raise ValueError(
                f"router_scores must be one of {ROUTER_SCORES}, got {self.router_scores!r}"
            )
        if self.num_experts is None:
            return
        group, rest = divmod(self.num_experts, max(self.n_group, 1))
        if rest or not 1 <= self.topk_group <= self.n_group or (self.n_group > 1 and group < 2):
            raise ValueError(
                "n_group must divide num_experts into groups of at least 2, of which topk_group "
                f"are chosen; got {self.n_group=}, {self.num_experts=} and {self.topk_group=}"
            )
        if not 1 <= self.num_experts_per_tok <= group * self.topk_group:
            raise ValueError(
                f"num_experts_per_tok must lie in [1, {group * self.topk_group}], the experts of "
                f"the groups that are chosen; got {self.num_experts_per_tok}"
            )
        unknown = set(self.mlp_only_layers or ()) - set(range(self.num_hidden_layers))
        if unknown:
            raise ValueError(
                f"mlp_only_layers names {sorted(unknown)}; there are {self.num_hidden_layers} "
                "layers, the first is 0"
            )

    @property
    def rotary_dim(self) -> int:
        """Dimensions of a head that positions turn, from the first; 0 where they are learned."""
        if self.num_positions is not None:
            return 0
        assert self.rope_parameters is not None  # filled in __post_init__
        return int(self.head_dim * self.rope_parameters.get("partial_rotary_factor", 1.0))

    @property
    def mixture_layers(self) -> tuple[int, ...]:
        """Indices of the layers that have a mixture of experts in place of an MLP."""
        if self.num_experts is None:
            return ()
        dense = set(self.mlp_only_layers or ())
        return tuple(index for index in range(self.num_hidden_layers) if index not in dense)

    @property
    def grid(self) -> int | None:
        """Length of the blocks that context attends within; None where there is no grid."""
        return self.canvas_length if self.attention_pattern == "block_causal" else None

    @property
    def context_grid(self) -> int | None:
        """Length of the blocks within which clean context attends; None where it is causal."""
        return _WHOLE if self.attention_pattern == "prefix" else self.grid

    @property
    def layout(self) -> TokenLayout:
        """The checkpoint's `TokenLayout`; a text-only one when none is stored."""
        if self.token_layout is not None:
            return TokenLayout.from_dict(self.token_layout)
        ends = self.eos_token_id if isinstance(self.eos_token_id, list) else [self.eos_token_id]
        return TokenLayout(
            ranges={"text": IdRange(0, self.vocab_size)},
            mask_token_id=self.mask_token_id,
            pad_token_id=self.pad_token_id or 0,
            end_token_ids=tuple(i for i in ends if i is not None),
        )
