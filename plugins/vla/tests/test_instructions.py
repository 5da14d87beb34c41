"""pytest plugins/vla/tests/test_instructions.py"""

import pytest
from unidiff_vla.environments import METAWORLD_TASKS, choose_instruction, instructions_of
from unidiff_vla.environments.instructions import (
    swapped_task,
    told_in_training,
    training_wordings,
)

TASKS = (*METAWORLD_TASKS, "pusht")


def test_there_are_fifty_tasks_each_with_wordings_of_its_own():
    assert len(METAWORLD_TASKS) == 50
    told = [phrase for task in TASKS for phrase in instructions_of(task)]
    assert len(told) == len(set(told)) == 4 * len(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_the_held_out_wording_is_never_recorded_and_a_swapped_one_never_fits(task):
    known = {choose_instruction(task, "known", seed) for seed in range(40)}
    assert known == set(instructions_of(task)[:-1])
    assert choose_instruction(task, "held_out", 0) == instructions_of(task)[-1]
    assert choose_instruction(task, "swapped", 3) not in instructions_of(task)
    assert choose_instruction(task, "known", 7) == choose_instruction(task, "known", 7)


def test_a_swap_is_the_opposite_where_there_is_one():
    assert swapped_task("drawer-open") == "drawer-close"
    assert swapped_task("window-close") == "window-open"
    assert swapped_task("door-lock") == "door-unlock"
    assert swapped_task("handle-press-side") == "handle-pull-side"
    assert swapped_task("reach") == "push"
    assert swapped_task("hammer") == "reach"


def test_an_unknown_task_or_wording_is_refused():
    with pytest.raises(ValueError, match="task must be one of"):
        instructions_of("juggle")
    with pytest.raises(ValueError, match="wording must be one of"):
        choose_instruction("reach", "loud", 0)


def test_training_tells_more_wordings_and_never_the_held_out_one():
    told = told_in_training({"drawer-open", "button-press-topdown", "window-open"})
    sentences, tasks = [text for text, _ in told], {task for _, task in told}
    assert len(sentences) == len(set(sentences))
    assert not set(sentences) & {instructions_of(task)[-1] for task in METAWORLD_TASKS}
    assert sum(task == "drawer-open" for _, task in told) == 10
    assert {"drawer-close", "window-close", "reach", "push"} <= tasks
    assert not {"button-press", "button-press-wall"} & tasks  # they could be meant


def test_further_wordings_belong_to_one_task_alone():
    every = [text for task in METAWORLD_TASKS for text in training_wordings(task)]
    assert len(every) == len(set(every))
