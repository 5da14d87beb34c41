"""What adapting is worth: a small AR model, adapted, and the same model trained from nothing.

Three runs over sums and library text, each a folder that a stopped command goes on with: `source`,
a Qwen3 checkpoint in transformers' own form; `adapted`, what `unidiff adapt` makes of it; and
`scratch`, the same recipe over the same samples from fresh weights.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from unidiff.bundled import bundled_checkpoint
from unidiff.data.blocks import BlockOptions
from unidiff.data.corpus import Corpus
from unidiff.data.sources.additions import ORDERS, additions
from unidiff.data.sources.library_text import iter_documents
from unidiff.data.stream import Weighted
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.tokens.whole_folder import whole_folder

from .adaptation import adapted_model, train_model, write_adapted
from .adaptation_recipes import RECIPES, AdaptationRates, AdaptationRecipe
from .assemble import write_history
from .objective import BlockObjective
from .run_folder import check_same_settings

SUMS, TEXT = "sums", "text"
SETTINGS_FILE = "experiment.json"
STAGES = ("source", "adapted", "scratch")


@dataclass(frozen=True)
class AdaptationExperiment:
    """Sizes of the three runs.

    Attributes:
        hidden_size: width; a head has 32.
        num_layers: depth.
        intermediate_size: width inside the MLP.
        order: of a sum's digits.
        num_sums: training sums.
        sums: of each step.
        windows: stretches of text of each step.
        length: tokens of a stretch.
        max_documents: of the library; None: all.
        source_steps: of the AR model.
        steps: of the adaptation, and of the run from fresh weights.
        recipe: name in `RECIPES`.
        block_length: of the recipe.
        source_rate: peak rate of the AR model and of fresh weights.
        rate: peak rate of the adaptation.
        micro_batch: samples of one forward.
        save_steps: steps between checkpoints.
        seed: of everything.
    """

    hidden_size: int = 128
    num_layers: int = 4
    intermediate_size: int = 384
    order: str = "least_first"
    num_sums: int = 50_000
    sums: int = 112
    windows: int = 16
    length: int = 96
    max_documents: int | None = None
    source_steps: int = 1500
    steps: int = 200
    recipe: str = "causal"
    block_length: int = 8
    source_rate: float = 4e-3
    rate: float = 2e-3
    micro_batch: int = 16
    save_steps: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the names and sizes."""
        if self.order not in ORDERS or self.recipe not in RECIPES:
            raise ValueError(
                f"order must be one of {ORDERS} and recipe one of {sorted(RECIPES)}, got "
                f"{self.order!r} and {self.recipe!r}"
            )
        if self.hidden_size % 32 or self.length % self.block_length:
            raise ValueError(
                "hidden_size must be a multiple of 32 and length of block_length, got "
                f"{self.hidden_size}, {self.length} and {self.block_length}"
            )

    def adaptation(self) -> AdaptationRecipe:
        """The recipe with its block length."""
        shortest = max(1, self.block_length // 2)
        return replace(
            RECIPES[self.recipe], block_length=self.block_length, min_block_length=shortest
        )

    def rates(self, stage: str) -> AdaptationRates:
        """Steps and rate of a stage."""
        return AdaptationRates(
            steps=self.source_steps if stage == "source" else self.steps,
            learning_rate=self.rate if stage == "adapted" else self.source_rate,
            micro_batch=self.micro_batch,
            save_steps=self.save_steps,
            seed=self.seed,
            bf16=False,
        )


@dataclass(frozen=True)
class Experiment:
    """The runs of an experiment in one folder.

    Attributes:
        folder: holds data, runs and results.
        settings: sizes.
    """

    folder: Path
    settings: AdaptationExperiment = field(default_factory=AdaptationExperiment)

    def run(self) -> dict[str, Path]:
        """The folder of each stage, made where it is not there yet.

        Raises:
            ValueError: if the folder holds runs with other settings.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        check_same_settings(self.folder / SETTINGS_FILE, asdict(self.settings))
        self._write_data()
        makers: dict[str, Callable[[Path], Any]] = {
            "source": self._make_source,
            "adapted": lambda target: self._make(target, "adapted"),
            "scratch": lambda target: self._make(target, "scratch"),
        }
        for stage in STAGES:
            if not (self.folder / stage).exists():
                makers[stage](self.folder / stage)
        return {stage: self.folder / stage for stage in STAGES}

    def _write_data(self) -> None:
        """Sums and texts as JSONL, for `unidiff adapt --data` too."""
        settings = self.settings
        sums = additions(settings.num_sums, "train", settings.seed, order=settings.order)
        rows = [{"prompt": prompt, "completion": total} for prompt, total in sums]
        documents = islice(iter_documents("train"), settings.max_documents)
        texts = [{"text": text} for _, text in documents]
        for name, content in ((SUMS, rows), (TEXT, texts)):
            lines = "".join(json.dumps(row) + "\n" for row in content)
            path = self.folder / f"{name}.jsonl"
            if not path.is_file() or path.read_text(encoding="utf-8") != lines:
                path.write_text(lines, encoding="utf-8")

    def _sources(self, processor: UniDiffProcessor, blocks: BlockOptions) -> list[Weighted]:
        """Both data sets, cut for a recipe."""
        settings = self.settings
        counts = {SUMS: settings.sums, TEXT: settings.windows}
        return [
            Weighted(Corpus.read(name, path, processor.encoder, settings.length, blocks), count)
            for name, count in counts.items()
            for path in [self.folder / f"{name}.jsonl"]
        ]

    def _make_source(self, target: Path) -> None:
        """Train the AR model and write it as transformers would."""
        tokenizer = AutoTokenizer.from_pretrained(bundled_checkpoint())
        torch.manual_seed(self.settings.seed)
        theirs = Qwen3ForCausalLM(source_config(self.settings, len(tokenizer)))
        with whole_folder(target) as partial:  # an untrained one tells what its processor is
            theirs.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            processor = UniDiffProcessor.from_pretrained(partial)
            model = UniDiffForBlockDiffusion.from_pretrained(partial, dtype=torch.float32)
            rates = self.settings.rates("source")
            run = train_model(
                model,
                self._sources(processor, BlockOptions(left_to_right=True)),
                target.with_name("source.run"),
                BlockObjective(ar_weight=1.0),
                rates,
                asdict(self.settings),
            )
            own = run.model.state_dict()
            rows = theirs.config.vocab_size  # ours has one more, the mask's
            for name in ("model.embed_tokens.weight", "lm_head.weight"):
                own[name] = own[name][:rows]
            theirs.load_state_dict(own)
            theirs.save_pretrained(partial)
            write_history(partial, run)

    def _make(self, target: Path, stage: str) -> None:
        """Adapt the source, or train its shape from fresh weights."""
        recipe, rates = self.settings.adaptation(), self.settings.rates(stage)
        processor = UniDiffProcessor.from_pretrained(self.folder / "source")
        model = adapted_model(self.folder / "source", recipe)
        if stage == "scratch":
            model = fresh_model(model.config, rates.seed)
        run = train_model(
            model,
            self._sources(processor, recipe.blocks()),
            target.with_name(f"{stage}.run"),
            recipe.objective(
                rates.seed, rates.steps * (self.settings.sums + self.settings.windows)
            ),
            rates,
            asdict(self.settings),
        )
        write_adapted(run, processor, recipe.decoding, target)


def source_config(settings: AdaptationExperiment, num_ids: int) -> Qwen3Config:
    """The AR model's configuration over the bundled checkpoint's tokenizer."""
    heads = settings.hidden_size // 32
    return Qwen3Config(
        vocab_size=num_ids,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )


def fresh_model(config: UniDiffConfig, seed: int) -> UniDiffForBlockDiffusion:
    """A model of a configuration with random weights."""
    torch.manual_seed(seed)
    return UniDiffForBlockDiffusion(config)
