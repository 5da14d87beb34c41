"""Checkpoints that bring their own code, as their authors publish them: right, and subtly wrong."""

from pathlib import Path

from .published import TABLE, Published, write_json
from .published_dit import DIT_TABLE

DREAM_CODE = """
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM


class DreamConfig(Qwen2Config):
    model_type = "Dream"


class DreamModel(Qwen2ForCausalLM):
    config_class = DreamConfig

    def forward(self, input_ids, attention_mask=None, **kwargs):
        length = input_ids.shape[1]
        mask = torch.zeros(1, 1, length, length)
        return super().forward(input_ids, attention_mask=mask, **kwargs)
"""
SDAR_CODE = """
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM


class SDARConfig(Qwen3Config):
    model_type = "sdar"


class SDARForCausalLM(Qwen3ForCausalLM):
    config_class = SDARConfig

    def forward(self, input_ids, attention_mask, store_kv=False, **kwargs):
        assert attention_mask.ndim == 3
        allowed = attention_mask[:, None].bool()
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
        return super().forward(input_ids, attention_mask=mask, **kwargs)
"""
A2D_CODE = """
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM


class A2DConfig(Qwen3Config):
    model_type = "a2d-qwen3"


class A2DModel(Qwen3ForCausalLM):
    config_class = A2DConfig

    def forward(self, input_ids, attention_mask=None, position_ids=None):
        if attention_mask is None:
            attention_mask = torch.zeros(1, 1, input_ids.shape[1], input_ids.shape[1])
        return super().forward(
            input_ids, attention_mask=attention_mask, position_ids=position_ids
        )
"""
# As its authors' classes: without `post_init()`, and with a plain tensor where nobody asks.
DIT_CODE = """
from types import SimpleNamespace

import torch
from tests.convert.published_dit import Dit
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput


class DitConfig(PreTrainedConfig):
    model_type = "KIND"


class DitModel(PreTrainedModel):
    config_class = DitConfig

    def __init__(self, config):
        super().__init__(config)
        sizes = SimpleNamespace(
            hidden_size=config.hidden_dim, vocab_size=config.vocab_size, has_clip=False
        )
        self.backbone = Dit(sizes).backbone

    def forward(self, input_ids=None, timesteps=None, SAMPLE return_dict=None):
        assert timesteps.shape == (len(input_ids),)
        index = torch.arange(input_ids.shape[1])
        CHECK
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)
        logits = Dit.forward(self, input_ids, mask).logits
        return MaskedLMOutput(logits=logits) if return_dict else logits
"""
MDLM_CODE = (
    DIT_CODE.replace("KIND", "mdlm")
    .replace("SAMPLE ", "")
    .replace("CHECK", "allowed = torch.ones(len(index), len(index), dtype=torch.bool)")
)
BD3LM_CODE = (
    DIT_CODE.replace("KIND", "bd3lm")
    .replace("SAMPLE", "sample_mode=None, store_kv=None,")
    .replace(
        "CHECK",
        """assert sample_mode and not store_kv
        assert self.config.attn_backend == "sdpa"
        block = index // self.config.block_size
        allowed = block[:, None] >= block""",
    )
)
MASKED = {"AutoConfig": "theirs.DitConfig", "AutoModelForMaskedLM": "theirs.DitModel"}
# Causal attention where everybody should attend to everybody.
WRONG = ("mask = torch.zeros(1, 1, length, length)", "mask = None")
CODES = {
    "dream": (DREAM_CODE, {"AutoConfig": "theirs.DreamConfig", "AutoModel": "theirs.DreamModel"}),
    "sdar": (
        SDAR_CODE,
        {"AutoConfig": "theirs.SDARConfig", "AutoModelForCausalLM": "theirs.SDARForCausalLM"},
    ),
    "a2d": (A2D_CODE, {"AutoConfig": "theirs.A2DConfig", "AutoModel": "theirs.A2DModel"}),
    "mdlm": (MDLM_CODE, MASKED),
    "bd3lm": (BD3LM_CODE, MASKED),
}


def write_with_code(folder: Path, name: str, is_right: bool = True) -> Path:
    """A family's tiny checkpoint with `theirs.py` beside it; returns the folder."""
    published = next(one for one in (*TABLE, *DIT_TABLE) if one.name == name)
    published.write(folder, published.model())
    code, auto_map = CODES[name]
    (folder / "theirs.py").write_text(code if is_right else code.replace(*WRONG))
    write_json(folder / "config.json", {**published.config, "auto_map": auto_map})
    return folder


def write_plain(folder: Path, name: str, model_type: str) -> Path:
    """A family's tiny checkpoint without code; returns the folder."""
    published: Published = next(
        one for one in TABLE if (one.name, one.config["model_type"]) == (name, model_type)
    )
    return published.write(folder, published.model())
