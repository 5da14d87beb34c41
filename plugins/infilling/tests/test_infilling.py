"""The contract of every plugin, and this task's own tests."""

from unidiff.plugins import PluginContract
from unidiff_infilling.task import Infilling, accuracy


class TestContract(PluginContract):
    plugin_name = "infilling"


def test_accuracy_counts_equal_answers():
    examples = [{"answer": "left"}, {"answer": "right"}]
    assert accuracy(["left", "left"], examples).tolist() == [1.0, 0.0]


def test_train_and_test_pictures_differ():
    task = Infilling()
    train = {example["image"].tobytes() for example in task.dataset("train", 20)}
    test = {example["image"].tobytes() for example in task.dataset("test", 20)}
    assert train != test
