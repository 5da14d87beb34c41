"""What the decoding benchmarks compare: sizes, options, the model with random weights, prompts."""

# Shapes: B rows, L prompt.

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidiff.generation.options import OPTIONS
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion

from .report import Goal

BENCHMARKS_DIR = Path(__file__).parent / "suites" / "benchmarks"
MASK_ID = 1
_NUM_SPECIALS = 4  # pad, mask, bos, eos: ids that no prompt holds
DTYPES = ("bfloat16", "float32")


def load_benchmark(name: str) -> dict[str, Any]:
    """Definition of a benchmark: goals, presets.

    Raises:
        ValueError: if there is no such benchmark.
    """
    known = sorted(path.stem for path in BENCHMARKS_DIR.glob("*.toml"))
    if name not in known:
        raise ValueError(f"benchmark must be one of {known}, got {name!r}")
    return tomllib.loads((BENCHMARKS_DIR / f"{name}.toml").read_text(encoding="utf-8"))


def load_goals(name: str) -> dict[str, Goal]:
    """Goals of a benchmark by the name of the number."""
    return {number: Goal(**goal) for number, goal in load_benchmark(name)["goals"].items()}


@dataclass(frozen=True)
class ModelShape:
    """Sizes of the transformer, in UniDiffConfig's terms."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int

    def config(self, **fields: Any) -> UniDiffConfig:
        """Configuration of this shape with a tied head."""
        return UniDiffConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            mask_token_id=MASK_ID,
            tie_word_embeddings=True,
            **fields,
        )


@dataclass(frozen=True)
class DecodeSetup:
    """Everything that decides what `unidiff bench decode` computes.

    Attributes:
        shape: of every model.
        dtype: of every model, one of `DTYPES`.
        threads: of torch.
        prompt_tokens: length of every prompt.
        new_tokens: tokens generated behind it.
        block_length: tokens of a canvas.
        steps: forwards per block; the first is what ratios without their own are measured at.
        batches: rows; the first is what ratios without their own are measured at.
        seed: of weights and prompts.
        prepacks_weights: whether our model runs on prepacked weights, where this version can.
        attention: name of our model's attention function; None: its default. Peers keep theirs.
    """

    shape: ModelShape
    dtype: str
    threads: int
    prompt_tokens: int
    new_tokens: int
    block_length: int
    steps: tuple[int, ...]
    batches: tuple[int, ...]
    seed: int = 0
    prepacks_weights: bool = True
    attention: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: if one is out of range.
        """
        counts = ("threads", "prompt_tokens", "new_tokens", "block_length")
        values = [(name, getattr(self, name)) for name in counts]
        values += [(name, value) for name in ("steps", "batches") for value in getattr(self, name)]
        for name, value in values:
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if not self.steps or not self.batches:
            raise ValueError("steps and batches need at least one number each")
        if self.new_tokens < 2:
            raise ValueError("new_tokens must be >= 2: the first one comes out of the prefill")
        if max(self.steps) > self.block_length:
            raise ValueError(
                f"steps must be <= block_length={self.block_length}, got {max(self.steps)}: a step "
                "reveals at least one token"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {DTYPES}, got {self.dtype!r}")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "DecodeSetup":
        """The preset "standard" or "tiny"; changes that are None keep the preset's value."""
        preset = load_benchmark("decode")["presets"][name]
        given = {name: value for name, value in changes.items() if value is not None}
        return cls.from_dict({"shape": preset["shape"], **preset["run"], **given})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DecodeSetup":
        """Setup of `dataclasses.asdict`'s dictionary, also after it went through JSON."""
        known = {one.name for one in fields(cls)}
        plain = {name: value for name, value in values.items() if name in known}
        plain["shape"] = ModelShape(**plain["shape"])
        plain["steps"], plain["batches"] = tuple(plain["steps"]), tuple(plain["batches"])
        return cls(**plain)

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch's."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def longest(self) -> int:
        """Positions that every model is given."""
        return max(4096, self.prompt_tokens + self.new_tokens + self.block_length)

    def options(self, **own: Any) -> dict[str, Any]:
        """Options of `generate()` that all our contestants share, and their own."""
        shared = {
            "max_new_tokens": self.new_tokens,
            "block_length": self.block_length,
            "unmasking_strategy": "static",
            "do_sample": False,
            "eos_token_id": -1,
            "return_dict_in_generate": True,
            "use_cache": False,
        }
        if self.prepacks_weights and "prepack_weights" in OPTIONS:
            shared["prepack_weights"] = True
        return shared | own


def build_model(setup: DecodeSetup) -> UniDiffForBlockDiffusion:
    """Our model with random weights from the setup's seed."""
    model = build_seeded(
        setup.shape,
        setup.torch_dtype,
        setup.seed,
        canvas_length=setup.block_length,
        max_position_embeddings=setup.longest,
    )
    if setup.attention is not None:
        model.set_attn_implementation(setup.attention)
    return model


def build_seeded(
    shape: ModelShape, dtype: torch.dtype, seed: int, **fields: Any
) -> UniDiffForBlockDiffusion:
    """A model of a shape with random weights; `fields` are the configuration's others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = UniDiffForBlockDiffusion(shape.config(**fields))
    return model.to(dtype).eval()


def build_prompts(vocab_size: int, batch: int, length: int, seed: int) -> Tensor:
    """(B, L) random ids without special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(_NUM_SPECIALS, vocab_size, (batch, length), generator=generator)
