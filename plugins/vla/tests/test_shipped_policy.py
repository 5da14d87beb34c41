"""pytest plugins/vla/tests/test_shipped_policy.py: the Meta-World weights of the package."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from unidiff_vla.driving import Drive, View, drive
from unidiff_vla.environments import find_environment, make_environment
from unidiff_vla.environments.instructions import task_of_instruction
from unidiff_vla.environments.metaworld_env import load_metaworld
from unidiff_vla.loading import METAWORLD_CHECKPOINT, METAWORLD_SIX
from unidiff_vla.policy import MaskedDiffusionPolicy, PolicySettings

CODES = Path(__file__).parents[3] / "training_state" / "metaworld" / "codes.npz"


@pytest.fixture(scope="module")
def policy() -> MaskedDiffusionPolicy:
    torch.set_num_threads(1)
    return MaskedDiffusionPolicy.from_pretrained(METAWORLD_CHECKPOINT)


@pytest.fixture(scope="module")
def demonstrated(policy: MaskedDiffusionPolicy) -> tuple[list[dict], np.ndarray]:
    """Observations of ten frames of each task, and what the expert did."""
    with np.load(CODES, allow_pickle=False) as stored:
        kept = {name: stored[name] for name in stored.files}
    kept["pictures"] = kept["pictures"][np.cumsum(kept["is_fresh"]) - 1]  # one of each frame
    told = [str(one) for one in kept["instructions"]]
    tasks = np.array([task_of_instruction(one) for one in told])[kept["instruction_index"]]
    tasks = np.where(kept["is_fresh"], tasks, "")  # without a picture of their own
    rng = np.random.default_rng(0)
    places = [rng.choice(np.flatnonzero(tasks == task), 10) for task in np.unique(tasks) if task]
    states = policy.processor.bins_of("state")
    seen = [
        {
            "images": {
                str(camera): {"codes": kept["pictures"][place, number].astype(np.int64)}
                for number, camera in enumerate(kept["cameras"])
            },
            "state": states.decode(kept["states"][place]),
            "instruction": told[kept["instruction_index"][place]],
        }
        for place in np.concatenate(places)
    ]
    return seen, policy.bins.decode(kept["chunks"][np.concatenate(places)])


def test_it_plans_what_the_expert_did(
    policy: MaskedDiffusionPolicy, demonstrated: tuple[list[dict], np.ndarray]
) -> None:
    """Weights, image tokenizer, bins and codes belong together; by chance it would be about 0.6."""
    seen, expected = demonstrated
    chunks = policy.predict_action_chunk(seen)
    assert set(policy.last_record.num_forwards) == {4}
    error = float(np.abs(chunks - expected).mean())
    print("mean distance to the expert's actions", error)
    assert error < 0.12


def test_told_otherwise_it_keeps_still(
    policy: MaskedDiffusionPolicy, demonstrated: tuple[list[dict], np.ndarray]
) -> None:
    seen, _ = demonstrated
    other = [one["instruction"] for one in seen[30:] + seen[:30]]  # three tasks further
    swapped = [{**one, "instruction": told} for one, told in zip(seen, other, strict=True)]
    own, still = (
        np.abs(policy.predict_action_chunk(some)[..., :3]).mean() for some in (seen, swapped)
    )
    assert still < own / 3


def test_its_folder_says_how_it_was_made(policy: MaskedDiffusionPolicy) -> None:
    log = json.loads((METAWORLD_CHECKPOINT / "training_log.json").read_text(encoding="utf-8"))
    assert tuple(log["cameras"]) == policy.settings.cameras == ("side", "front")
    assert log["recipe"]["objective"] == "masked"
    assert policy.model.config.trained_on_visible


def test_it_closes_drawers_it_has_not_seen(policy: MaskedDiffusionPolicy) -> None:
    try:
        load_metaworld()  # it chooses how MuJoCo renders; a bare import would choose otherwise
    except ImportError as error:
        pytest.skip(str(error))
    name = METAWORLD_SIX[3]
    assert name == "metaworld-drawer-close"
    env = make_environment(find_environment(name), "test", policy.settings.cameras)
    try:
        runs = drive(policy, [env], range(4), Drive(View.of(policy)))
    finally:
        env.close()
    assert sum(run.success for run in runs) >= 3


def test_what_it_was_not_trained_for_is_refused(policy: MaskedDiffusionPolicy) -> None:
    for settings in ({"foresees": True}, {"decoding": {"decoding_mode": "ar"}}):
        with pytest.raises(ValueError, match="these weights were trained"):
            MaskedDiffusionPolicy(policy.model, policy.processor, PolicySettings(**settings))
