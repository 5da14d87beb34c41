"""A picture in, a sentence about it out; and the same in a style of the user's own."""

# Shapes: N examples.

import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from unidiff.data.sources.garments import (
    CAPTIONS,
    CLASS_NAMES,
    GarmentSplit,
    caption_names_class,
    load_fashion_mnist,
    pad_to_canvas,
    with_article,
)
from unidiff.data.sources.held_out import held_out, scene_pictures
from unidiff.data.sources.scene_language import caption, caption_matches
from unidiff.plugins import ChatTask, DemoExample, Example, LoRADefaults, Metric, shown, user

from .metrics import bleu, cider

DESCRIBE = "describe the picture."
STYLE = "new in the shop: {thing}, only today!"
PHOTOGRAPHS, SCENES = 6, 4  # of the demonstration


class Captioning(ChatTask):
    """A picture of any size is described in a sentence."""

    name = "captioning"
    summary = "Describe a picture."
    modalities = frozenset({"text", "image"})
    columns = {"image": "the picture", "caption": "a sentence about it"}
    decoding = {
        "unmasking_strategy": "entropy_bound",
        "entropy_bound": 0.4,
        "block_length": 8,
        "max_new_tokens": 48,
        "do_sample": False,
    }

    def messages(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The user shows the picture and asks; "prompt" replaces the question."""
        return [user(shown(example["image"]), example.get("prompt", DESCRIBE))]

    def answer(self, example: Example) -> str:
        """The caption."""
        return str(example["caption"])

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Fashion-MNIST photographs, with every right sentence under "references"."""
        pictures, labels = _photographs(split, limit)
        return [
            {
                "image": picture,
                "caption": sentences_about(label)[index % len(CAPTIONS)],
                "references": sentences_about(label),
                "label": label,
            }
            for index, (picture, label) in enumerate(zip(pictures, labels.tolist(), strict=True))
        ]

    def metrics(self) -> Mapping[str, Metric]:
        """Does it name the class, is it a caption at all, and how near is it to the references?"""
        return {
            "names_class": names_class,
            "is_caption": lambda said, examples: is_one_of(said, _references(examples)),
            "cider": lambda said, examples: cider(said, _references(examples)),
            "bleu": lambda said, examples: bleu(said, _references(examples)),
        }

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """Photographs of the test split, and scenes never combined so in training."""
        data = held_out(seed)
        examples = []
        for index in data.choose_photographs(1, PHOTOGRAPHS).tolist():
            picture, label = data.photographs[index], int(data.labels[index])
            truth = with_article(CLASS_NAMES[label])
            examples.append(
                _shown_example(picture, truth, lambda s, n=label: caption_names_class(s) == n)
            )
        scenes = data.choose_scenes(1, SCENES)
        for scene, picture in zip(scenes, scene_pictures(scenes), strict=True):
            truth = caption(scene, data.rng(2))
            is_right = partial(caption_matches, scene=scene)
            examples.append(_shown_example(picture, truth, is_right))
        return examples


class NewStyle(Captioning):
    """Captions in a style that the base has never seen: what LoRA teaches from 100 examples.

    The style is that of the data: the task's own, or that of a user's data set.
    """

    name = "caption_style"
    summary = "Describe a picture as a shop window would."
    lora = LoRADefaults(r=8, steps=120, batch_size=32, learning_rate=2e-3)
    is_in_base = False
    replaces = frozenset({"captioning"})  # the same request, answered otherwise

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Fashion-MNIST photographs with their shop-window sentence."""
        limit = 100 if limit is None and split == "train" else limit
        pictures, labels = _photographs(split, limit)
        return [
            {"image": picture, "caption": in_style(label), "label": label}
            for picture, label in zip(pictures, labels.tolist(), strict=True)
        ]

    def metrics(self) -> Mapping[str, Metric]:
        """Is it in the style, whatever it names; does it name the class?"""
        return {"style_match": style_match, "names_class": names_class}

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """Photographs of the test split."""
        data = held_out(seed)
        return [
            _shown_example(
                data.photographs[index],
                in_style(int(data.labels[index])),
                in_style(int(data.labels[index])).__eq__,
            )
            for index in data.choose_photographs(1, PHOTOGRAPHS).tolist()
        ]


def sentences_about(label: int) -> list[str]:
    """Every caption of a class."""
    return [form.format(thing=with_article(CLASS_NAMES[label])) for form in CAPTIONS]


def in_style(label: int) -> str:
    """The shop-window sentence of a class."""
    return STYLE.format(thing=with_article(CLASS_NAMES[label]))


def names_class(said: Sequence[str], examples: Sequence[Example]) -> np.ndarray:
    """(N,) float64, 1 where a caption names the photograph's class and no other.

    The class is the example's "label", else the one that its caption names; 0 where that names
    none.
    """
    named = [caption_names_class(one) for one in said]
    pairs = zip(named, map(_label_of, examples), strict=True)
    return _marks([label is not None and name == label for name, label in pairs])


def style_match(said: Sequence[str], examples: Sequence[Example]) -> np.ndarray:
    """(N,) float64, 1 where a caption is of a form that the references have, with any class.

    Word for word, but for the class: "this is a bag." has the form of "this is a coat.".
    """
    known = {form_of(sentence) for many in _references(examples) for sentence in many}
    return _marks([form_of(one) in known for one in said])


def form_of(sentence: str) -> str:
    """The sentence with {thing} in place of the class that it names; itself if it names none."""
    label = caption_names_class(sentence)
    if label is None:
        return sentence.strip()
    name = CLASS_NAMES[label]
    thing = rf"(?<![\w-])(?:{re.escape(with_article(name))}|{re.escape(name)})(?![\w-])"
    return re.sub(thing, "{thing}", sentence.strip(), flags=re.IGNORECASE)


def _label_of(example: Example) -> int | None:
    """The example's class; None where neither it nor its caption says one."""
    return example.get("label", caption_names_class(_references([example])[0][0]))


def is_one_of(said: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """(N,) float64, 1 where a caption is one of its references."""
    return _marks([one.strip() in many for one, many in zip(said, references, strict=True)])


def _references(examples: Sequence[Example]) -> list[Sequence[str]]:
    """Right sentences of each example: its "references", or its one caption."""
    return [one.get("references") or [one["caption"]] for one in examples]


def _marks(is_right: Sequence[bool]) -> np.ndarray:
    """(N,) float64."""
    return np.array(is_right, dtype=np.float64)


def _shown_example(picture: np.ndarray, truth: str, is_right: Any) -> DemoExample:
    """A picture to describe, shown beside what is said of it."""
    return DemoExample(
        {"image": picture},
        DESCRIBE,
        truth,
        is_right,
        pictures=lambda said: [picture],
        section="Describing photographs and unseen scenes",
    )


def _photographs(split: str, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """((N, 32, 32, 3) uint8, (N,) classes) of a split, at most `limit`."""
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    images, labels = _loaded(split)  # type: ignore[arg-type]
    return pad_to_canvas(images[:limit]), labels[:limit]


@cache
def _loaded(split: GarmentSplit) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a split."""
    return load_fashion_mnist(split)
