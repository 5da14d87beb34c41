"""Private helpers of transformers and peft: used in one file, with the signatures we rely on.

Two kinds of use. A *call* of a private helper belongs in unidiff/model/huggingface.py, alone. An
*override* of one (a method of ours that replaces a private method of theirs) may stand in the class
it belongs to and call `super()` of its own name. Either needs a row below, so that a new
transformers fails here, not in a user's run.
"""

import ast
import importlib
import inspect
import pkgutil

import pytest
import torch
from transformers import (
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    Trainer,
)
from transformers.image_processing_backends import PilBackend

import unidiff

HELPERS_FILE = "unidiff/model/huggingface.py"
LIBRARIES = ("transformers", "peft", "accelerate", "huggingface_hub")

# (class, helper) -> its parameters. Each helper that we call or override has a row.
HELPERS = {
    (GenerationMixin, "_prepare_generation_config"): ["self", "generation_config", "**kwargs"],
    (GenerationMixin, "adjust_generation_fn"): [
        "self",
        "generation_config",
        "from_auto_class",
        "from_pipeline",
        "pretrained_model_name_or_path",
        "cache_dir",
        "force_download",
        "proxies",
        "local_files_only",
        "token",
        "revision",
        "subfolder",
        "trust_remote_code",
        "**kwargs",
    ],
    (GenerationConfig, "_get_default_generation_params"): [],
    (PreTrainedModel, "_init_weights"): ["self", "module"],
    (Trainer, "_get_train_sampler"): ["self", "train_dataset"],
    (Trainer, "_save"): ["self", "output_dir", "state_dict"],
    (Trainer, "_load_from_checkpoint"): ["self", "resume_from_checkpoint", "model"],
    (PilBackend, "_prepare_images_structure"): ["self", "images", "expected_ndims"],
    (PilBackend, "_preprocess"): [
        "self",
        "images",
        "do_resize",
        "size",
        "resample",
        "do_center_crop",
        "crop_size",
        "do_rescale",
        "rescale_factor",
        "do_normalize",
        "image_mean",
        "image_std",
        "do_pad",
        "pad_size",
        "return_tensors",
        "**kwargs",
    ],
}


def parameter_names(function) -> list[str]:
    """Parameter names, with the stars of variadic ones."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(function).parameters.values()
    return [stars.get(parameter.kind, "") + parameter.name for parameter in parameters]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.fixture(scope="module")
def classes() -> list[type]:
    """Every class that the package defines, in any module that imports without an extra."""
    found: dict[type, None] = {}
    for info in pkgutil.walk_packages(unidiff.__path__, "unidiff."):
        if info.name.endswith("__main__"):
            continue
        try:
            module = importlib.import_module(info.name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("unidiff"):
                raise
            continue
        for value in vars(module).values():
            if inspect.isclass(value) and value.__module__ == info.name:
                found[value] = None
    return list(found)


def foreign_owner(owner: type, name: str) -> type | None:
    """First class of another library in the bases of `owner` that defines the function `name`."""
    for base in owner.__mro__[1:]:
        if base.__module__.split(".")[0] in LIBRARIES and name in vars(base):
            return base if callable(getattr(base, name)) else None
    return None


@pytest.mark.parametrize(
    ("owner", "name"), list(HELPERS), ids=[f"{o.__name__}.{n}" for o, n in HELPERS]
)
def test_helper_exists_with_the_signature_we_rely_on(owner, name):
    assert parameter_names(getattr(owner, name)) == HELPERS[owner, name]


def test_default_generation_params_is_static_and_would_truncate_to_50():
    static = inspect.getattr_static(GenerationConfig, "_get_default_generation_params")
    assert isinstance(static, staticmethod)
    # The reason why we override it: a codebook of hundreds of ids would lose its tail silently.
    assert GenerationConfig._get_default_generation_params()["top_k"] == 50


def test_every_private_override_has_a_row(classes):
    rows = {name for _, name in HELPERS}
    wrong = [
        f"{owner.__module__}.{owner.__qualname__}.{name}"
        for owner in classes
        for name, value in vars(owner).items()
        if is_private(name)
        and inspect.isroutine(value)
        and name not in rows
        and foreign_owner(owner, name)
    ]
    assert wrong == []


def test_private_names_are_imported_in_one_file_only(sources):
    wrong = []
    for source in sources:
        if source.path.as_posix() == HELPERS_FILE:
            continue
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.ImportFrom | ast.Import):
                continue
            module = source.resolve(node) if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                parts = f"{module}.{alias.name}".strip(".").split(".")
                if parts[0] in LIBRARIES and any(map(is_private, parts)):
                    wrong.append(f"{source.path}:{node.lineno} imports {'.'.join(parts)}")
    assert wrong == []


def test_private_helpers_are_called_in_one_file_only(sources):
    """Calls `anything._name(...)` where `_name` is private to a transformers base class."""
    bases = (GenerationMixin, PreTrainedModel, GenerationConfig, PreTrainedConfig, Trainer)
    private = {name for base in bases for name in dir(base) if is_private(name)}
    private = {name for name in private if any(callable(getattr(b, name, None)) for b in bases)}
    wrong = []
    for source in sources:
        if source.path.as_posix() == HELPERS_FILE:
            continue
        # A private function that the file defines is its own; an override may call the original.
        own = {n.name for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef)}
        wrong += [
            f"{source.path}:{node.lineno} calls {node.func.attr}"
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in private - own
        ]
    assert wrong == []


def test_helpers_called_in_the_one_file_have_rows(sources):
    rows = {name for _, name in HELPERS}
    (source,) = (s for s in sources if s.path.as_posix() == HELPERS_FILE)
    own = {n.name for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef)}
    called = {
        node.func.attr
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert {name for name in called if is_private(name)} - own - rows == set()


class ToyGenerationConfig(GenerationConfig):
    """A config with one extra field, in the form that transformers can build."""

    def __init__(self, **kwargs):
        self.block_length = kwargs.pop("block_length", 4)
        super().__init__(**kwargs)

    @classmethod
    def from_model_config(cls, model_config):
        raise NotImplementedError

    @staticmethod
    def _get_default_generation_params():
        return {"max_new_tokens": 8, "do_sample": False, "use_cache": True}


class ToyConfig(PreTrainedConfig):
    model_type = "contract-toy"
    vocab_size: int = 7


class PlainToy(PreTrainedModel, GenerationMixin):
    """Relies on transformers alone to load its generation config."""

    config: ToyConfig
    generation_config_class = ToyGenerationConfig

    def __init__(self, config):
        super().__init__(config)
        self.head = torch.nn.Linear(2, 2)
        self.post_init()

    def prepare_inputs_for_generation(self, *args, **kwargs):
        raise AssertionError("not called")


class RebuildingToy(PlainToy):
    """Rebuilds its own type of generation config after loading, as UniDiff's mixin does."""

    def adjust_generation_fn(self, *args, **kwargs):
        super().adjust_generation_fn(*args, **kwargs)
        values = self.generation_config.to_dict()
        self.generation_config = self.generation_config_class.from_dict(values)


@pytest.fixture
def saved_toy(tmp_path):
    toy = RebuildingToy(ToyConfig())
    toy.generation_config.block_length = 16
    toy.save_pretrained(tmp_path)
    return tmp_path


def test_not_implemented_from_model_config_falls_back_to_the_class_itself():
    toy = PlainToy(ToyConfig())
    assert type(toy.generation_config) is ToyGenerationConfig
    assert toy.generation_config.block_length == 4


def test_transformers_alone_loads_a_plain_config_that_keeps_the_extra_field(saved_toy):
    toy = PlainToy.from_pretrained(saved_toy)
    # If this fails, transformers keeps the type now and adjust_generation_fn can go.
    assert type(toy.generation_config) is GenerationConfig
    assert toy.generation_config.block_length == 16


def test_overriding_adjust_generation_fn_restores_the_type(saved_toy):
    toy = RebuildingToy.from_pretrained(saved_toy)
    assert type(toy.generation_config) is ToyGenerationConfig
    assert toy.generation_config.block_length == 16


def test_overridden_defaults_leave_top_k_unset_and_unknown_options_come_back():
    toy = RebuildingToy(ToyConfig())
    config, leftovers = toy._prepare_generation_config(None, temperature=0.5, denoising_stepz=3)
    assert config.top_k is None
    assert config.temperature == 0.5
    assert config.block_length == 4
    # Returned, not refused: our generate() has to refuse them itself.
    assert leftovers == {"denoising_stepz": 3}


def test_the_real_model_class_keeps_its_type_of_generation_config():
    owner = unidiff.UniDiffForBlockDiffusion
    assert owner.generation_config_class is unidiff.UniDiffGenerationConfig
    assert owner.adjust_generation_fn is not GenerationMixin.adjust_generation_fn
    assert unidiff.UniDiffGenerationConfig._get_default_generation_params().get("top_k") is None
    assert owner.can_generate()
