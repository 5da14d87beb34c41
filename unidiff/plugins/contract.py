"""What every plugin must do, as tests: a plugin's own tests inherit `PluginContract`.

    class TestMyPlugin(PluginContract):
        plugin_name = "my_plugin"

All checks run on the bundled checkpoint, on one thread, in seconds.
"""

# Shapes: N examples.

import math
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from transformers import BatchFeature

from unidiff.bundled import bundled_checkpoint
from unidiff.data.blocks import TrainingRow
from unidiff.model.adapters import read_record

from .answers import answer_examples
from .extending import add_modalities
from .own_adapter import own_adapter
from .plugin import API_VERSION, Plugin
from .registry import installed_plugins, load_plugin
from .task import Example, Task

_NUM_EXAMPLES = 2


class PluginContract:
    """Tests that hold for any plugin; pytest collects them from a subclass.

    Attributes:
        plugin_name: the entry point's name.
        num_examples: examples of each task that are asked.
    """

    plugin_name: ClassVar[str]
    num_examples: ClassVar[int] = _NUM_EXAMPLES

    def load_model(self) -> tuple[Any, Any]:
        """(model, processor) that know every modality of the plugin."""
        return _bundled(tuple(one.name for one in self.plugin.modalities))

    def examples(self, task: Task) -> list[Example]:
        """Examples of a task with their answers; override where it has no data of its own."""
        return list(task.dataset("test", self.num_examples))

    def test_plugin_is_installed_once_and_loads(self) -> None:
        """The entry point is found by name and gives a plugin of this version."""
        assert [one.name for one in installed_plugins()].count(self.plugin_name) == 1
        assert self.plugin.api_version == API_VERSION
        assert self.plugin.tasks or self.plugin.modalities

    def test_tasks_describe_themselves(self) -> None:
        """Every task says what it is, what it needs, and what a data set must hold."""
        for task in self.plugin.tasks:
            assert task.summary.strip(), task.name
            assert len(task.summary.splitlines()) == 1, task.name
            assert task.modalities, task.name
            assert task.columns, task.name
            assert all(meaning.strip() for meaning in task.columns.values()), task.name

    def test_examples_hold_the_columns(self) -> None:
        """What `dataset` gives has every column, and is the same each time."""
        for task in self.plugin.tasks:
            first, second = self.examples(task), self.examples(task)
            assert first, task.name
            for one, again in zip(first, second, strict=True):
                assert set(task.columns) <= set(one), task.name
                _assert_same(task.build(self.processor, one), task.build(self.processor, again))

    def test_the_answer_is_not_in_the_request(self) -> None:
        """Training asks for tokens; the request masks exactly those of a canvas."""
        for task in self.plugin.tasks:
            for example in self.examples(task):
                request = task.build(self.processor, example)
                assert request["input_ids"].shape[0] == 1, task.name
                if "canvas" in request:
                    wanted = ~request["pinned_mask"].bool()
                    mask_id = self.processor.layout.mask_token_id
                    assert wanted.any(), task.name
                    assert (request["canvas"][wanted] == mask_id).all(), task.name

    def test_training_rows_are_repeatable(self) -> None:
        """A row has a loss, and follows from the example and the random generator alone."""
        for task in self.plugin.tasks:
            for example in self.examples(task):
                rows = [self._row(task, example) for _ in range(2)]
                assert np.array_equal(rows[0].input_ids, rows[1].input_ids), task.name
                assert np.array_equal(rows[0].labels, rows[1].labels), task.name
                assert (rows[0].labels >= 0).any(), task.name

    def test_a_request_is_how_its_training_row_begins(self) -> None:
        """What the model is asked at decoding is what it saw in training, token for token."""
        for task in self.plugin.tasks:
            for example in self.examples(task):
                prompt = task.build(self.processor, example)["input_ids"][0].numpy()
                assert np.array_equal(self._row(task, example).input_ids[: len(prompt)], prompt)

    def test_examples_are_answered_and_measured(self) -> None:
        """The model answers, the answers parse, and every metric takes them."""
        model, processor = self.load_model()
        for task in self.plugin.tasks:
            examples = self.examples(task)
            answers = answer_examples(task, model, processor, examples)
            results = [answer.value for answer in answers]
            for name, metric in task.metrics().items():
                score = metric(results, examples)
                assert np.shape(score) in ((), (len(examples),)), name
                assert np.isfinite(score).all(), name

    def test_own_adapters_belong_to_the_bundled_checkpoint(self) -> None:
        """An adapter that comes with a task was trained on it, on this checkpoint, and loads."""
        model, processor = self.load_model()
        for task in self.plugin.tasks:
            if task.adapter is not None:
                assert not task.is_in_base, task.name
                assert read_record(task.adapter).task == task.name
                with own_adapter(task, model) as is_read:
                    assert is_read, task.name
                    answer_examples(task, model, processor, self.examples(task)[:1])

    def test_demo_examples_are_answered(self) -> None:
        """What the demonstration asks can be asked, and judged where it says so."""
        model, processor = self.load_model()
        for task in self.plugin.tasks:
            for shown in list(task.demo(seed=0))[: self.num_examples]:
                (answer,) = answer_examples(
                    task, model, processor, [shown.example], options=shown.options
                )
                if shown.is_right is not None:
                    assert isinstance(shown.is_right(answer.value), bool), task.name
                for picture in shown.pictures(answer.value) if shown.pictures else ():
                    assert picture.ndim == 3, task.name
                    assert picture.dtype == np.uint8, task.name

    def test_modalities_code_what_they_decode_and_load_what_they_save(self, tmp_path: Path) -> None:
        """Any codes are a value, a value has the codes that its grid asks for, files are whole."""
        for kind in self.plugin.modalities:
            modality = kind.default()
            number = math.prod(modality.grid or (7,))
            codes = np.random.default_rng(0).integers(0, modality.num_codes, number)
            value = modality.decode(codes)
            found = np.asarray(modality.encode(value))
            assert found.shape == (number,) or modality.grid is None, modality.name
            assert ((found >= 0) & (found < modality.num_codes)).all(), modality.name
            folder = tmp_path / modality.name
            folder.mkdir()
            modality.save_pretrained(folder)
            again = kind.from_pretrained(folder)
            assert np.array_equal(np.asarray(again.encode(value)), found), modality.name

    @property
    def plugin(self) -> Plugin:
        """The plugin under test."""
        return load_plugin(self.plugin_name)

    @property
    def processor(self) -> Any:
        """Processor that the plugin's tasks are built with."""
        return self.load_model()[1]

    def _row(self, task: Task, example: Example) -> TrainingRow:
        """Training row of an example with a fixed generator."""
        return task.training_row(self.processor, example, np.random.default_rng(0))


@cache
def _bundled(modalities: tuple[str, ...]) -> tuple[Any, Any]:
    """The bundled checkpoint with further modalities that it has not learnt, loaded once."""
    import torch

    from unidiff.model.modeling import UniDiffForBlockDiffusion
    from unidiff.tokens.processor import UniDiffProcessor

    torch.set_num_threads(1)
    folder = bundled_checkpoint()
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()
    processor = UniDiffProcessor.from_pretrained(folder)
    add_modalities(model, processor, modalities)
    return model, processor


def _assert_same(first: BatchFeature, second: BatchFeature) -> None:
    """Fail unless two requests hold the same tensors."""
    assert set(first) == set(second)
    for name in first:
        assert np.array_equal(np.asarray(first[name]), np.asarray(second[name])), name
