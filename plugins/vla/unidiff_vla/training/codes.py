"""Recorded frames as codes: made once, kept in a file, and further data sets added to it.

`codes.npz` holds states, chunks, instructions and episodes of N frames, the pictures of the fresh
ones, the bins, and the keys of the data sets that all this came from.
"""

# Shapes: N frames, M fresh ones, C cameras, h * w codes of a picture.

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.image import FSQImageTokenizer
from unidiff_vla.environments.instructions import (
    METAWORLD_TASKS,
    task_of_instruction,
    told_in_training,
)
from unidiff_vla.lerobot_dataset.folder import INFO_PATH
from unidiff_vla.units import check_units

from .pictures import check_divisible, encode, fit_image_tokenizer
from .recipe import PolicyRecipe
from .recordings import Recordings, read_recordings, recording_key
from .source import CodedFrames, turns_of

TOKENIZER_FOLDER, CODES_FILE = "image_tokenizer", "codes.npz"
_OF_FRAMES = ("states", "chunks", "instruction_index", "episode_index", "is_fresh", "pictures")
Note = Callable[[str], None]
Arrays = Mapping[str, Any]


def coded_frames(
    data: Sequence[str | Path], output_dir: Path, recipe: PolicyRecipe, note: Note
) -> tuple[CodedFrames, BinTokenizer, BinTokenizer]:
    """Frames as codes, and the (state, action) bins; made once and kept in `output_dir`."""
    path = output_dir / CODES_FILE
    if path.is_file():
        _check_known(data, path)
        note(f"{path} holds the frames as codes: no data set is read again")
    else:
        _write(path, _first_codes(data, output_dir / TOKENIZER_FOLDER, recipe, note))
    arrays = _read(path)
    states, actions = stored_bins(arrays)
    if recipe.still_share and not holds_still(actions):
        raise ValueError(
            f"still_share={recipe.still_share} teaches the action 0 for words that do not fit the "
            f"scene, and recorded actions range from {actions.low} to {actions.high}: give "
            "--still-share 0, for these seem to be places and not motions"
        )
    instructions = tuple(str(one) for one in arrays["instructions"])
    names = [task_of_instruction(one) for one in instructions]
    if recorded := {name for name in names if name in METAWORLD_TASKS and name is not None}:
        told = [one for one in told_in_training(recorded) if one[0] not in instructions]
        instructions += tuple(text for text, _ in told)
        names += [task for _, task in told]
    order = sorted({name for name in names if name is not None})
    latest = np.cumsum(arrays["is_fresh"]) - 1  # an episode's first frame is always fresh
    frames = CodedFrames(
        pictures=arrays["pictures"][latest],
        states=arrays["states"],
        chunks=arrays["chunks"],
        instruction_index=arrays["instruction_index"],
        instructions=instructions,
        task_of=tuple(
            -1 - place if name is None else order.index(name) for place, name in enumerate(names)
        ),
        still=actions.encode(np.zeros((recipe.horizon, actions.dim))),
        episode_index=arrays["episode_index"],
        is_fresh=arrays["is_fresh"],
        turns=turns_of(arrays["chunks"][:, 0], actions.num_bins, arrays["episode_index"]),
    )
    return frames, states, actions


def add_recordings(
    data: Sequence[str | Path], output_dir: Path, *, is_trained: bool, note: Note
) -> None:
    """Code further data sets by a run's image tokenizer and bins, behind the frames it has.

    Those that it has are passed over, so that a run that was stopped goes on with the same line;
    one that is given twice counts twice.

    Args:
        data: folders with the features of those that the run began with, at least one.
        output_dir: holds codes and image tokenizer.
        is_trained: whether a policy has been trained there on the frames as they are.
        note: told what is being done.

    Raises:
        ValueError: if there is nothing to add, or to add to, a data set does not fit, or a policy
            has been trained there.
        FileNotFoundError: if a data set or the image tokenizer is not there.
    """
    path = output_dir / CODES_FILE
    if not data or not path.is_file():
        raise ValueError(
            f"expected data sets to add to the codes of {path}; got {len(data)} of them, and the "
            f"file is {'there' if path.is_file() else 'missing'}"
        )
    arrays = _read(path)
    new = _unknown(data, arrays)
    if not new:
        note(f"{path} holds the frames of all these data sets")
        return
    if is_trained:
        raise ValueError(
            f"{output_dir} holds a policy that was trained on the frames as they are: copy "
            f"{CODES_FILE} and {TOKENIZER_FOLDER} to another folder and add there, with --start"
        )
    states, actions = stored_bins(arrays)
    recordings = read_recordings(new, actions.horizon or 1)
    tokenizer = FSQImageTokenizer.from_pretrained(output_dir / TOKENIZER_FOLDER).eval()
    _check_like(recordings, arrays, tokenizer, path)
    outside = _share_outside(recordings, states, actions)
    note(
        f"{len(recordings)} frames added to {len(arrays['states'])}; {outside:.2%} of their "
        "numbers lie outside the bins and are clipped"
    )
    more = _codes_of(recordings, tokenizer, states, actions)
    _write(path, _joined(arrays, more) | _keys_of([*_known(arrays), *map(recording_key, new)]))


def holds_still(actions: BinTokenizer) -> bool:
    """Whether an action of zeros lies within what was recorded."""
    return all(low <= 0 <= high for low, high in zip(actions.low, actions.high, strict=True))


def stored_bins(arrays: Mapping[str, np.ndarray]) -> tuple[BinTokenizer, BinTokenizer]:
    """(state bins, action bins) of the coded frames' file."""
    states, actions = (
        BinTokenizer.from_dict(json.loads(str(arrays[f"{name}_bins"])))
        for name in ("state", "action")
    )
    return states, actions


def cameras_of(run_dir: str | Path) -> tuple[str, ...]:
    """Names of the cameras that a run saw, in order; raises FileNotFoundError before it has."""
    path = Path(run_dir) / CODES_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run has not coded its pictures yet")
    with np.load(path, allow_pickle=False) as stored:
        return tuple(str(one) for one in stored["cameras"])


def _first_codes(
    data: Sequence[str | Path], tokenizer_folder: Path, recipe: PolicyRecipe, note: Note
) -> Arrays:
    """Codes of data sets by an image tokenizer and bins that are fitted to them."""
    recordings = read_recordings(data, recipe.horizon)
    check_divisible(recordings, recipe)
    note(f"{len(recordings)} frames of {recordings.cameras}")
    tokenizer = fit_image_tokenizer(recordings, tokenizer_folder, recipe)
    note("coding the pictures")
    states = BinTokenizer.fit(recordings.states, num_bins=recipe.num_state_bins)
    actions = BinTokenizer.fit(
        recordings.chunks,
        num_bins=recipe.num_action_bins,
        horizon=recipe.horizon,
        statistics="min_max",
    )
    return {
        **_codes_of(recordings, tokenizer, states, actions),
        **_keys_of([recording_key(folder) for folder in data]),
        "cameras": np.array(recordings.cameras),
        "state_bins": json.dumps(states.to_dict()),
        "action_bins": json.dumps(actions.to_dict()),
    }


def _codes_of(
    recordings: Recordings,
    tokenizer: FSQImageTokenizer,
    states: BinTokenizer,
    actions: BinTokenizer,
) -> Arrays:
    """Everything recorded as codes, each picture once."""
    pictures = [encode(tokenizer, one) for one in recordings.pictures.values()]
    return {
        "pictures": _narrow(np.stack(pictures, axis=1), tokenizer.codebook_size),
        "states": _narrow(states.encode(recordings.states), states.num_bins),
        "chunks": _narrow(actions.encode(recordings.chunks), actions.num_bins),
        "instruction_index": recordings.instruction_index,
        "instructions": np.array(recordings.instructions),
        "episode_index": recordings.episode_index,
        "is_fresh": recordings.is_fresh,
    }


def _joined(arrays: Arrays, more: Arrays) -> dict[str, Any]:
    """Codes with further ones behind them: sentences told before keep their number."""
    told = [str(one) for one in arrays["instructions"]]
    others = [str(one) for one in more["instructions"]]
    told += [one for one in others if one not in told]
    number = np.array([told.index(one) for one in others])
    first = 1 + int(arrays["episode_index"].max())
    behind = {
        **more,
        "instruction_index": number[more["instruction_index"]],
        "episode_index": first + more["episode_index"],
    }
    joined = {name: np.concatenate([arrays[name], behind[name]]) for name in _OF_FRAMES}
    return {**arrays, **joined, "instructions": np.array(told)}


def _check_like(
    recordings: Recordings, arrays: Arrays, tokenizer: FSQImageTokenizer, path: Path
) -> None:
    """Raise ValueError unless recordings have the features and the units of the codes of a run."""
    states, actions = stored_bins(arrays)
    side = next(iter(recordings.pictures.values())).shape[1]
    own = (recordings.cameras, side, recordings.states.shape[1], recordings.chunks.shape[2])
    cameras = tuple(str(one) for one in arrays["cameras"])
    wanted = (cameras, tokenizer.config.image_size, states.dim, actions.dim)
    if own != wanted:
        raise ValueError(
            "expected (cameras, pixels of a side, dimensions of a state, of an action) "
            f"{wanted}, as of {path}; the data sets have {own}. Record them alike"
        )
    check_units("state", states, recordings.states)
    check_units("action", actions, recordings.chunks)


def _share_outside(recordings: Recordings, states: BinTokenizer, actions: BinTokenizer) -> float:
    """Share of the numbers of states and actions that lie outside the bins."""
    pairs = ((recordings.states, states), (recordings.chunks, actions))
    outside = [((one < bins.low) | (one > bins.high)).reshape(-1) for one, bins in pairs]
    return float(np.concatenate(outside).mean())


def _known(arrays: Arrays) -> list[str]:
    """Keys of the data sets whose codes these are; none in files that do not say it."""
    return [str(one) for one in arrays.get("data_sets", ())]


def _keys_of(keys: Sequence[str]) -> dict[str, Any]:
    return {"data_sets": np.array(keys)}


def _unknown(data: Sequence[str | Path], arrays: Arrays) -> list[str | Path]:
    """Data sets whose codes are still wanted; one that is given twice is wanted twice."""
    left, new = Counter(_known(arrays)), []
    for folder in data:
        key = recording_key(folder)
        if left[key]:
            left[key] -= 1
        else:
            new.append(folder)
    return new


def _check_known(data: Sequence[str | Path], path: Path) -> None:
    """Raise ValueError if a data set that is still there is not among those of the codes."""
    arrays = _read(path)
    if not _known(arrays):
        return
    there = [one for one in data if (Path(one) / INFO_PATH).is_file()]
    if new := _unknown(there, arrays):
        raise ValueError(
            f"{path} holds the codes of other data sets than {[str(one) for one in new]}: give "
            "another --out, or --add to put these behind them"
        )


def _read(path: Path) -> dict[str, np.ndarray]:
    """The coded frames; raises ValueError if the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (BadZipFile, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}): delete it") from error


def _write(path: Path, arrays: Arrays) -> None:
    """Keep codes; the file is there whole or not at all."""
    partial = path.with_name("partial.npz")
    np.savez_compressed(partial, **arrays)
    os.replace(partial, path)


def _narrow(codes: np.ndarray, number: int) -> np.ndarray:
    """Codes below `number` in the narrowest type."""
    return codes.astype(np.min_scalar_type(number - 1))
