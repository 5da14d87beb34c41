"""pytest plugins/vla/tests/evaluation/test_repairing.py: planted tokens and what comes of them."""

import copy

import numpy as np
import pytest
import torch
from unidiff_vla.environments.tabletop_env import TabletopEnv
from unidiff_vla.evaluation import command
from unidiff_vla.evaluation.plan import EvaluationPlan
from unidiff_vla.evaluation.repairing import (
    PLANS_OF_EPISODE,
    Planted,
    check_plantable,
    plant_and_mend,
)
from unidiff_vla.policy import MaskedDiffusionPolicy, PolicySettings

from unidiff.bundled import bundled_checkpoint
from unidiff.evaluation.intervals import wilson_interval

SECONDARY = {
    "do_sample": False,
    "revision": "secondary",
    "revision_drop": 1.0,
    "unmasking_strategy": "static",
    "max_denoising_steps": 4,
}


@pytest.fixture(scope="module")
def policy_with():
    """The bundled weights, as if they had been trained on visible tokens."""
    torch.set_num_threads(1)
    policy = MaskedDiffusionPolicy.from_pretrained(bundled_checkpoint())
    model = copy.deepcopy(policy.model)
    model.config.trained_on_visible = True
    return lambda **decoding: MaskedDiffusionPolicy(
        model, policy.processor, PolicySettings(decoding={**SECONDARY, **decoding})
    )


def planted_by(policy, number=3):
    return plant_and_mend(policy, [TabletopEnv("reach"), TabletopEnv("push")], [0, 1], number, 5)


def test_a_policy_without_doubt_repairs_nothing(policy_with):
    policy = policy_with(revision_threshold=0.0)
    found = planted_by(policy)
    assert (found.is_wrong.sum((1, 2)) == 3).all()
    assert len(found.planned) <= 4 * PLANS_OF_EPISODE
    codes, wrong = (policy.bins.encode(one) for one in (found.planned, found.drafts))
    assert np.array_equal(codes != wrong, found.is_wrong)
    assert np.abs(codes - wrong)[found.is_wrong].min() >= policy.bins.num_bins // 8
    assert np.array_equal(found.mended, found.drafts)
    report = found.report(np.array([2.0, 2.0]))
    assert (report["repaired"], report["right_tokens_changed"]) == (0.0, 0.0)
    assert report["distance_after"] == report["distance_before"] > 0.1


def test_doubt_replaces_tokens_and_the_seed_repeats_it(policy_with):
    policy = policy_with(revision_threshold=1.0)
    found, again = planted_by(policy), planted_by(policy)
    assert np.array_equal(found.mended, again.mended)
    assert np.array_equal(found.is_wrong, again.is_wrong)
    changed = found.mended != found.drafts
    assert changed[found.is_wrong].any()


@pytest.mark.parametrize(
    ("seed", "number", "layouts"),
    [(0, 50, range(10)), (3, 50, range(150, 160)), (3, 4, range(12, 16))],
)
def test_tokens_are_planted_on_the_layouts_of_the_evaluation_seed(
    seed, number, layouts, policy_with, monkeypatch
):
    asked = []

    def plant(policy, envs, layouts, num_planted, seed):
        asked.append((layouts, num_planted, seed))
        return Planted(*(np.zeros((1, 1, 2)) for _ in range(3)), np.array([[[True, False]]]))

    monkeypatch.setattr(command, "plant_and_mend", plant)
    plan = EvaluationPlan(
        ("tabletop-reach",), seeds=(seed, seed + 1), num_episodes=number, planted=2
    )
    command._repair(policy_with(), plan)
    assert asked == [(layouts, 2, seed)]


def test_rates_by_hand():
    planned = np.zeros((1, 2, 2), dtype=np.float32)
    drafts = np.array([[[1.0, 0.0], [0.8, 0.0]]], dtype=np.float32)
    mended = np.array([[[0.1, 0.0], [0.4, 0.2]]], dtype=np.float32)
    is_wrong = np.array([[[True, False], [True, False]]])
    report = Planted(planned, drafts, mended, is_wrong).report(np.array([2.0, 4.0]))
    assert report["num_planted"] == 2
    assert report["repaired"] == 0.5  # 0.4 is half of 0.8, and not nearer
    assert report["interval"] == list(wilson_interval(1, 2))
    assert report["distance_before"] == pytest.approx(0.45)
    assert report["distance_after"] == pytest.approx(0.125)
    assert report["right_tokens_changed"] == 0.5
    assert report["right_tokens_distance"] == pytest.approx(0.025)


def test_what_cannot_be_planted_is_refused(policy_with):
    policy = policy_with()
    for wrong in (16, -1):
        with pytest.raises(ValueError, match="planted must lie in"):
            check_plantable(policy, wrong)
    plain = MaskedDiffusionPolicy(policy.model, policy.processor, PolicySettings())
    with pytest.raises(ValueError, match="mended by secondary remasking"):
        check_plantable(plain, 3)
