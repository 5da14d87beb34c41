"""A UniDiff checkpoint as a robot policy: chunks for observations, and actions one by one.

    policy = MaskedDiffusionPolicy.from_pretrained(folder)
    chunk = policy.predict_action_chunk(observation)          # (1, horizon, dof)
    policy.reset()
    while not done:
        action = policy.select_action(observation)            # (dof,)

Chunks are action tokens, decoded as the settings say: in any order by masked diffusion, in one step
for weights trained on whole masked chunks, or left to right (`decoding_mode="ar"`) for weights
trained that way.

The prompt is `<|bos|><|user|>`, the picture, the state, the instruction. Its order is the
checkpoint's, and under causal attention only what stands before the first changed token keeps its
keys: two tokens and the codes of the picture down to the first change. The instruction stands
behind the picture, so its keys change with it, although its words do not (`reuses_prompt`).
"""

# Shapes: B observations, T timesteps, D dimensions.

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from unidiff.plugins.answers import check_fits

from .chunk_policy import ChunkPolicy
from .fit import check_ordered, check_pinnable, check_trained_for, fewest_steps
from .observations import Observation
from .pins import Pins, pin, steps_of
from .records import ChunkRecord, chunk_traces, confidence_of, num_shared
from .safety import safe_actions
from .settings import PolicySettings, check_decoding


class MaskedDiffusionPolicy(ChunkPolicy):
    """Plans chunks of action tokens by `generate()`; see `ChunkPolicy` for the attributes."""

    def __init__(self, model: Any, processor: Any, settings: PolicySettings | None = None) -> None:
        """Policy of a loaded checkpoint.

        Args:
            model: `UniDiffForBlockDiffusion`.
            processor: with action bins that have a horizon.
            settings: None: the defaults.

        Raises:
            ValueError: if the checkpoint has no actions, settings and checkpoint do not fit, or the
                settings ask for what the weights were not trained for.
        """
        super().__init__(model, processor, settings)
        pinning = ("inference_delay", "warm_start")
        check_pinnable(self.bins, [name for name in pinning if getattr(self.settings, name)])
        self._check({**model.generation_config.given(), **self.settings.decoding})
        model.decoding_session(**self.settings.decoding)  # raises where an option does not fit

    @torch.inference_mode()
    def _plan(
        self,
        observations: Sequence[Observation],
        pins: Sequence[Pins],
        keys: Sequence[int],
        options: dict[str, Any],
        *,
        uses_past: bool = False,
    ) -> tuple[ChunkRecord, Any]:
        """Chunks of B observations, and the cache of their prompts where it is to be kept."""
        start = time.perf_counter()
        check_decoding(options)
        given = {**self.settings.decoding, **options}
        full = {**self.model.generation_config.given(), **given}
        self._check(full)
        inputs = self.encoder(observations)
        check_fits(self.model, inputs)
        pin(inputs, pins, self.processor)
        is_part = any(one.is_pinned_TD.any() for one in pins)
        if is_part and not self.settings.foresees:
            steps = full.get("max_denoising_steps")
            given["max_denoising_steps"] = steps_of(steps, pins, fewest_steps(full))
        keeps_past = uses_past and self.settings.reuses_prompt
        output = self.model.generate(
            **inputs.to(self.model.device),
            **given,
            **self._weaker(given),
            past_key_values=self._episode.past if keeps_past else None,
            seed=list(keys),
            use_cache=keeps_past,
            return_trace=True,
            return_dict_in_generate=True,
        )
        traces = chunk_traces(output.trace, inputs["canvas"].shape[1] - self.bins.num_tokens)
        is_pinned = np.stack([one.is_pinned_TD for one in pins])
        answers = self.processor.post_process(output, inputs)
        futures = [one["image"] for one in answers] if self.settings.foresees else []
        planned = [one["action"] for one in answers] if self.settings.foresees else answers
        known = np.stack([one.values_TD for one in pins])
        chunks = safe_actions(np.where(is_pinned, known, np.stack(planned)), self.bins)
        past = output.past_key_values if keeps_past else None
        old_ids = self._episode.past.token_ids[0] if past and self._episode.past else []
        self.last_record = ChunkRecord(
            chunks=chunks,
            confidence=confidence_of(traces, self.bins.grid),
            is_pinned=is_pinned,
            num_forwards=tuple(output.num_forwards.tolist()),
            seeds=tuple(output.row_seeds.tolist()),
            traces=traces,
            num_prompt_tokens=tuple(inputs["attention_mask"].sum(1).tolist()),
            num_reused_tokens=num_shared(old_ids, past.token_ids[0] if past else []),
            seconds=time.perf_counter() - start,
            futures=tuple(futures),
        )
        return self.last_record, past

    def _check(self, decoding: Mapping[str, Any]) -> None:
        """Raise ValueError if keywords ask for what weights or action tokens cannot give."""
        check_trained_for(self.model.config, decoding, self.settings.foresees)
        check_ordered(self.bins, decoding)

    def _weaker(self, options: dict[str, Any]) -> dict[str, Any]:
        """The prompt with a dropped condition, where guidance wants one."""
        if options.get("guidance_scale", 1.0) == 1.0:
            return {}
        dropped = self.processor.for_dropped_condition(self.encoder.want).to(self.model.device)
        return {f"negative_{name}": dropped[name] for name in ("input_ids", "attention_mask")}
