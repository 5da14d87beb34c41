"""Real photographs: Fashion-MNIST images with captions, questions, requests and conversations.

The images come from the Debian package `dataset-fashion-mnist` (Zalando Research, MIT licence);
the language is our own. Every sentence is lower case and draws from an explicit numpy Generator.
"""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

# Shapes: N images.

GarmentSplit = Literal["train", "test"]

DEFAULT_ROOT = Path("/usr/share/datasets/fashion-mnist")
FILE_PREFIXES = {"train": "train", "test": "t10k"}
PHOTO_SIZE = 28
CANVAS_SIZE = 32

# One common word per class, in the data set's label order.
CLASS_NAMES = (
    *("t-shirt", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)
FOOTWEAR = frozenset({"sandal", "sneaker", "boot"})
CATEGORIES = tuple(
    "footwear" if name in FOOTWEAR else "accessory" if name == "bag" else "clothing"
    for name in CLASS_NAMES
)

CAPTIONS = (
    "a photo of {thing}.",
    "this is {thing}.",
    "a grey photo of {thing}.",
    "the picture shows {thing}.",
    "here we see {thing}.",
    "{thing} on a black background.",
)
NAME_QUESTIONS = (
    "what is this?",
    "what is in the picture?",
    "what does the photo show?",
    "name the object in one word.",
)
CATEGORY_QUESTIONS = (
    "what kind of thing is it: footwear, clothing or accessory?",
    "is it footwear, clothing or an accessory?",
    "footwear, clothing or accessory?",
)
FOOTWEAR_QUESTIONS = ("is this a shoe?", "is it footwear?", "do you wear it on your feet?")
IDENTITY_QUESTIONS = ("is this {thing}?", "is it {thing}?", "does the photo show {thing}?")
REPEAT_REQUESTS = ("repeat your last answer.", "say that again.")
DRAWING_REQUESTS = (
    "draw {thing}.",
    "make a picture of {thing}.",
    "please draw {thing}.",
    "show me {thing}.",
    "i want a photo of {thing}.",
)
QUESTION_KINDS = ("name", "category", "footwear", "identity")

_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")


def load_fashion_mnist(
    split: GarmentSplit, root: Path | str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one split, as they are in the files.

    Args:
        split: "train" (60000 photographs) or "test" (10000).
        root: folder with the four idx.gz files; the Debian package's by default.

    Returns:
        ((N, 28, 28) uint8 images, (N,) int64 labels: indices into `CLASS_NAMES`).

    Raises:
        ValueError: if `split` is unknown or a file is not what its name says.
        FileNotFoundError: if the files are missing; says how to get them.
    """
    if split not in FILE_PREFIXES:
        raise ValueError(f"split must be one of {sorted(FILE_PREFIXES)}; got {split!r}")
    folder = DEFAULT_ROOT if root is None else Path(root)
    prefix = FILE_PREFIXES[split]
    images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", num_axes=3)
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", num_axes=1).astype(np.int64)
    if len(images) != len(labels) or images.shape[1:] != (PHOTO_SIZE, PHOTO_SIZE):
        raise ValueError(
            f"expected as many {PHOTO_SIZE}x{PHOTO_SIZE} images as labels in {folder}; got images "
            f"{images.shape} and labels {labels.shape}; reinstall dataset-fashion-mnist"
        )
    return images, labels


def _read_idx(path: Path, num_axes: int) -> np.ndarray:
    """The uint8 array of a gzipped idx file with this number of axes."""
    if not path.exists():
        raise FileNotFoundError(
            f"Fashion-MNIST file {path} is missing; install it with "
            "`apt-get install dataset-fashion-mnist` or `make data`, or pass root="
        )
    data = gzip.decompress(path.read_bytes())
    header_size = 4 + 4 * num_axes
    shape = tuple(int(size) for size in np.frombuffer(data[4:header_size], dtype=">u4"))
    is_whole = len(shape) == num_axes and len(data) == header_size + int(np.prod(shape))
    if data[:4] != bytes((0, 0, 8, num_axes)) or not is_whole:
        raise ValueError(
            f"expected an idx file of bytes with {num_axes} axes in {path}, got {len(data)} bytes "
            f"starting {data[:4]!r}; reinstall dataset-fashion-mnist"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header_size).reshape(shape).copy()


def pad_to_canvas(images: np.ndarray) -> np.ndarray:
    """(N, 32, 32, 3) uint8: the photographs with a black frame of two pixels, grey in 3 channels.

    Args:
        images: (N, 28, 28) uint8.

    Raises:
        ValueError: if shape or type differ.
    """
    if images.ndim != 3 or images.shape[1:] != (PHOTO_SIZE, PHOTO_SIZE) or images.dtype != np.uint8:
        raise ValueError(
            f"expected (N, {PHOTO_SIZE}, {PHOTO_SIZE}) uint8 images; got {images.shape} "
            f"{images.dtype}; pass what load_fashion_mnist returns"
        )
    frame = (CANVAS_SIZE - PHOTO_SIZE) // 2
    padded = np.pad(images, ((0, 0), (frame, frame), (frame, frame)))
    return np.repeat(padded[..., None], 3, axis=-1)


def with_article(name: str) -> str:
    """The class name as it stands in a sentence: "a sneaker", "a pair of trousers"."""
    return f"a pair of {name}" if name == "trousers" else f"a {name}"


def _fill(template: str, label: int) -> str:
    return template.format(thing=with_article(CLASS_NAMES[label]))


def _choose(templates: tuple[str, ...], rng: np.random.Generator) -> str:
    return templates[int(rng.integers(len(templates)))]


def draw_caption(label: int, rng: np.random.Generator) -> str:
    """A sentence that names the class of a photograph."""
    return _fill(_choose(CAPTIONS, rng), label)


def draw_drawing_request(label: int, rng: np.random.Generator) -> str:
    """What a user says who wants a picture of this class."""
    return _fill(_choose(DRAWING_REQUESTS, rng), label)


def caption_names_class(text: str) -> int | None:
    """The class that a text names, or None where it names none or several.

    Whole words only, in any case: "t-shirt" is not "shirt" and "boots" is not "boot". A name that
    is repeated counts once.
    """
    words = set(_WORD.findall(text.lower()))
    named = [label for label, name in enumerate(CLASS_NAMES) if name in words]
    return named[0] if len(named) == 1 else None


def draw_question(label: int, rng: np.random.Generator, kind: str | None = None) -> tuple[str, str]:
    """A question about a photograph and its answer in one word.

    Args:
        label: class of the photograph.
        rng: source of every choice.
        kind: one of `QUESTION_KINDS`, or None for any. Identity questions are answered with yes in
            half of the draws; the others name one of the nine wrong classes.

    Raises:
        ValueError: if `kind` is unknown.
    """
    chosen = _choose(QUESTION_KINDS, rng) if kind is None else kind
    if chosen == "name":
        return _choose(NAME_QUESTIONS, rng), CLASS_NAMES[label]
    if chosen == "category":
        return _choose(CATEGORY_QUESTIONS, rng), CATEGORIES[label]
    if chosen == "footwear":
        return _choose(FOOTWEAR_QUESTIONS, rng), _yes_or_no(CATEGORIES[label] == "footwear")
    if chosen == "identity":
        shift = 0 if rng.random() < 0.5 else int(rng.integers(1, len(CLASS_NAMES)))
        asked = (label + shift) % len(CLASS_NAMES)
        return _fill(_choose(IDENTITY_QUESTIONS, rng), asked), _yes_or_no(shift == 0)
    raise ValueError(f"kind must be one of {QUESTION_KINDS} or None; got {kind!r}")


def _yes_or_no(is_true: bool) -> str:
    return "yes" if is_true else "no"


def garment_conversation(
    label: int, rng: np.random.Generator, num_turns: int
) -> list[tuple[str, str]]:
    """Turns (user, assistant) about one photograph; no question is asked twice.

    The first turn asks for the class or a caption; a later one asks a question or, one time in
    five, for the last answer again, which only the conversation so far can tell.

    Raises:
        ValueError: if `num_turns` is not in [1, 16].
    """
    if not 1 <= num_turns <= 16:
        raise ValueError(f"num_turns must be in [1, 16]; got {num_turns}")
    if rng.random() < 0.5:
        turns = [("describe the picture.", draw_caption(label, rng))]
    else:
        turns = [draw_question(label, rng, "name")]
    while len(turns) < num_turns:
        if rng.random() < 0.2:
            user, assistant = _choose(REPEAT_REQUESTS, rng), turns[-1][1]
        else:
            user, assistant = draw_question(label, rng)
        if user not in {asked for asked, _ in turns}:
            turns.append((user, assistant))
    return turns


def iter_garment_sentences() -> Iterator[str]:
    """Every sentence this module can make, once: for training the text tokenizer."""
    yield from (*NAME_QUESTIONS, *CATEGORY_QUESTIONS, *FOOTWEAR_QUESTIONS, *REPEAT_REQUESTS)
    yield from ("describe the picture.", "yes", "no", *sorted(set(CATEGORIES)), *CLASS_NAMES)
    for template in (*CAPTIONS, *IDENTITY_QUESTIONS, *DRAWING_REQUESTS):
        yield from (_fill(template, label) for label in range(len(CLASS_NAMES)))
