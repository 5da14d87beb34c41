"""Closed-loop success of an expert, of a policy that stands still, and of a disobedient one."""

import numpy as np
import pytest

from unidiff.data.sources.tabletop import colour_in
from unidiff.data.sources.tabletop_expert import plan_chunk
from unidiff.data.sources.tabletop_rollout import evaluation_seeds
from unidiff.data.sources.tabletop_scene import TASKS, advance, render_scene, sample_scene
from unidiff.evaluation.control import measure_control, random_policy
from unidiff.evaluation.pictures import decode_pictures

SETTINGS = {"num_seeds": 3, "replan_every": 8, "sampler": {}}


def text_of(conversation):
    return " ".join(part["text"] for part in conversation[0]["content"] if part["type"] == "text")


def expert(context, obeys=True):
    """Recognises each table by its picture and plans on its own copy of it."""
    scenes = {}
    for task in TASKS:
        for seed in evaluation_seeds(SETTINGS["num_seeds"]):
            scene = sample_scene(task, seed)
            scenes[render_scene(scene).tobytes()] = scene

    def actions(conversations):
        chunks = []
        codes = np.stack([one[0]["content"][0]["codes"] for one in conversations])
        pictures = decode_pictures(context.processor, codes)
        for picture, conversation in zip(pictures, conversations, strict=True):
            scene = scenes[picture.tobytes()]
            told = scene.with_goal(colour_in(text_of(conversation))) if obeys else scene
            chunk = plan_chunk(told)
            for action in np.clip(chunk, -1, 1):
                scene = advance(scene, float(action[0]), float(action[1]))
            scenes[render_scene(scene).tobytes()] = scene
            chunks.append(chunk)
        return np.stack(chunks)

    return actions


@pytest.fixture
def context(context_with):
    return context_with(actions=lambda asked: np.zeros((len(asked), 8, 2)))


def test_an_obedient_expert_succeeds_and_follows_the_swapped_instruction(context):
    context.responder._answers["actions"] = expert(context)
    (found,) = measure_control(context, SETTINGS)
    assert found.value == 1.0
    assert found.num_inputs == 6
    for task in TASKS:
        assert found.details[task]["swapped"]["success"] == 0.0
        assert found.details[task]["swapped"]["wrong_target"] == 1.0
    assert found.conditions == {"swapped_at_most_0.2": True}


def test_an_expert_that_ignores_the_instruction_fails_the_condition(context):
    context.responder._answers["actions"] = expert(context, obeys=False)
    (found,) = measure_control(context, SETTINGS)
    assert found.value == 1.0
    assert found.conditions == {"swapped_at_most_0.2": False}


def test_a_policy_that_stands_still_never_succeeds(context):
    (found,) = measure_control(context, SETTINGS)
    assert found.value == 0.0
    assert {found.details[task]["random"]["success"] for task in TASKS} == {0.0}


def test_the_random_policy_is_reproducible_and_in_range():
    images = [np.zeros((32, 32, 3), np.uint8)] * 3
    one, two = (random_policy(np.random.default_rng(5))(images, [], []) for _ in range(2))
    assert np.array_equal(one, two)
    assert np.abs(one).max() <= 1.0
    assert np.std(one) > 0.3
