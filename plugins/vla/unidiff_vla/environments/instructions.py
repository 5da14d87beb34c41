"""What a policy is told: wordings of each task, wordings kept for testing, and wrong instructions.

A task's wordings are shared out: all but the last may be recorded, the last is held out, so that a
test can tell understanding from a learnt sentence. Training tells further ones. `swapped_task`
names a task that could be meant in the same scene: a policy told so should fail at the scene's own
task.
"""

import numpy as np

WORDINGS = ("known", "held_out", "swapped")

# Wordings of a task; the last one is held out.
_PHRASED: dict[str, tuple[str, ...]] = {
    "reach": (
        "reach the red ball",
        "move the hand to the red ball",
        "go to the red marker",
        "bring the gripper to the red ball",
    ),
    "push": (
        "push the puck to the green ball",
        "slide the puck over to the green marker",
        "move the puck along the table to the green ball",
        "shove the puck to where the green ball is",
    ),
    "pick-place": (
        "pick up the puck and bring it to the blue ball",
        "lift the puck to the blue marker",
        "grasp the puck and carry it to the blue ball",
        "take the puck up to where the blue ball is",
    ),
    "drawer-open": (
        "open the drawer",
        "pull the drawer out",
        "pull the handle of the drawer",
        "get the drawer open",
    ),
    "drawer-close": (
        "close the drawer",
        "push the drawer in",
        "shut the drawer",
        "get the drawer closed",
    ),
    "button-press-topdown": (
        "press the button from above",
        "push the red button down",
        "press down on the button",
        "hit the button from the top",
    ),
    "window-open": (
        "open the window",
        "slide the window open",
        "push the handle of the window aside",
        "get the window open",
    ),
    "window-close": (
        "close the window",
        "slide the window shut",
        "push the handle of the window back",
        "get the window closed",
    ),
    "pusht": (
        "push the T onto the green outline",
        "move the grey T to the green T",
        "cover the green shape with the T",
        "get the T to lie on its green mark",
    ),
}

# Further wordings, told in training beside those of a recording and in no evaluation. Three
# wordings do not teach what a fourth one means.
_FURTHER: dict[str, tuple[str, ...]] = {
    "reach": (
        "touch the red ball",
        "put the hand at the red ball",
        "move over to the red marker",
        "take the gripper to the red marker",
        "bring the hand to where the red ball is",
        "get the gripper to the red marker",
        "let the hand go to the red ball",
    ),
    "push": (
        "push the puck to where the green marker is",
        "shove the puck over to the green marker",
        "get the puck to the green ball",
        "bring the puck along the table to the green marker",
        "move the puck to the green ball",
        "slide the puck to where the green ball is",
        "let the puck slide to the green marker",
    ),
    "drawer-open": (
        "make the drawer open",
        "have the drawer open",
        "get the drawer out",
        "the drawer should be open",
        "pull it so that the drawer is open",
        "leave the drawer open",
        "bring the drawer out by its handle",
    ),
    "drawer-close": (
        "make the drawer closed",
        "have the drawer closed",
        "get the drawer in",
        "the drawer should be closed",
        "push it so that the drawer is closed",
        "leave the drawer closed",
        "bring the drawer back in",
    ),
    "button-press-topdown": (
        "hit the button from above",
        "press the red button down",
        "push down on the button from the top",
        "get the button down",
        "the button should be down",
        "bring the hand down on the button",
        "press the top of the button",
    ),
    "window-open": (
        "make the window open",
        "have the window open",
        "the window should be open",
        "slide the handle so that the window is open",
        "leave the window open",
        "push the window open by its handle",
        "get the window to slide open",
    ),
    "window-close": (
        "make the window closed",
        "have the window closed",
        "the window should be closed",
        "slide the handle so that the window is closed",
        "leave the window closed",
    ),
}

# The other tasks, in one sentence each.
_PLAIN: dict[str, str] = {
    "assembly": "put the ring onto the peg",
    "basketball": "drop the ball into the basket",
    "bin-picking": "move the object into the other bin",
    "box-close": "put the lid on the box",
    "button-press-topdown-wall": "press the button behind the wall from above",
    "button-press": "press the button",
    "button-press-wall": "press the button behind the wall",
    "coffee-button": "press the button of the coffee machine",
    "coffee-pull": "pull the mug away from the coffee machine",
    "coffee-push": "push the mug under the coffee machine",
    "dial-turn": "turn the dial",
    "disassemble": "take the ring off the peg",
    "door-close": "close the door",
    "door-lock": "lock the door",
    "door-open": "open the door",
    "door-unlock": "unlock the door",
    "hand-insert": "put the hand into the hole",
    "faucet-open": "turn the faucet on",
    "faucet-close": "turn the faucet off",
    "hammer": "hammer the nail in",
    "handle-press-side": "press the handle down from the side",
    "handle-press": "press the handle down",
    "handle-pull-side": "pull the handle up from the side",
    "handle-pull": "pull the handle up",
    "lever-pull": "pull the lever up",
    "pick-place-wall": "carry the puck over the wall to the ball",
    "pick-out-of-hole": "take the puck out of the hole",
    "plate-slide": "slide the plate into the cabinet",
    "plate-slide-side": "slide the plate sideways into the cabinet",
    "plate-slide-back": "slide the plate back out of the cabinet",
    "plate-slide-back-side": "slide the plate sideways out of the cabinet",
    "peg-insert-side": "put the peg into the hole",
    "peg-unplug-side": "pull the peg out of the hole",
    "soccer": "kick the ball into the goal",
    "stick-push": "push the box with the stick",
    "stick-pull": "pull the box with the stick",
    "push-wall": "push the puck around the wall to the ball",
    "push-back": "push the block back to the ball",
    "reach-wall": "reach the ball behind the wall",
    "shelf-place": "put the block onto the shelf",
    "sweep-into": "sweep the block into the hole",
    "sweep": "sweep the block off the table",
}

METAWORLD_TASKS = tuple(sorted((set(_PHRASED) - {"pusht"}) | set(_PLAIN)))

_SWAPS = {
    "reach": "push",
    "push": "reach",
    "pick-place": "reach",
    "pusht": "reach",
    "button-press-topdown": "drawer-open",
}
_OPPOSITES = (("open", "close"), ("lock", "unlock"), ("press", "pull"), ("push", "pull"))


def instructions_of(task: str) -> tuple[str, ...]:
    """Every wording of a task; the last one is held out from training.

    Raises:
        ValueError: if the task is unknown.
    """
    if task in _PHRASED:
        return _PHRASED[task]
    if task not in _PLAIN:
        raise ValueError(f"task must be one of {(*METAWORLD_TASKS, 'pusht')}; got {task=}")
    plain = _PLAIN[task]
    return (plain, f"please {plain}", f"now {plain}", f"your task is to {plain}")


def training_wordings(task: str) -> tuple[str, ...]:
    """Every wording of a task that training may tell: all but the one that is held out.

    Raises:
        ValueError: if the task is unknown.
    """
    return (*instructions_of(task)[:-1], *_FURTHER.get(task, ()))


def told_in_training(recorded: set[str]) -> list[tuple[str, str]]:
    """(sentence, task) of all that training may tell in the scenes of recorded tasks.

    Of tasks that were not recorded those are left out that a person might mean in such a scene:
    "press the button" where a button is to be pressed from above.

    Args:
        recorded: tasks of Meta-World.
    """
    scenes = {task.split("-")[0] for task in recorded}
    opposites = {swapped_task(task) for task in recorded}
    tasks = [
        task
        for task in METAWORLD_TASKS
        if task in recorded | opposites or task.split("-")[0] not in scenes
    ]
    return [(text, task) for task in tasks for text in training_wordings(task)]


def task_of_instruction(instruction: str) -> str | None:
    """The task that a sentence is a wording of; None if it is none that is known here."""
    for task in (*METAWORLD_TASKS, "pusht"):
        if instruction in instructions_of(task):
            return task
    return None


def swapped_task(task: str) -> str:
    """A task other than the given one: the opposite if there is one, so that the scene fits."""
    if task in _SWAPS:
        return _SWAPS[task]
    for pair in _OPPOSITES:
        for word, other in (pair, pair[::-1]):
            parts = task.split("-")
            opposite = "-".join(other if part == word else part for part in parts)
            if word in parts and opposite in METAWORLD_TASKS:
                return opposite
    return "reach"


def check_wording(wording: str) -> None:
    """Refuse a name that is not a wording.

    Raises:
        ValueError: if `wording` is not one of `WORDINGS`.
    """
    if wording not in WORDINGS:
        raise ValueError(f"wording must be one of {WORDINGS}; got {wording=}")


def choose_instruction(task: str, wording: str, seed: int) -> str:
    """One instruction, decided by the seed.

    Args:
        task: what the scene is for.
        wording: "known" one of those that are recorded; "held_out" the one that is not; "swapped"
            a known one of another task.
        seed: of the episode.

    Raises:
        ValueError: if the task or the wording is unknown.
    """
    check_wording(wording)
    phrases = instructions_of(swapped_task(task) if wording == "swapped" else task)
    if wording == "held_out":
        return phrases[-1]
    known = phrases[:-1]
    return known[int(np.random.default_rng((seed, len(known))).integers(len(known)))]
