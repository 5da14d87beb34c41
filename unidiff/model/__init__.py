"""The UniDiff model; importing this room registers it with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor

from unidiff.tokens.processor import UniDiffProcessor

from .configuration import UniDiffConfig
from .modeling import UniDiffForBlockDiffusion, UniDiffModel

AutoConfig.register("unidiff", UniDiffConfig, exist_ok=True)
AutoModel.register(UniDiffConfig, UniDiffModel, exist_ok=True)
AutoModelForCausalLM.register(UniDiffConfig, UniDiffForBlockDiffusion, exist_ok=True)
AutoProcessor.register(UniDiffConfig, UniDiffProcessor, exist_ok=True)

__all__ = ["UniDiffConfig", "UniDiffForBlockDiffusion", "UniDiffModel"]
