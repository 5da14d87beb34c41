"""What a policy's weights begin with: what fits of another checkpoint."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from unidiff.model.configuration import UniDiffConfig
from unidiff.model.fingerprint import weights_key
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.image import FSQImageTokenizer

from .codes import TOKENIZER_FOLDER

# Whether the checkpoint has the run's image tokenizer -> what is said of its picture codes.
_SAID_OF_PICTURES = {
    True: "",
    False: ", but nothing of picture codes: its image tokenizer is another one",
    None: "; it has no image tokenizer to compare with, so its picture codes pass for the run's",
}


@torch.no_grad()
def begin_with(model: UniDiffForBlockDiffusion, folder: Path, image_tokenizer: Path) -> str:
    """Copy what fits of a checkpoint, and say what that was.

    Of a checkpoint with another layout of ids the words are taken, and what stands for pictures,
    states and actions stays as it is. Of one with another image tokenizer what stands for pictures
    stays too: there its codes mean something else.

    Args:
        model: receives the weights.
        folder: of the checkpoint.
        image_tokenizer: folder of the one that the model reads pictures by.
    """
    weights = load_file(folder / "model.safetensors")
    has_same_ids = UniDiffConfig.from_pretrained(folder).layout == model.config.layout
    sees_alike = _are_same(folder / TOKENIZER_FOLDER, image_tokenizer) if has_same_ids else True
    rows = _rows_taken(model.config, has_same_ids, sees_alike is not False)
    own, taken = model.state_dict(), 0
    for name, weight in weights.items():
        if name not in own:
            continue
        is_table = name.endswith("embed_tokens.weight") and len(weight) > rows.max()
        if is_table and weight.shape[1] == own[name].shape[1]:
            own[name][rows] = weight[rows].to(own[name])
            taken += 1
        elif weight.shape == own[name].shape:
            own[name].copy_(weight.to(own[name]))
            taken += 1
    return f"{taken} tensors of the start taken{_SAID_OF_PICTURES[sees_alike]}"


def _rows_taken(config: UniDiffConfig, has_same_ids: bool, sees_alike: bool) -> Tensor:
    """(n,) int64 rows of the table of embeddings that mean the same in a checkpoint.

    Args:
        config: of the model that takes them.
        has_same_ids: whether the checkpoint lays out its ids alike.
        sees_alike: whether it has the same image tokenizer, where it does.
    """
    text, image = config.layout.range_of("text"), config.layout.range_of("image")
    is_taken = torch.full((config.vocab_size,), has_same_ids)
    is_taken[text.start : text.stop] = True
    if not sees_alike:
        is_taken[image.start : image.stop] = False
    return is_taken.nonzero()[:, 0]


def _are_same(folder: Path, other: Path) -> bool | None:
    """Whether two image tokenizers have the same weights; None where one is not there."""
    if not all((one / "model.safetensors").is_file() for one in (folder, other)):
        return None
    first, second = (weights_key(FSQImageTokenizer.from_pretrained(one)) for one in (folder, other))
    return first == second
