"""Self-speculation: what drafts save, and when `auto` stops drafting.

tests/generation/test_exact_denoiser.py holds the sampled law, tests/model/test_self_speculation.py
the equality with `ar` on a model.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unidiff.generation.drafts import Drafting
from unidiff.generation.generate import generate
from unidiff.generation.inputs import GenerationInputs
from unidiff.generation.options import OPTIONS


def decoded(denoiser: Any, num_rows: int = 1, **options: Any) -> Any:
    settings = {**OPTIONS, "max_new_tokens": 3, "seed": 1, "decoding_mode": "self_speculative"}
    prompts = torch.zeros(num_rows, 1, dtype=torch.int64)
    return generate(denoiser, {**settings, **options}, GenerationInputs(input_ids=prompts))


def test_the_draft_of_independent_tokens_is_right(table_denoiser: Any) -> None:
    """The first round draws one token, the second reads the next, drafted, and one more."""
    marginal = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    joint = torch.einsum("i,j,k->ijk", marginal, marginal, marginal)
    output = decoded(type(table_denoiser)(joint), do_sample=False)
    assert output.sequences[0, 1:].tolist() == [1, 1, 1]
    assert output.num_forwards.tolist() == [2]
    assert output.tokens_per_forward.tolist() == [1.5]


def test_a_wrong_draft_takes_no_forward_of_its_own(table_denoiser: Any) -> None:
    """The canvas is sure of id 0, the reading of id 2."""

    class Wrong(type(table_denoiser)):
        def verify(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            logits, predict = super().verify(*args, **kwargs)

            def sure_of_0(mask_BK: Tensor) -> Tensor:
                wrong = predict(mask_BK)
                return torch.where(torch.arange(wrong.shape[1]) == 0, 0.0, -100.0).expand_as(wrong)

            return logits, sure_of_0

    joint = torch.full((3, 3, 3), 1e-6, dtype=torch.float64)
    joint[2, 2, 2] = 1.0
    output = decoded(Wrong(joint))
    assert output.sequences[0, 1:].tolist() == [2, 2, 2]
    assert output.num_forwards.tolist() == [3]


@pytest.mark.parametrize("mode", ["self_speculative", "auto"])
def test_sampled_tokens_are_those_of_ar_for_the_same_seed(mode: str, table_denoiser: Any) -> None:
    options = {"num_rows": 300, "do_sample": True, "seed": 7}
    expected = decoded(table_denoiser, decoding_mode="ar", **options)
    output = decoded(table_denoiser, decoding_mode=mode, **options)
    assert torch.equal(output.sequences, expected.sequences)
    assert (output.num_forwards < expected.num_forwards).any()  # some drafts were right
    assert (output.num_forwards == expected.num_forwards).any()  # and some were not


def test_processors_see_no_draft_that_was_refused(table_denoiser: Any) -> None:
    """One that knows no way on from id 0 is never asked for one, although canvases say 0."""
    joint = torch.full((3, 3, 3), 1e-6, dtype=torch.float64)
    joint[1, 1, 2], joint[1, 2, 1], joint[1, 0, 0] = 0.3, 0.3, 0.39  # second place: 0 likeliest
    seen = []

    def never_0(ids: Tensor, scores: Tensor) -> Tensor:
        seen.append(ids[0, 1:].tolist())
        return scores.masked_fill(torch.arange(scores.shape[1]) == 0, -torch.inf)

    settings = {**OPTIONS, "max_new_tokens": 3, "seed": 1, "decoding_mode": "self_speculative"}
    prompt = GenerationInputs(input_ids=torch.zeros(1, 1, dtype=torch.int64))
    generate(type(table_denoiser)(joint), settings, prompt, processors=[never_0])
    assert seen
    assert all(0 not in ids for ids in seen)


def test_a_trial_that_does_not_pay_pauses_twice_as_long_each_time() -> None:
    drafting, pauses = Drafting(), []
    for _ in range(3):
        for _ in range(4):
            drafting.note(num_drafted=3, num_tokens=1)
        pauses.append(drafting.pause)
        drafting.note(num_drafted=0, num_tokens=drafting.pause)
        assert drafting.pause == 0
    assert pauses == [64, 128, 256]


def test_a_trial_that_pays_goes_on() -> None:
    drafting = Drafting()
    for _ in range(40):
        drafting.note(num_drafted=3, num_tokens=2)
    assert drafting.pause == 0


def test_rounds_without_a_draft_are_no_trial() -> None:
    drafting = Drafting()
    for _ in range(40):
        drafting.note(num_drafted=0, num_tokens=1)
    assert drafting.pause == 0
