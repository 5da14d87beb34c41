"""Checkpoints that bring their own code, as their authors publish them: right, and subtly wrong."""

from pathlib import Path

from .published import TABLE, Published, write_json

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
# Causal attention where everybody should attend to everybody.
WRONG = ("mask = torch.zeros(1, 1, length, length)", "mask = None")
CODES = {
    "dream": (DREAM_CODE, {"AutoConfig": "theirs.DreamConfig", "AutoModel": "theirs.DreamModel"}),
    "sdar": (
        SDAR_CODE,
        {"AutoConfig": "theirs.SDARConfig", "AutoModelForCausalLM": "theirs.SDARForCausalLM"},
    ),
}


def write_with_code(folder: Path, name: str, is_right: bool = True) -> Path:
    """A family's tiny checkpoint with `theirs.py` beside it; returns the folder."""
    published = next(one for one in TABLE if one.name == name)
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
