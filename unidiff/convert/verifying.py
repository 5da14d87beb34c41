"""Our reading of a checkpoint against its own: logits on prompts, and greedy tokens.

A checkpoint that brings code of its own is compared with that code, which runs only where the user
has said so; one whose class transformers has, with that class. This is the proof on real weights,
made where they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .greedy import PLAINLY, greedy_tokens, is_autoregressive, masked_behind
from .loading import Converted, load_foreign, open_foreign, processor_of
from .their_code import check_comparable, code_of, their_logits, their_model

PROMPTS = (
    "Name the capital of France.",
    "Count from one to ten.",
    "Write a line of Python that prints the first five squares.",
)
NUM_MASKS = 16  # behind a prompt, where logits are compared
# Largest difference of logits that still counts as the same, as a share of the largest logit.
TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}


@dataclass(frozen=True)
class PromptVerdict:
    """What came of one prompt.

    Attributes:
        prompt: its text.
        max_difference: largest difference of two logits.
        mean_difference: mean difference of two logits.
        scale: largest of their logits, without its sign.
        same_likeliest: share of positions at which both find the same id likeliest.
        same_tokens: share of greedily decoded tokens that are equal.
    """

    prompt: str
    max_difference: float
    mean_difference: float
    scale: float
    same_likeliest: float
    same_tokens: float


@dataclass(frozen=True)
class Verdict:
    """What came of all prompts.

    Attributes:
        family: name of the checkpoint's family.
        against: class that ours was compared with.
        dtype: of both models.
        tolerance: of `max_difference`, as a share of `scale`.
        prompts: one after the other.
    """

    family: str
    against: str
    dtype: str
    tolerance: float
    prompts: tuple[PromptVerdict, ...]

    @property
    def is_same(self) -> bool:
        """Whether logits agree within the tolerance, and every greedy token is the same."""
        return all(
            one.max_difference <= self.tolerance * one.scale and one.same_tokens == 1.0
            for one in self.prompts
        )


@dataclass(frozen=True)
class _Reading:
    """What a model makes of a prompt.

    Attributes:
        logits: (L, V) float32 of the prompt and the masks behind it.
        tokens: decoded greedily behind the prompt.
    """

    logits: Tensor
    tokens: list[int]


def verify(
    folder: Path,
    prompts: Sequence[str] = PROMPTS,
    *,
    num_tokens: int = 16,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> Verdict:
    """Compare our model of a checkpoint with its own; one of the two is in memory at a time.

    Args:
        folder: of a foreign checkpoint, its code included.
        prompts: what a user says; each is written with the chat template.
        num_tokens: to decode for each, one a step.
        dtype: of both models, one of `TOLERANCES`.
        device: of both models.
        trust_remote_code: whether the checkpoint's code may run.
        allow_pickle: whether its weights may be pickles, see `pickles.py`.

    Raises:
        ImportError: if the checkpoint's code needs a package that is not here.
        PermissionError: if the checkpoint has code of its own, and it may not run.
        ValueError: as `open_foreign`, if the type is unknown, there is no class to compare with, or
            that one fails.
    """
    if dtype not in TOLERANCES:
        raise ValueError(f"dtype must be one of {sorted(TOLERANCES)}, got {dtype!r}")
    opened = open_foreign(folder, allow_pickle)
    if (code := code_of(folder, opened.folder.config)) and not trust_remote_code:
        raise PermissionError(
            f"{folder} brings code of its own, which would run here with your rights: "
            f"{'; '.join(code)}. Read it, and allow it with --trust-remote-code"
        )
    check_comparable(opened)
    processor = processor_of(opened)
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    rows = [processor.for_chat(turn)["input_ids"][0] for turn in turns]
    numbers = getattr(torch, dtype)
    ours = load_foreign(folder, allow_pickle=allow_pickle, dtype=numbers).to(device).eval()
    our_readings = [_our_reading(ours, opened, row, num_tokens) for row in rows]
    del ours
    theirs = their_model(opened, numbers, device)
    their_readings = [_their_reading(theirs, opened, row, num_tokens) for row in rows]
    verdicts = map(_verdict, prompts, our_readings, their_readings)
    name = f"{type(theirs).__module__}.{type(theirs).__qualname__}"
    return Verdict(opened.family.name, name, dtype, TOLERANCES[dtype], tuple(verdicts))


@torch.no_grad()
def _our_reading(model: Any, opened: Converted, prompt: Tensor, num_tokens: int) -> _Reading:
    """Ours, by `generate()` with its cache, blocks and pattern."""
    prompt = prompt.to(model.device)
    mode = "ar" if is_autoregressive(opened.config) else "diffusion"
    options = {"block_length": opened.config.canvas_length, "decoding_mode": mode, **PLAINLY}
    row = model.generate(prompt[None], max_new_tokens=num_tokens, **options)[0]
    logits = model(masked_behind(prompt, opened.config, NUM_MASKS)[None]).logits[0]
    return _Reading(logits.float().cpu(), row[len(prompt) :].tolist())


@torch.no_grad()
def _their_reading(model: Any, opened: Converted, prompt: Tensor, num_tokens: int) -> _Reading:
    """Theirs, by a plain loop over whole rows."""

    def logits(ids: Tensor) -> Tensor:
        return their_logits(model, opened, ids)

    tokens = greedy_tokens(logits, prompt, opened.config, num_tokens)
    return _Reading(logits(masked_behind(prompt, opened.config, NUM_MASKS)), tokens)


def _verdict(prompt: str, ours: _Reading, theirs: _Reading) -> PromptVerdict:
    """How far two readings are apart, over the ids that both have."""
    num_ids = min(ours.logits.shape[1], theirs.logits.shape[1])
    one, two = ours.logits[:, :num_ids], theirs.logits[:, :num_ids]
    apart = (one - two).abs()
    same = [a == b for a, b in zip(ours.tokens, theirs.tokens, strict=True)]
    return PromptVerdict(
        prompt=prompt,
        max_difference=float(apart.max()),
        mean_difference=float(apart.mean()),
        scale=float(two.abs().max()),
        same_likeliest=float((one.argmax(-1) == two.argmax(-1)).float().mean()),
        same_tokens=sum(same) / len(same),
    )
