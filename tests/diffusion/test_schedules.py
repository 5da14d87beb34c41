"""Schedules: known values, and weights that follow from alpha by finite differences."""

import math

import pytest
import torch

from unidiff.diffusion.schedules import SCHEDULES, CosineSchedule, LinearSchedule, Schedule

TIMES = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_alpha_falls_from_clean_to_noise(name: str) -> None:
    alpha = SCHEDULES[name].alpha(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert alpha[0] == pytest.approx(1.0, abs=1e-12)
    assert alpha[-1] == pytest.approx(0.0, abs=1e-12)
    assert (alpha.diff() < 0).all()


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_weight_is_the_rate_of_masking_over_the_masked_share(name: str) -> None:
    schedule: Schedule = SCHEDULES[name]
    step = 1e-6
    slope = (schedule.alpha(TIMES + step) - schedule.alpha(TIMES - step)) / (2 * step)
    expected = -slope / (1 - schedule.alpha(TIMES))
    torch.testing.assert_close(schedule.weight(TIMES), expected, rtol=1e-7, atol=1e-9)


def test_linear_schedule_has_known_values() -> None:
    time = torch.tensor([0.25, 0.5, 1.0])
    assert LinearSchedule().alpha(time).tolist() == [0.75, 0.5, 0.0]
    assert LinearSchedule().weight(time).tolist() == [4.0, 2.0, 1.0]


def test_cosine_schedule_has_known_values() -> None:
    time = torch.tensor([1 / 3, 0.5], dtype=torch.float64)
    alpha = CosineSchedule().alpha(time).tolist()
    assert alpha == pytest.approx([1 - math.cos(math.pi / 3), 1 - math.sqrt(0.5)])
    weight = CosineSchedule().weight(time).tolist()
    assert weight == pytest.approx([math.pi / 2 * math.sqrt(3), math.pi / 2])
