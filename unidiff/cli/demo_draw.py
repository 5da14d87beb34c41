"""The demonstration's second half: drawing, filling holes in pictures, driving the robot."""

import numpy as np

from unidiff.data.sources.garments import (
    CLASS_NAMES,
    caption_names_class,
    draw_drawing_request,
    with_article,
)
from unidiff.data.sources.held_out import HeldOut, Picture, scene_pictures
from unidiff.data.sources.scene_judge import read_scene, scene_matches
from unidiff.data.sources.scene_language import caption, drawing_request
from unidiff.data.sources.scenes import ALIGNED, Scene, SceneObject
from unidiff.data.sources.tabletop_scene import EVALUATION_SEED_START, TASKS
from unidiff.tokens.infill import HOLE_MARKER

from . import samplers
from .episode import Played, play
from .session import Session
from .showcase import Row

DRAWINGS = 10


def draw_garments(session: Session, data: HeldOut) -> list[Row]:
    """A drawing of every garment; a network trained on photographs alone says what it sees."""
    from unidiff.evaluation.garment_judge import load_judge

    rng = data.rng(6)
    labels = rng.permutation(len(CLASS_NAMES))[:DRAWINGS].tolist()
    requests = [draw_drawing_request(label, rng) for label in labels]
    inputs = session.processor.for_image(requests)
    answers = session.answer(inputs, {**samplers.drawing("garment"), "seed": data.seed})
    pictures = [np.asarray(answer.value) for answer in answers]
    seen = load_judge().classify(np.stack(pictures)).tolist()
    rows = []
    drawn = zip(requests, answers, labels, seen, pictures, strict=True)
    for request, answer, label, judged, picture in drawn:
        output = f"judged: {with_article(CLASS_NAMES[judged])}"
        truth = with_article(CLASS_NAMES[label])
        rows.append(Row.of("draw", request, answer, truth, judged == label, [picture], output))
    return rows


def draw_scenes(session: Session, data: HeldOut) -> list[Row]:
    """Drawings of scenes that never occur in training; a program reads them back from pixels."""
    scenes = data.choose_scenes(7, DRAWINGS, num_objects=2)
    rng = data.rng(7)
    requests = [drawing_request(scene, rng) for scene in scenes]
    inputs = session.processor.for_image(requests)
    answers = session.answer(inputs, {**samplers.drawing(), "seed": data.seed})
    rows = []
    for request, answer, scene in zip(requests, answers, scenes, strict=True):
        picture = np.asarray(answer.value)
        seen = ", ".join(f"{one.colour} {one.shape}" for one in read_scene(picture))
        truth = caption(scene, data.rng(9)).removeprefix("there is ").removeprefix("a picture of ")
        is_right = scene_matches(picture, scene)
        output = f"read back: {seen or 'nothing'}"
        rows.append(Row.of("draw", request, answer, truth, is_right, [picture], output))
    return rows


def fill_pictures(session: Session, data: HeldOut) -> list[Row]:
    """A photograph and an unseen scene with a hole, and a photograph and its caption with holes."""
    first, second = data.choose_photographs(8, 2).tolist()
    scene = data.choose_scenes(8, 1, num_objects=2)[0]
    return [
        _fill_photograph(session, data, first),
        _fill_scene(session, data, scene),
        _fill_both(session, data, second),
    ]


def _fill_photograph(session: Session, data: HeldOut, index: int) -> Row:
    """The lower half of a photograph, of which the model is told nothing."""
    photograph = data.photographs[index]
    hole = _hole(session, (0.5, 1.0), (0.0, 1.0))
    inputs = session.processor.for_image_infill(photograph, hole)
    answer = session.answer(inputs, {**samplers.drawing("garment"), "seed": data.seed})[0]
    pictures = _triple(photograph, hole, answer.value)
    truth = with_article(CLASS_NAMES[int(data.labels[index])])
    return Row.of("fill picture", "the lower half", answer, truth, None, pictures, "")


def _fill_scene(session: Session, data: HeldOut, scene: Scene) -> Row:
    """The half of an unseen scene where its second object is, from the caption."""
    said, shown = caption(scene, data.rng(8)), scene_pictures([scene])[0]
    hole = _second_half(session, *scene.objects)
    inputs = session.processor.for_image_infill(shown, hole, said)
    answer = session.answer(inputs, {**samplers.drawing(), "seed": data.seed})[0]
    filled = np.asarray(answer.value["image"])
    seen = ", ".join(f"{one.colour} {one.shape}" for one in read_scene(filled))
    is_right, pictures = scene_matches(filled, scene), _triple(shown, hole, filled)
    output = f"read back: {seen or 'nothing'}"
    return Row.of("fill picture", f"half of: {said}", answer, said, is_right, pictures, output)


def _second_half(session: Session, first: SceneObject, second: SceneObject) -> np.ndarray:
    """(h, w) bool, True in the half of the picture on the second object's side of the first."""
    is_across = abs(first.row - second.row) <= ALIGNED
    offset = second.column - first.column if is_across else second.row - first.row
    half, whole = ((0.5, 1.0) if offset > 0 else (0.0, 0.5)), (0.0, 1.0)
    return _hole(session, whole, half) if is_across else _hole(session, half, whole)


def _fill_both(session: Session, data: HeldOut, index: int) -> Row:
    """The middle of a photograph and the noun of its caption, together."""
    photograph, label = data.photographs[index], int(data.labels[index])
    hole = _hole(session, (0.25, 0.75), (0.25, 0.75))
    noun = session.processor.tokenizer(f" {CLASS_NAMES[label]}", add_special_tokens=False)
    inputs = session.processor.for_joint_infill(
        photograph, hole, f"this is a {HOLE_MARKER}.", hole_length=len(noun["input_ids"])
    )
    answer = session.answer(inputs, {**samplers.drawing("garment"), "seed": data.seed})[0]
    pictures = _triple(photograph, hole, answer.value["image"])
    text, truth = answer.value["text"], with_article(CLASS_NAMES[label])
    is_right = caption_names_class(text) == label
    given = "the middle, and: this is a [____]."
    return Row.of("fill both", given, answer, truth, is_right, pictures, text)


def _hole(session: Session, rows: tuple[float, float], columns: tuple[float, float]) -> np.ndarray:
    """(h, w) bool, True inside a rectangle of codes given as shares of the sides."""
    height, width = session.processor.layout.image_grid
    hole = np.zeros((height, width), dtype=bool)
    top, bottom = (round(share * height) for share in rows)
    left, right = (round(share * width) for share in columns)
    hole[top:bottom, left:right] = True
    return hole


def _triple(original: Picture, hole: np.ndarray, filled: object) -> list[Picture]:
    """The picture with its hole shaded, the filled one, the original."""
    factor = original.shape[0] // hole.shape[0]
    covered = np.repeat(np.repeat(hole, factor, axis=0), factor, axis=1)
    stripes = (np.indices(covered.shape).sum(axis=0) // 2) % 2 == 0
    shaded = original.copy()
    shaded[covered] = (235, 235, 240)
    shaded[covered & stripes] = (200, 200, 212)
    return [shaded, np.asarray(filled), original]


def drive(session: Session, data: HeldOut) -> tuple[list[Row], list[Played]]:
    """One episode of each task on tables kept for evaluation."""
    rows, episodes = [], []
    options = {**samplers.acting(), "seed": data.seed}
    for task in TASKS:
        seed = EVALUATION_SEED_START + data.seed
        played = play(session, task, seed, options, replan_every=samplers.replan_every())
        episode = played.episode
        outcome = "goal reached" if episode.success else "goal not reached"
        steps = np.linspace(0, episode.num_steps, 5).round().astype(int)
        rows.append(
            Row(
                task=f"act ({task})",
                given=episode.instruction,
                output=f"{outcome} in {episode.num_steps} steps",
                truth="goal reached",
                is_right=bool(episode.success),
                num_forwards=played.num_forwards,
                tokens_per_forward=played.tokens_per_forward,
                seconds=played.seconds,
                pictures=tuple(episode.frames[steps]),
            )
        )
        episodes.append(played)
    return rows, episodes
