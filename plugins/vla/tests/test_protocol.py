"""pytest plugins/vla/tests/test_protocol.py"""

import numpy as np
import pytest
from unidiff_vla.environments import check_environment, pictures_of

from unidiff.data.sources.tabletop import TabletopEnv


def broken(line, **changes):
    """The line with some parts of its observations replaced, or removed where None."""
    observe = line.observe

    def changed():
        parts = {**observe(), **changes}
        return {name: value for name, value in parts.items() if value is not None}

    line.observe = changed
    return line


def test_the_numpy_table_and_any_look_alike_satisfy_the_protocol(line):
    check_environment(TabletopEnv("push"))
    check_environment(line)
    check_environment(broken(line, image={"left": np.zeros((2, 2, 3), np.uint8)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": None}, "missing \\['state'\\]"),
        ({"instruction": None}, "missing \\['instruction'\\]"),
        ({"instruction": 3}, "a str as instruction"),
        ({"state": np.zeros(2)}, "float32; got \\(2,\\) float64"),
        ({"image": np.zeros((3, 4, 4), np.uint8)}, "\\(H, W, 3\\) uint8; got \\(3, 4, 4\\)"),
        ({"image": np.zeros((4, 4, 3), np.float32)}, "uint8; got \\(4, 4, 3\\) float32"),
        ({"image": {"left": np.zeros(3)}}, "picture 'left'"),
    ],
)
def test_what_does_not_fit_an_observation_is_named(line, changes, message):
    with pytest.raises(ValueError, match=message):
        check_environment(broken(line, **changes))


def test_a_step_of_another_length_and_an_info_without_success_are_named(line):
    step = line.step
    line.step = lambda action: step(action)[:4]
    with pytest.raises(ValueError, match="got 4 values"):
        check_environment(line)
    line.step = lambda action: (*step(action)[:4], {})
    with pytest.raises(ValueError, match="`success` in the info of step"):
        check_environment(line)


def test_a_single_picture_is_a_camera_called_image_and_none_is_no_camera():
    assert list(pictures_of({"image": np.zeros((1, 1, 3))})) == ["image"]
    assert list(pictures_of({"image": {"a": 1, "b": 2}})) == ["a", "b"]
    assert pictures_of({}) == {}
