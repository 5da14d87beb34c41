"""The decoders that `unidiff bench decode` times, each as two calls: its prefill, and everything.

Tokens per second after the prefill, on every side alike: the time of the whole call less that of a
call that only reads the prompt, measured right before it. Ours and transformers' left-to-right
decoders read the prompt by generating one token, which then does not count; DiffusionGemma by its
encoder; the loop without a cache has no prefill.
"""

# Shapes: B rows, L prompt, T whole sequence.

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unidiff.generation.config import UniDiffGenerationConfig
from unidiff.model.denoiser import ModelDenoiser
from unidiff.model.modeling import UniDiffForBlockDiffusion

from .decode_peers import (
    NEVER_CONFIDENT,
    active_parameters,
    count_forwards,
    denoise_without_cache,
    equal_gemma,
    qwen3_twin,
)
from .decode_setup import DecodeSetup, build_model, build_prompts

_FORWARD_METHODS = ("probe", "commit", "next_logits")


@dataclass(frozen=True)
class Decoded:
    """What one call produced.

    Attributes:
        ids_BT: (B, T) prompt and response.
        num_forwards: of the model, commits included; None: counted once from outside.
    """

    ids_BT: Tensor
    num_forwards: int | None = None


@dataclass(frozen=True)
class Contestant:
    """One decoder under one setting.

    Attributes:
        name: in the report.
        what: description in one line.
        batch: rows.
        run: decodes every row to the end.
        prefill: only reads the prompts; None: there is no such thing.
        tokens_of_prefill: tokens of each row that come out of the prefill.
        num_forwards: of `run`, where it does not say itself.
        settings: options of the call.
        num_parameters: that a token passes through, a tied head once.
        is_ours: whether the time inside our forwards can be told.
    """

    name: str
    what: str
    batch: int
    run: Callable[[], Decoded]
    prefill: Callable[[], Any] | None
    tokens_of_prefill: int
    settings: dict[str, Any]
    num_parameters: int
    num_forwards: int | None = None
    is_ours: bool = False

    def facts(self) -> dict[str, Any]:
        """What the report says of it."""
        return {
            "what": self.what,
            "batch": self.batch,
            "settings": self.settings,
            "num_parameters": self.num_parameters,
            "tokens_of_prefill": self.tokens_of_prefill,
            "num_prefill_calls": 0 if self.prefill is None else 1,
        }


def contestant_names(setup: DecodeSetup) -> list[str]:
    """Names of all contestants of a setup."""
    first, rows = setup.steps[0], setup.batches[0]
    names = [f"unidiff_s{steps}" for steps in setup.steps]
    names += [f"unidiff_separate_s{first}", "unidiff_ar", "transformers_ar", f"uncached_s{first}"]
    names += [f"unidiff_s{first}_b{batch}" for batch in setup.batches if batch != rows]
    return names + [f"diffusion_gemma_b{batch}" for batch in setup.batches]


def build_contestants(setup: DecodeSetup, names: list[str]) -> list[Contestant]:
    """The contestants of these names, models built only where one needs them."""
    makers = _Field(setup).makers()
    return [makers[name]() for name in names]


@contextmanager
def timed_forwards() -> Iterator[list[float]]:
    """Seconds spent in each of our model's forwards, its head included, while it is open."""
    seconds: list[float] = []
    originals = {name: getattr(ModelDenoiser, name) for name in _FORWARD_METHODS}

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            result = method(*values, **named)
            seconds.append(time.perf_counter() - begin)
            return result

        return call

    for name, method in originals.items():
        setattr(ModelDenoiser, name, timed(method))
    try:
        yield seconds
    finally:
        for name, method in originals.items():
            setattr(ModelDenoiser, name, method)


@dataclass
class _Field:
    """Builds contestants; each model once, when it is first needed."""

    setup: DecodeSetup
    prompts: dict[int, Tensor] = field(default_factory=dict)

    @cached_property
    def model(self) -> UniDiffForBlockDiffusion:
        """Ours."""
        return build_model(self.setup)

    @cached_property
    def qwen3(self) -> Any:
        """Transformers' left-to-right model."""
        return qwen3_twin(self.model)

    @cached_property
    def bidirectional(self) -> Any:
        """The same, attending in both directions."""
        return qwen3_twin(self.model, is_causal=False)

    @cached_property
    def gemma(self) -> Any:
        """Transformers' DiffusionGemma."""
        return equal_gemma(self.setup)

    def prompt(self, batch: int) -> Tensor:
        """(B, L) ids, the same for all contestants."""
        if batch not in self.prompts:
            setup = self.setup
            self.prompts[batch] = build_prompts(
                setup.shape.vocab_size, batch, setup.prompt_tokens, setup.seed
            )
        return self.prompts[batch]

    def makers(self) -> dict[str, Callable[[], Contestant]]:
        """A function for each name of `contestant_names`."""
        first, rows = self.setup.steps[0], self.setup.batches[0]
        found: dict[str, Callable[[], Contestant]] = {
            "unidiff_ar": lambda: self.ours("unidiff_ar", rows, decoding_mode="ar"),
            "transformers_ar": self.transformers_ar,
            f"uncached_s{first}": self.uncached,
            f"unidiff_separate_s{first}": lambda: self.ours(
                f"unidiff_separate_s{first}", rows, max_denoising_steps=first, fuse_commit=False
            ),
        }
        for steps in self.setup.steps:
            name = f"unidiff_s{steps}"
            found[name] = lambda name=name, steps=steps: self.ours(  # type: ignore[misc]
                name, rows, max_denoising_steps=steps
            )
        for batch in self.setup.batches:
            name = f"unidiff_s{first}_b{batch}"
            found[name] = lambda name=name, batch=batch: self.ours(  # type: ignore[misc]
                name, batch, max_denoising_steps=first
            )
            found[f"diffusion_gemma_b{batch}"] = lambda batch=batch: self.diffusion_gemma(  # type: ignore[misc]
                batch
            )
        return found

    def ours(self, name: str, batch: int, **own: Any) -> Contestant:
        """Our `generate`, whole and for one token left to right."""
        options = self.setup.options(**own)
        config = UniDiffGenerationConfig(**options)
        one_token = {**options, "decoding_mode": "ar", "max_new_tokens": 1}
        reads_prompt = UniDiffGenerationConfig(**one_token)
        model, prompt_BL = self.model, self.prompt(batch)

        def run() -> Decoded:
            output: Any = model.generate(prompt_BL, generation_config=config)
            return Decoded(output.sequences, int(output.num_forwards.max()))

        is_ar = own.get("decoding_mode") == "ar"
        return Contestant(
            name=name,
            what="our generate(), " + ("left to right" if is_ar else "block diffusion"),
            batch=batch,
            run=run,
            prefill=lambda: model.generate(prompt_BL, generation_config=reads_prompt),
            tokens_of_prefill=1 if is_ar else 0,
            settings=options,
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            is_ours=True,
        )

    def transformers_ar(self) -> Contestant:
        """Transformers' `generate` on Qwen3 with our weights."""
        model, setup, batch = self.qwen3, self.setup, self.setup.batches[0]
        prompt_BL = self.prompt(batch)
        options = {"do_sample": False, "min_new_tokens": None, "eos_token_id": None}
        mask_BL = torch.ones_like(prompt_BL)

        def generate(new_tokens: int) -> Tensor:
            ids_BT: Tensor = model.generate(
                prompt_BL, attention_mask=mask_BL, max_new_tokens=new_tokens, **options
            )
            return ids_BT

        return Contestant(
            name="transformers_ar",
            what="transformers generate() of Qwen3 with our weights, its sdpa and DynamicCache",
            batch=batch,
            run=lambda: Decoded(generate(setup.new_tokens)),
            prefill=lambda: generate(1),
            tokens_of_prefill=1,
            settings={"max_new_tokens": setup.new_tokens, **options},
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            num_forwards=count_forwards([model], lambda: generate(setup.new_tokens)),
        )

    def uncached(self) -> Contestant:
        """The LLaDA-style loop over transformers' layers."""
        model, setup, batch = self.bidirectional, self.setup, self.setup.batches[0]
        prompt_BL, steps = self.prompt(batch), self.setup.steps[0]

        def run() -> Decoded:
            return Decoded(
                denoise_without_cache(model, prompt_BL, setup.new_tokens, setup.block_length, steps)
            )

        return Contestant(
            name=f"uncached_s{steps}",
            what="LLaDA-style loop: each step a forward over prompt and all masks, all logits",
            batch=batch,
            run=run,
            prefill=None,
            tokens_of_prefill=0,
            settings={"block_length": setup.block_length, "steps": steps},
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            num_forwards=count_forwards([model], run),
        )

    def diffusion_gemma(self, batch: int) -> Contestant:
        """Transformers' block diffusion with its default sampler, never stopping early."""
        model, setup, prompt_BL = self.gemma, self.setup, self.prompt(batch)
        options = {
            "max_new_tokens": setup.new_tokens,
            "max_denoising_steps": setup.steps[0],
            "confidence_threshold": NEVER_CONFIDENT,
        }

        def run() -> Decoded:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(setup.seed)
                return Decoded(model.generate(prompt_BL, **options).sequences)

        @torch.no_grad()
        def prefill() -> Any:
            return model.model.encoder(input_ids=prompt_BL)

        return Contestant(
            name=f"diffusion_gemma_b{batch}",
            what="transformers DiffusionGemma, experts off, early stopping off, default sampler",
            batch=batch,
            run=run,
            prefill=prefill,
            tokens_of_prefill=0,
            settings={**options, "canvas_length": setup.block_length},
            num_parameters=active_parameters(model),
            num_forwards=count_forwards([model.model.encoder, model.model.decoder], run),
        )
