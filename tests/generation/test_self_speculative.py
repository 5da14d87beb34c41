"""Self-speculation: what drafts save, and when `auto` stops drafting. Its law is tested elsewhere.

tests/generation/test_exact_denoiser.py holds the sampled law, tests/model/test_invariances.py the
equality with `ar`.
"""

from typing import Any

import torch

from unidiff.generation.drafts import Acceptance
from unidiff.generation.generate import generate
from unidiff.generation.inputs import GenerationInputs
from unidiff.generation.options import OPTIONS


def decoded(denoiser: Any, num_rows: int = 1, **options: Any) -> Any:
    settings = {**OPTIONS, "max_new_tokens": 3, "seed": 1, "decoding_mode": "self_speculative"}
    prompts = torch.zeros(num_rows, 1, dtype=torch.int64)
    return generate(denoiser, {**settings, **options}, GenerationInputs(input_ids=prompts))


def test_independent_tokens_are_all_kept(table_denoiser: Any) -> None:
    """Where places do not depend on each other the draft's law is the reading's."""
    marginal = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    joint = torch.einsum("i,j,k->ijk", marginal, marginal, marginal)
    output = decoded(type(table_denoiser)(joint), num_rows=50, do_sample=True)
    assert output.num_forwards.tolist() == [2] * 50  # a draft of two, and one more from the reading
    assert output.tokens_per_forward.tolist() == [1.5] * 50


def test_a_refused_first_token_takes_no_second_forward(table_denoiser: Any) -> None:
    """The canvas is sure of id 0, the reading of id 2."""

    class Wrong(type(table_denoiser)):
        def probe(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            logits = super().probe(*args, **kwargs)
            return torch.where(torch.arange(logits.shape[1]) == 0, 0.0, -100.0).expand_as(logits)

    joint = torch.zeros(3, 3, 3, dtype=torch.float64)
    joint[2, 2, 2] = 1.0
    output = decoded(Wrong(joint))
    assert output.sequences[0, 1:].tolist() == [2, 2, 2]
    assert output.num_forwards.tolist() == [3]


def test_a_trial_that_does_not_pay_pauses_twice_as_long_each_time() -> None:
    acceptance = Acceptance()
    pauses = []
    for _ in range(3):
        for _ in range(4):
            acceptance.note(num_tokens=1, num_forwards=1)
        pauses.append(acceptance.pause)
    assert pauses == [64, 128, 256]


def test_a_trial_that_pays_goes_on() -> None:
    acceptance = Acceptance()
    for _ in range(40):
        acceptance.note(num_tokens=5, num_forwards=2)
    assert acceptance.pause == 0
