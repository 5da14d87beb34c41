"""Self-speculation against own `ar`: seconds, tokens per forward, and how good the drafts are.

Prompts are stretches of held-out library text. Every contestant continues a prompt right after the
others, so that a ratio compares neighbours in time; the law says that all give the same tokens, and
the report says whether they did.
"""

import copy
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unidiff.data.sources.library_text import iter_documents
from unidiff.tokens.text import encode_plain

CONTESTANTS: dict[str, dict[str, Any]] = {
    "ar": {"decoding_mode": "ar"},
    "self_speculative": {"decoding_mode": "self_speculative"},
    "self_speculative_canvas_only": {"decoding_mode": "self_speculative", "draft_lookup": False},
    "auto": {"decoding_mode": "auto"},
}
_RANDOM_SCALE = 0.02


@dataclass(frozen=True)
class SpeculationSettings:
    """What is continued, and how.

    Attributes:
        num_prompts: stretches of text.
        prompt_tokens: length of each, the opening token not counted.
        new_tokens: tokens generated; none ends a response early.
        temperature: 0 is greedy.
        seed: of the choice of prompts, of sampling, of the random weights.
    """

    num_prompts: int = 16
    prompt_tokens: int = 64
    new_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0


@dataclass
class DraftWatch:
    """A streamer that compares each draft with the tokens that came.

    Attributes:
        num_tried: times that each place of a draft was read behind right ones.
        num_right: times that it was right as well.
    """

    num_tried: list[int] = field(default_factory=list)
    num_right: list[int] = field(default_factory=list)
    _draft: list[int] = field(default_factory=list)
    _place: int = 0

    def put_draft(self, value: Tensor) -> None:
        """Note what is tried next."""
        self._draft, self._place = value.tolist(), 0

    def put(self, value: Tensor) -> None:
        """Compare finished tokens with the draft, up to the first that differs."""
        for token in value.tolist():
            if self._place >= len(self._draft):
                return
            while len(self.num_tried) <= self._place:
                self.num_tried.append(0)
                self.num_right.append(0)
            self.num_tried[self._place] += 1
            is_right = token == self._draft[self._place]
            self.num_right[self._place] += is_right
            self._place += 1
            if not is_right:
                self._draft = []

    def end(self) -> None:
        """Nothing to do."""

    def summary(self, num_rounds: int) -> dict[str, Any]:
        """Acceptance by place, and right tokens of a draft for each round."""
        pairs = zip(self.num_right, self.num_tried, strict=True)
        return {
            "acceptance_by_place": [round(right / tried, 4) for right, tried in pairs],
            "tried_by_place": list(self.num_tried),
            "draft_tokens_accepted_per_round": round(sum(self.num_right) / max(1, num_rounds), 4),
        }


def measure_speculation(
    model: Any, tokenizer: Any, settings: SpeculationSettings
) -> dict[str, Any]:
    """Report of both kinds of weights; see `_measure` for the numbers."""
    prompts = heldout_prompts(tokenizer, settings, model.config.bos_token_id)
    weights = {"given": model, "random": _randomised(model, settings.seed)}
    return {
        "settings": asdict(settings),
        "contestants": CONTESTANTS,
        "environment": {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "processor": platform.processor() or platform.machine(),
            "num_parameters": model.num_parameters(),
            "dtype": str(model.dtype),
        },
        "weights": {name: _measure(one, prompts, settings) for name, one in weights.items()},
    }


def heldout_prompts(
    tokenizer: Any, settings: SpeculationSettings, first_id: int
) -> list[list[int]]:
    """Stretches of held-out library text, each behind the opening token.

    Raises:
        ValueError: if no held-out document is long enough.
    """
    rng = np.random.default_rng(settings.seed)
    texts = [text for _, text in iter_documents("heldout")]
    prompts: list[list[int]] = []
    for _ in range(settings.num_prompts):  # passes over the documents, one stretch of each
        for number in rng.permutation(len(texts)).tolist():
            ids = encode_plain(tokenizer, texts[number])
            if len(ids) >= settings.prompt_tokens:
                start = int(rng.integers(len(ids) - settings.prompt_tokens + 1))
                prompts.append([first_id, *ids[start : start + settings.prompt_tokens]])
            if len(prompts) == settings.num_prompts:
                return prompts
        if not prompts:
            break
    raise ValueError(f"no held-out document has {settings.prompt_tokens} tokens: ask for fewer")


def _randomised(model: Any, seed: int) -> Any:
    """A copy of the model with normal weights, whose drafts are worth nothing."""
    twin = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in twin.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=_RANDOM_SCALE)
    return twin


def _measure(
    model: Any, prompts: Sequence[Sequence[int]], settings: SpeculationSettings
) -> dict[str, dict[str, Any]]:
    """Of each contestant: median ratio of seconds to `ar`, tokens per forward, milliseconds each.

    Tokens per forward count the token that a round adds to its draft: the mean acceptance length.
    """
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    num_forwards = dict.fromkeys(CONTESTANTS, 0)
    watches = {name: DraftWatch() for name in CONTESTANTS}
    is_same = dict.fromkeys(CONTESTANTS, True)
    _continued(model, prompts[0], "ar", settings)  # warm up
    for prompt in prompts:
        expected = None
        for name in CONTESTANTS:
            start = time.perf_counter()
            output = _continued(model, prompt, name, settings)
            seconds[name].append(time.perf_counter() - start)
            num_forwards[name] += int(output.num_forwards[0])
            expected = output.sequences if expected is None else expected
            is_same[name] &= torch.equal(output.sequences, expected)
            _continued(model, prompt, name, settings, watches[name])  # untimed
    num_tokens = settings.new_tokens * len(prompts)
    return {
        name: {
            "ratio_to_ar": round(_median_ratio(seconds["ar"], seconds[name]), 4),
            "tokens_per_forward": round(num_tokens / num_forwards[name], 4),
            "ms_per_forward": round(1e3 * sum(seconds[name]) / num_forwards[name], 4),
            "same_tokens_as_ar": is_same[name],
            **watches[name].summary(num_forwards[name]),
        }
        for name in CONTESTANTS
    }


def _median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over the prompts of one time over the other."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def _continued(
    model: Any,
    prompt: Sequence[int],
    name: str,
    settings: SpeculationSettings,
    watch: DraftWatch | None = None,
) -> Any:
    """Output of one contestant on one prompt."""
    sampling = {"do_sample": True, "temperature": settings.temperature}
    return model.generate(
        input_ids=torch.tensor([prompt]),
        max_new_tokens=settings.new_tokens,
        eos_token_id=-1,
        seed=settings.seed,
        return_dict_in_generate=True,
        streamer=watch,
        **(sampling if settings.temperature else {"do_sample": False}),
        **CONTESTANTS[name],
    )
