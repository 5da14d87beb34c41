"""Mixing the branches of guidance."""

import pytest
import torch

from unidiff.generation.guidance import GUIDANCE_SCHEDULES, Guidance, guidance_of
from unidiff.generation.options import OPTIONS

BOTH = torch.tensor([[3.0, 1.0], [2.0, 2.0]])


def test_guidance_extrapolates_and_scale_one_is_the_conditional() -> None:
    assert Guidance((1.0,)).mix(BOTH).tolist() == [[3.0, 1.0]]
    assert Guidance((3.0,)).mix(BOTH).tolist() == [[5.0, -1.0]]
    assert Guidance((0.0,)).mix(BOTH).tolist() == [[2.0, 2.0]]
    assert Guidance().mix(BOTH) is BOTH


def test_two_links_have_a_scale_each() -> None:
    whole, nothing, picture = [4.0, 0.0], [1.0, 1.0], [2.0, 0.5]
    mixed = Guidance((1.5, 3.0)).mix(torch.tensor([whole, nothing, picture]))
    expected = [
        n + 1.5 * (p - n) + 3.0 * (w - p) for w, n, p in zip(whole, nothing, picture, strict=True)
    ]
    assert mixed.tolist() == [pytest.approx(expected)]


def test_scales_of_one_leave_the_whole_prompt() -> None:
    three = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Guidance((1.0, 1.0)).mix(three), three[:2])


@pytest.mark.parametrize(
    ("schedule", "scales"), [("constant", [3, 3, 3]), ("rising", [1, 2, 3]), ("falling", [3, 2, 1])]
)
def test_the_schedule_moves_the_scale_between_one_and_its_value(
    schedule: str, scales: list[float]
) -> None:
    weaker, stronger = torch.zeros(3, 1), torch.ones(3, 1)
    progress = torch.tensor([0.0, 0.5, 1.0])
    mixed = Guidance((3.0,), schedule).mix(torch.cat([stronger, weaker]), progress)
    assert mixed[:, 0].tolist() == scales
    assert schedule in GUIDANCE_SCHEDULES


def test_options_name_the_links() -> None:
    assert guidance_of(OPTIONS) == Guidance()
    assert guidance_of({**OPTIONS, "guidance_scale": [1.0, 1.0]}) == Guidance()
    assert guidance_of({**OPTIONS, "guidance_scale": 2}).scales == (2.0,)
    chosen = guidance_of({**OPTIONS, "guidance_scale": [1.5, 3.0], "guidance_schedule": "rising"})
    assert chosen == Guidance((1.5, 3.0), "rising")
