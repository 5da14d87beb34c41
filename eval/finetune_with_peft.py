"""As `unidiff finetune`, by plain peft and our Trainer: finetune_with_peft.py [TASK OUT STEPS]."""

import sys

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoProcessor

import unidiff
from unidiff.data.collator import BlockCollator
from unidiff.data.stream import MixtureStream, Weighted
from unidiff.plugins import find_task
from unidiff.training.finetune import TaskSource
from unidiff.training.trainer import BlockDiffusionTrainer, BlockTrainingArguments

task = find_task(sys.argv[1] if len(sys.argv) > 1 else "caption_style")
out = sys.argv[2] if len(sys.argv) > 2 else "adapter"
steps, batch = int(sys.argv[3]) if len(sys.argv) > 3 else 120, 16
processor = AutoProcessor.from_pretrained(unidiff.bundled_checkpoint())
model = AutoModelForCausalLM.from_pretrained(unidiff.bundled_checkpoint())
config = LoraConfig(r=8, lora_alpha=16, target_modules=list(task.lora.target_modules))
adapted = get_peft_model(model, config)
source = TaskSource(task, processor, task.dataset("train"))
trainer = BlockDiffusionTrainer(
    model=adapted,
    args=BlockTrainingArguments(
        output_dir=f"{out}.run",
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=2e-3,
        report_to=[],
        save_strategy="no",
    ),
    train_dataset=MixtureStream([Weighted(source, 1)], steps * batch, seed=0),
    data_collator=BlockCollator(),
)
trainer.train()
adapted.save_pretrained(out)
