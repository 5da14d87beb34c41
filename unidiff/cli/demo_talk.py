"""The demonstration's conversations: about a photograph and about an unseen scene."""

from unidiff.data.sources.garments import caption_names_class, garment_conversation
from unidiff.data.sources.held_out import HeldOut, Picture, scene_pictures
from unidiff.data.sources.scene_language import caption_matches, scene_conversation
from unidiff.data.sources.scenes import Scene

from . import samplers
from .chat import Conversation
from .session import Session
from .showcase import Row

CHAT_TURNS = 4


def converse(session: Session, data: HeldOut) -> list[Row]:
    """A conversation about a photograph and one about an unseen scene."""
    index = int(data.choose_photographs(4, 1)[0])
    label, rng = int(data.labels[index]), data.rng(4)
    turns = garment_conversation(label, rng, CHAT_TURNS)
    rows = _conversation(session, data, data.photographs[index], turns, None)
    scene = data.choose_scenes(4, 1, num_objects=3)[0]
    turns = scene_conversation(scene, rng, CHAT_TURNS)
    return rows + _conversation(session, data, scene_pictures([scene])[0], turns, scene)


def _conversation(
    session: Session,
    data: HeldOut,
    picture: Picture,
    turns: list[tuple[str, str]],
    scene: Scene | None,
) -> list[Row]:
    """The user's turns, answered one after the other; the model's own answers stay in it."""
    conversation = Conversation(
        session, {**samplers.answering(session.model), "seed": data.seed}, picture
    )
    rows = []
    for text, truth in turns:
        answer = conversation.say(text)
        is_right = _says_the_same(answer.value, truth, scene)
        rows.append(Row.of("chat", text, answer, truth, is_right, [picture]))
    return rows


def _says_the_same(said: str, truth: str, scene: Scene | None) -> bool:
    """Whether an answer equals the expected one, or is as good a caption."""
    if said.strip() == truth:
        return True
    if len(truth.split()) < 3:
        return False
    if scene is None:
        named = caption_names_class(said)
        return named is not None and named == caption_names_class(truth)
    return caption_matches(said, scene)
