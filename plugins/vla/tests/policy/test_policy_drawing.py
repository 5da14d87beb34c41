"""python -m pytest plugins/vla/tests/policy/test_policy_drawing.py"""

import numpy as np
import pytest
from PIL import Image
from unidiff_vla.policy import draw_remasking, num_reveals

from unidiff.generation.trace import Trace


def trace_of(*reveals):
    trace = Trace()
    for step, index, confidence in reveals:
        trace.note(step, index, 5, confidence)
    return trace


def num_red(path):
    """Pixels of the colour in which what was given back is drawn."""
    pixels = np.array(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(pixels - (214, 39, 40)).max(-1) < 12).sum())


def test_reveals_are_counted_by_place():
    trace = trace_of((1, 0, 0.9), (1, 3, 0.2), (2, 3, 0.4), (3, 3, 0.8))
    assert num_reveals(trace, (2, 2)).tolist() == [[1, 0], [0, 3]]


def test_a_token_given_back_is_ringed_and_no_other(tmp_path):
    draw_remasking(trace_of((1, 0, 0.9), (2, 3, 0.8)), tmp_path / "plain.png", (2, 2))
    draw_remasking(trace_of((1, 0, 0.9), (3, 0, 0.8)), tmp_path / "again.png", (2, 2))
    assert num_red(tmp_path / "plain.png") == 0
    assert num_red(tmp_path / "again.png") > 20


def test_a_real_trace_is_drawn(visible_policy_with, observations, tmp_path):
    policy = visible_policy_with(
        decoding={"revision": "secondary", "revision_threshold": 0.9, "max_denoising_steps": 6}
    )
    policy.predict_action_chunk(observations[0])
    path = tmp_path / "remasking.png"
    draw_remasking(policy.last_record.traces[0], path, (policy.horizon, policy.dof))
    assert num_red(path) > 20


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing was revealed"):
        draw_remasking(Trace(), tmp_path / "no.png", (2, 2))
    with pytest.raises(ValueError, match="reveals place 4"):
        draw_remasking(trace_of((1, 4, 0.5)), tmp_path / "no.png", (2, 2))
