"""Which family a checkpoint is of: the table of what can be loaded."""

from .bert import BERT, ROBERTA
from .dit import BD3LM, MDLM
from .dream_vl import DIMPLE, DREAM_VL
from .dreamon import DREAMON, expand_id
from .family import Family, ForeignFolder
from .llada import LLADA
from .llama_like import (
    A2D,
    AUTOREGRESSIVE,
    DREAM,
    DREAM_REASONER,
    FAST_DLLM,
    ILLADA,
    OPEN_DLLM,
    SDAR,
)
from .llava import LAVIDA, LAVIDA_DREAM, LLADA_V, has_llada_names
from .lumina import ARCHITECTURE, LUMINA
from .mixtures import LLADA2, LLADA_MOE, QWEN3_MOE, SDAR_MOE
from .mmada import MMADA
from .showo import SHOWO
from .unidisc import HUB_FIELDS, UNIDISC, has_hub_fields

# `model_type` of config.json, or its class where it has none -> family.
FAMILIES: dict[str, Family] = {
    "llada": LLADA,
    "illada": ILLADA,
    "mmada": MMADA,
    "llava_llada": LLADA_V,
    "llava_dream": LAVIDA_DREAM,
    "dream-vl": DREAM_VL,
    "dimple": DIMPLE,
    "Dream": DREAM,
    "sdar": SDAR,
    "Fast_dLLM_Qwen": FAST_DLLM,
    "mdlm": MDLM,
    "bd3lm": BD3LM,
    "a2d-llama": A2D,
    "a2d-qwen2": A2D,
    "a2d-qwen3": A2D,
    "lladamoe": LLADA_MOE,
    "llada_moe": LLADA_MOE,
    "llada2_moe": LLADA2,
    "llada2_moe_veomni": LLADA2,
    "sdar_moe": SDAR_MOE,
    "qwen3_moe": QWEN3_MOE,
    "bert": BERT,
    "roberta": ROBERTA,
    "Showo": SHOWO,
    "unidisc": UNIDISC,
    "llama": AUTOREGRESSIVE,
    "qwen2": AUTOREGRESSIVE,
    "qwen3": AUTOREGRESSIVE,
}
# Known by other things than `model_type`.
_WITHOUT_NAME = (OPEN_DLLM, DREAM_REASONER, DREAMON, LUMINA, LAVIDA)


def family_of(folder: ForeignFolder) -> Family:
    """The family of a checkpoint, by its `config.json` and its tokenizer.

    Raises:
        ValueError: if it is of none that can be loaded.
    """
    kind = folder.config.get("model_type") or folder.config.get("_class_name")
    if kind == "llada" and folder.config.get("num_experts"):
        return LLADA_MOE  # published under the name of the dense model
    if kind == "llada" and ARCHITECTURE in (folder.config.get("architectures") or ()):
        return LUMINA
    if kind == "llava_llada" and has_llada_names(folder):
        return LAVIDA
    if kind == "Dream" and "block_size" in folder.config:
        return DREAM_REASONER  # another model under the same name
    if kind == "Dream" and expand_id(folder) is not None:
        return DREAMON  # Dream with two tokens more
    if kind == "qwen2" and folder.named_token("mask_token") is not None:
        return OPEN_DLLM  # written as plain Qwen2; an AR model's tokenizer has no mask
    if kind is None and has_hub_fields(folder):
        return UNIDISC
    if kind is None:
        raise ValueError(
            f"{folder.path / 'config.json'} has no model_type and no _class_name, by which a "
            f"family is told, and not the fields {HUB_FIELDS} of UniDisc's: add the model_type, of "
            f"UniDiff's own checkpoints 'unidiff', of others one of {sorted(FAMILIES)}"
        )
    if kind not in FAMILIES:
        raise ValueError(
            f"{folder.path / 'config.json'} says model_type {kind!r}; what can be loaded is "
            f"{sorted(FAMILIES)}, and UniDiff's own"
        )
    return FAMILIES[kind]


def all_families() -> list[Family]:
    """Every family once."""
    return list({one.name: one for one in (*FAMILIES.values(), *_WITHOUT_NAME)}.values())


def named_family(name: str) -> Family:
    """The family of a name; raises ValueError if there is none."""
    known = {family.name: family for family in all_families()}
    if name not in known:
        raise ValueError(f"unknown family {name!r}; there are {sorted(known)}")
    return known[name]
