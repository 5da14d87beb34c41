"""pytest plugins/vla/tests/test_actions.py"""

from types import SimpleNamespace

import numpy as np
import pytest
from unidiff_vla.environments import bounds_of, checked_action

LOW, HIGH = np.array([-1.0, 0.0]), np.array([1.0, 5.0])


def test_an_action_out_of_range_is_clipped_and_one_inside_is_kept():
    np.testing.assert_array_equal(checked_action([-3, 9], LOW, HIGH), [-1, 5])
    np.testing.assert_array_equal(checked_action([0.5, 2.0], LOW, HIGH), [0.5, 2.0])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_refused(wrong):
    with pytest.raises(ValueError, match="finite numbers in an action"):
        checked_action([0.0, wrong], LOW, HIGH)


def test_an_action_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(8, 2\)"):
        checked_action(np.zeros((8, 2)), LOW, HIGH)


def test_bounds_may_be_single_numbers():
    low, high = bounds_of(SimpleNamespace(shape=(3,), low=-1.0, high=2.0))
    np.testing.assert_array_equal(low, [-1, -1, -1])
    np.testing.assert_array_equal(high, [2, 2, 2])


def test_a_space_that_is_no_box_is_refused():
    with pytest.raises(ValueError, match=r"action_space of shape \(D,\)"):
        bounds_of(SimpleNamespace(n=4))
