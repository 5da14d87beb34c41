"""Known answers of the token choice: argmax, top-k, top-p, inverse CDF."""

import pytest
import torch

from unidiff.diffusion.random import uniform
from unidiff.generation.sampling import (
    choose_tokens,
    greedy_tokens,
    inverse_cdf,
    keep_top_k,
    keep_top_p,
)
from unidiff.tokens.layout import MODALITY_IDS


def logits_of(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def test_inverse_cdf_takes_the_first_id_whose_mass_exceeds_the_number() -> None:
    logits = logits_of([0.25, 0.5, 0.25]).expand(5, 3)
    numbers = torch.tensor([1e-9, 0.2499, 0.2501, 0.7499, 0.7501], dtype=torch.float64)
    assert inverse_cdf(logits.softmax(-1), numbers).tolist() == [0, 0, 1, 1, 2]


def test_inverse_cdf_never_takes_an_impossible_id() -> None:
    logits = logits_of([0.0, 0.5, 0.0, 0.5, 0.0]).expand(3, 5)
    numbers = torch.tensor([1e-17, 0.5, 1 - 2.0**-53], dtype=torch.float64)
    assert inverse_cdf(logits.softmax(-1), numbers).tolist() == [1, 3, 3]


def test_drawn_frequencies_are_the_probabilities() -> None:
    logits = logits_of([0.1, 0.2, 0.3, 0.4]).expand(40_000, 4)
    tokens = inverse_cdf(logits.softmax(-1), uniform(3, 0, torch.arange(40_000), 0))
    share = torch.bincount(tokens, minlength=4) / 40_000
    assert share.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.01)


def test_rare_ids_are_drawn_as_often_as_they_should() -> None:
    """A float32 distribution function would round this id away."""
    probability = 2.0**-40
    logits = logits_of([1 - probability, probability]).expand(2, 2)
    inside_and_outside = torch.tensor([1 - 2.0**-41, 1 - 2.0**-39], dtype=torch.float64)
    one = torch.ones(2, dtype=torch.float64)
    assert choose_tokens(logits, one, inside_and_outside).tolist() == [1, 0]


def test_top_k_keeps_the_k_likeliest() -> None:
    logits = logits_of([0.1, 0.4, 0.2, 0.3])
    assert torch.isfinite(keep_top_k(logits, 2)).tolist() == [[False, True, False, True]]
    assert keep_top_k(logits, None) is logits
    assert keep_top_k(logits, 0) is logits
    assert keep_top_k(logits, 9) is logits


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    logits = logits_of([0.1, 0.4, 0.2, 0.3])
    assert torch.isfinite(keep_top_p(logits, 0.65)).tolist() == [[False, True, False, True]]
    assert torch.isfinite(keep_top_p(logits, 0.75)).tolist() == [[False, True, True, True]]
    assert torch.isfinite(keep_top_p(logits, 1e-6)).tolist() == [[False, True, False, False]]
    assert keep_top_p(logits, 1.0) is logits


def test_temperature_zero_is_greedy_and_rows_have_their_own() -> None:
    logits = logits_of([0.5, 0.5, 0.0], [0.3, 0.3, 0.4], [0.2, 0.2, 0.6])
    number = torch.full((3,), 0.25, dtype=torch.float64)
    temperature = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert choose_tokens(logits, temperature, number).tolist() == [0, 2, 1]


def test_temperature_comes_before_top_p() -> None:
    logits = logits_of([0.5, 0.3, 0.2])
    number = torch.tensor([0.999], dtype=torch.float64)
    hot = torch.tensor([1e6], dtype=torch.float64)  # all ids equally likely
    assert choose_tokens(logits, hot, number, top_p=0.7).tolist() == [2]
    assert choose_tokens(logits, hot / 1e6, number, top_p=0.7).tolist() == [1]
    assert choose_tokens(logits, hot, number, top_k=1).tolist() == [0]


@pytest.mark.parametrize("temperature", [1e-320, 1e-300, 1e-30, 1e-3])
@pytest.mark.parametrize("offset", [0.0, 300.0, -300.0])
def test_a_tiny_temperature_takes_the_likeliest_possible_id(
    temperature: float, offset: float
) -> None:
    logits = logits_of([0.0, 0.2, 0.0, 0.5, 0.3, 0.0]) + offset
    for number in (2.0**-53, 0.5, 1 - 2.0**-53):
        chosen = choose_tokens(
            logits,
            torch.tensor([temperature], dtype=torch.float64),
            torch.tensor([number], dtype=torch.float64),
            top_p=0.9,
        )
        assert chosen.tolist() == [3]


def test_the_median_is_the_middle_of_the_mass_and_the_mode_its_peak() -> None:
    peak_at_the_end = logits_of([0.0, 0.2, 0.2, 0.2, 0.1, 0.3, 0.0]).expand(4, 7)
    kinds = torch.tensor([MODALITY_IDS[name] for name in ("action", "state", "text", "image")])
    assert greedy_tokens(peak_at_the_end, kinds, "mode").tolist() == [5, 5, 5, 5]
    assert greedy_tokens(peak_at_the_end, kinds, "median").tolist() == [3, 3, 5, 5]


def test_no_token_is_nearer_on_average_than_the_median() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(200, 9, generator=generator, dtype=torch.float64)
    logits[:, 0] = -torch.inf
    kinds = torch.full((200,), MODALITY_IDS["action"])
    tokens = greedy_tokens(logits, kinds, "median")
    distance = (torch.arange(9)[:, None] - torch.arange(9)).abs().double()
    expected = logits.softmax(-1) @ distance  # (200, 9): of each token
    assert torch.allclose(expected.gather(1, tokens[:, None])[:, 0], expected.amin(1))
    assert (tokens > 0).all()
    assert (tokens != greedy_tokens(logits, kinds, "mode")).any()


def test_a_drawn_position_is_drawn_whatever_greedy_ones_take() -> None:
    logits = logits_of([0.5, 0.2, 0.3]).expand(2, 3)
    temperature = torch.tensor([0.0, 1.0], dtype=torch.float64)
    numbers = torch.tensor([0.9, 0.9], dtype=torch.float64)
    best = torch.tensor([1, 1])
    assert choose_tokens(logits, temperature, numbers, greedy_N=best).tolist() == [1, 2]
    assert best.tolist() == [1, 1]
