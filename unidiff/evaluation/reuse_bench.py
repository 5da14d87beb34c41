"""The benchmark of approximate reuse: held-out prompts, all kinds, one report with its settings."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from unidiff.bundled import bundled_checkpoint
from unidiff.generation.options import APPROXIMATE_CACHE_REUSES
from unidiff.model.modeling import UniDiffForBlockDiffusion

from .reuse import Progress, reuse_report
from .reuse_text import autoregressive_judge, heldout_prompts

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class ReuseBenchmark:
    """Settings of a run.

    Attributes:
        rounds: timed batches; the kinds take turns on each.
        batch_size: prompts of a batch.
        prompt_length: tokens of a prompt, the first one included.
        new_tokens: tokens of a response.
        block_length: tokens of a block.
        steps: forwards for each block.
        temperature: of the draws; 0 is greedy, and then a small model repeats itself.
        gamma: `reuse_gamma` of elastic.
        dtype: of the weights.
        threads: CPU threads.
        seed: of decoding.
    """

    rounds: int = 5
    batch_size: int = 1
    prompt_length: int = 64
    new_tokens: int = 512
    block_length: int = 32
    steps: int = 8
    temperature: float = 1.0
    gamma: float = 0.9
    dtype: str = "float32"
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the dtype."""
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {DTYPES}, got {self.dtype!r}")

    def decoding(self) -> dict[str, Any]:
        """Decoding options common to all kinds."""
        return {
            "max_new_tokens": self.new_tokens,
            "block_length": self.block_length,
            "max_denoising_steps": self.steps,
            "unmasking_strategy": "static",
            "do_sample": self.temperature > 0,
            "temperature": self.temperature,
            "eos_token_id": -1,
            "seed": self.seed,
        }


def run_reuse_benchmark(
    checkpoint: Path,
    settings: ReuseBenchmark,
    kinds: Sequence[str] = APPROXIMATE_CACHE_REUSES,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The report of one run, with everything that is needed to repeat it.

    Args:
        checkpoint: folder of weights with `attention_pattern="full"` and the bundled tokenizer's
            ids.
        settings: sizes.
        kinds: of `cache_reuse`.
        progress: called with (kind, batches done, batches).

    Raises:
        ValueError: if a kind is unknown or the weights have another attention pattern.
    """
    model = _model(checkpoint, settings, kinds)
    torch.set_num_threads(settings.threads)
    judge_model = UniDiffForBlockDiffusion.from_pretrained(bundled_checkpoint()).float().eval()
    tokenizer = AutoTokenizer.from_pretrained(bundled_checkpoint())
    first_id = judge_model.config.bos_token_id
    judge = autoregressive_judge(judge_model, first_id)
    prompt_RL, real_RG = heldout_prompts(
        tokenizer,
        first_id,
        settings.rounds * settings.batch_size,
        settings.prompt_length,
        settings.new_tokens,
    )
    own: dict[str, dict[str, Any]] = {kind: {"cache_reuse": kind} for kind in kinds}
    if "elastic" in own:
        own["elastic"]["reuse_gamma"] = settings.gamma
    batches = list(prompt_RL.split(settings.batch_size))
    found = reuse_report(model, batches, settings.decoding(), own, judge, progress)
    return {
        "benchmark": "reuse",
        "settings": asdict(settings),
        "decoding": settings.decoding(),
        "checkpoint": str(checkpoint),
        "num_parameters": model.num_parameters(),
        "prompts": f"{len(prompt_RL)} windows of held-out library text",
        "judge": "autoregressive reading of the bundled checkpoint, windows of 128 tokens",
        "real_text_judge_nats_per_token": float(judge(prompt_RL, real_RG).sum() / real_RG.numel()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "kinds": found,
    }


def _model(
    checkpoint: Path, settings: ReuseBenchmark, kinds: Sequence[str]
) -> UniDiffForBlockDiffusion:
    """The weights, checked; raises ValueError."""
    for kind in kinds:
        if kind not in APPROXIMATE_CACHE_REUSES:
            raise ValueError(f"kinds must be of {APPROXIMATE_CACHE_REUSES}, got {kind!r}")
    dtype = getattr(torch, settings.dtype)
    model: UniDiffForBlockDiffusion = UniDiffForBlockDiffusion.from_pretrained(
        checkpoint, dtype=dtype
    )
    if model.config.attention_pattern != "full":
        raise ValueError(
            f"{checkpoint} has attention_pattern={model.config.attention_pattern!r}, and only "
            "'full' weights reuse approximately: `unidiff train --recipe full` makes some"
        )
    return model.eval()
