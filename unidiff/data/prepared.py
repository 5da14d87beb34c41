"""Codes made once: the arrays that `unidiff prepare` writes and training reads.

Encoding images and tokenising text is done here and never again; a manifest with the fingerprints
of both tokenizers guards against codes made by others.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from unidiff.tokens.image import FSQImageTokenizer
from unidiff.tokens.text import encode_plain

from .sources.garments import load_fashion_mnist, pad_to_canvas
from .sources.library_text import iter_documents
from .sources.scenes import Scene, render_scene, sample_scene, scene_generator
from .sources.tabletop_expert import record_demonstrations

MANIFEST = "manifest.json"
ENCODE_BATCH = 512
Arrays = dict[str, np.ndarray]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PrepareOptions:
    """How much to prepare.

    Attributes:
        num_scenes: training scenes; scene i is made from seed i.
        num_demonstrations: recorded (frame, state, instruction, chunk) samples.
        seed: decides the demonstrations.
    """

    num_scenes: int = 60_000
    num_demonstrations: int = 80_000
    seed: int = 0


def fingerprint(image_tokenizer: FSQImageTokenizer, tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of both tokenizers' contents: codes of equal fingerprints mean the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(image_tokenizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().contiguous().numpy().tobytes())
    digest.update(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def encode_images(image_tokenizer: FSQImageTokenizer, images: np.ndarray) -> np.ndarray:
    """(N, h * w) uint16 codes of (N, H, W, 3) uint8 images."""
    parts = []
    for start in range(0, len(images), ENCODE_BATCH):
        batch = torch.from_numpy(images[start : start + ENCODE_BATCH])
        pixels = batch.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        parts.append(image_tokenizer.get_image_tokens(pixels).numpy().astype(np.uint16))
    return np.concatenate(parts)


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write an npz file under a temporary name, then rename it."""
    temporary = path.with_suffix(".partial.npz")
    np.savez(temporary, **arrays)
    os.replace(temporary, path)


def load_arrays(data_dir: Path, name: str) -> Arrays:
    """Arrays of one prepared part; raises FileNotFoundError saying how to make it."""
    path = Path(data_dir) / f"{name}.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `unidiff prepare --out {data_dir}`")
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def prepare(
    data_dir: Path,
    image_tokenizer: FSQImageTokenizer,
    tokenizer: PreTrainedTokenizerBase,
    options: PrepareOptions,
    progress: Progress | None = None,
) -> None:
    """Write every part that is not there yet; interrupted runs continue with the missing parts.

    Args:
        data_dir: folder of the parts; created if needed.
        image_tokenizer: makes the image codes.
        tokenizer: makes the text ids.
        options: sizes.
        progress: called with (part, done, total) as parts are finished.

    Raises:
        ValueError: if the folder holds codes of other tokenizers or options.
    """
    data_dir = Path(data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    _check_manifest(data_dir, fingerprint(image_tokenizer, tokenizer), options)
    parts: dict[str, Callable[[], Arrays]] = {
        "garments_train": lambda: _garments("train", image_tokenizer),
        "garments_test": lambda: _garments("test", image_tokenizer),
        "scenes_train": lambda: _scenes(options.num_scenes, image_tokenizer),
        "demonstrations_train": lambda: _demonstrations(options, image_tokenizer),
        "text_train": lambda: _text(tokenizer),
    }
    for done, (name, make) in enumerate(parts.items()):
        if progress is not None:
            progress(name, done, len(parts))
        if not (data_dir / f"{name}.npz").exists():
            save_arrays(data_dir / f"{name}.npz", **make())
    if progress is not None:
        progress("done", len(parts), len(parts))


def _check_manifest(data_dir: Path, tokens: str, options: PrepareOptions) -> None:
    """Write the manifest, or compare with the one that is there."""
    wanted = {"tokenizers": tokens, "sources": _sources_fingerprint(), **vars(options)}
    path = data_dir / MANIFEST
    if path.exists():
        found = json.loads(path.read_text())
        if found != wanted:
            raise ValueError(
                f"{data_dir} was prepared with {found}, now {wanted} is asked for: "
                "choose another folder or delete this one"
            )
        return
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(wanted, indent=2))
    os.replace(temporary, path)


def _sources_fingerprint() -> str:
    """Hash of a few scenes and demonstrations: other generators, other codes.

    Scenes are made again from their seeds in training, so the codes must be of the same generator.
    """
    drawn = repr([training_scene(seed) for seed in range(16)])
    recorded = record_demonstrations(16, seed=0)
    content = drawn.encode() + recorded.frames.tobytes() + recorded.chunks.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _garments(split: Literal["train", "test"], image_tokenizer: FSQImageTokenizer) -> Arrays:
    """Codes of the photographs, of their mirror images, and the labels."""
    images, labels = load_fashion_mnist(split)
    padded = pad_to_canvas(images)
    return {
        "codes": encode_images(image_tokenizer, padded),
        "mirrored": encode_images(image_tokenizer, np.ascontiguousarray(padded[:, :, ::-1])),
        "labels": labels.astype(np.int64),
    }


def _batches(total: int) -> Iterator[range]:
    """Ranges of `ENCODE_BATCH` that cover `total`."""
    for start in range(0, total, ENCODE_BATCH):
        yield range(start, min(total, start + ENCODE_BATCH))


def _scenes(num_scenes: int, image_tokenizer: FSQImageTokenizer) -> Arrays:
    """Codes of the training scenes; the scene itself is made again from its seed."""
    parts, sizes = [], []
    for seeds in _batches(num_scenes):
        scenes = [training_scene(seed) for seed in seeds]
        sizes += [len(scene.objects) for scene in scenes]
        images = np.stack([render_scene(scene) for scene in scenes])
        parts.append(encode_images(image_tokenizer, images))
    return {"codes": np.concatenate(parts), "num_objects": np.array(sizes)}


def training_scene(seed: int) -> Scene:
    """Training scene number `seed`."""
    return sample_scene(scene_generator("train", seed), "train")


def _demonstrations(options: PrepareOptions, image_tokenizer: FSQImageTokenizer) -> Arrays:
    """Codes of the frames and the raw states, chunks and instructions."""
    recorded = record_demonstrations(options.num_demonstrations, options.seed)
    return {
        "codes": encode_images(image_tokenizer, recorded.frames),
        "states": recorded.states,
        "chunks": recorded.chunks,
        "instructions": np.array(recorded.instructions),
        "tasks": np.array(recorded.tasks),
    }


def _text(tokenizer: PreTrainedTokenizerBase) -> Arrays:
    """Ids of all training documents and where each begins."""
    return token_documents(tokenizer, (text for _, text in iter_documents("train")))


def token_documents(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Arrays:
    """{"ids": (N,) uint16 of all texts, "starts": (documents + 1,) int64}."""
    documents = [np.array(encode_plain(tokenizer, text), dtype=np.uint16) for text in texts]
    starts = np.cumsum([0] + [len(document) for document in documents])
    return {"ids": np.concatenate(documents), "starts": starts}
