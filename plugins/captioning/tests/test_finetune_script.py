"""The short script with plain peft, run for two steps, leaves an adapter that peft loads."""

import subprocess
import sys

import torch
from peft import PeftModel

from unidiff.bundled import bundled_checkpoint
from unidiff.model.modeling import UniDiffForBlockDiffusion


def test_the_script_trains_an_adapter(pytestconfig, tmp_path):
    script = pytestconfig.rootpath / "eval" / "finetune_with_peft.py"
    assert len(script.read_text().splitlines()) <= 45
    line = [sys.executable, script, "caption_style", tmp_path / "adapter", "2"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    base = UniDiffForBlockDiffusion.from_pretrained(bundled_checkpoint(), dtype=torch.float32)
    ids = torch.tensor([[2, 300, 301]])
    before = base(ids).logits
    model = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert not torch.equal(model(ids).logits, before)
    with model.disable_adapter():
        assert torch.equal(model(ids).logits, before)
