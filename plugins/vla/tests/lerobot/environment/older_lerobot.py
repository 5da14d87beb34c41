"""Lets lerobot 0.4.4 be imported beside newer libraries than it asks for, in this environment only.

`older_lerobot.pth` imports this at every start of Python. Nothing is imported early and no file of
lerobot is changed; two modules are met on their way in:

`torchvision`: PyPI's wheel is linked against CUDA, so beside a CPU build of torch its operators do
not load, and importing it fails where it describes them. lerobot needs its transforms, which are
plain Python, and none of these operators: their names are declared, calling one raises. Where the
wheel does load, nothing is declared.

`lerobot.utils.import_utils`: says which optional libraries there are. lerobot 0.4.4 asks for
transformers < 5, and one of its policies (groot) cannot be defined beside transformers 5, which
UniDiff needs. lerobot is told that transformers is absent, as it is after a plain
`pip install lerobot`; its policies that need it are then absent too.
"""

import importlib.abc
import importlib.machinery
import sys

_OPERATORS = (
    "nms",
    "qnms",
    "roi_align",
    "roi_pool",
    "ps_roi_align",
    "ps_roi_pool",
    "deform_conv2d",
)


class Meeting(importlib.abc.MetaPathFinder):
    """Finds one module as Python does, and has a word with it before or after it runs."""

    def __init__(self, name, before=None, after=None):
        self.name, self.before, self.after = name, before, after

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            run = spec.loader.exec_module

            def exec_module(module):
                if self.before is not None:
                    self.before(spec)
                run(module)
                if self.after is not None:
                    self.after(module)

            spec.loader.exec_module = exec_module
        return spec


def declare_operators(spec):
    """Declare the names of torchvision's operators, unless the operators themselves load."""
    import torch

    machinery = importlib.machinery
    details = (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES)
    folder = spec.submodule_search_locations[0]
    extension = machinery.FileFinder(folder, details).find_spec("_C")
    try:
        if extension is not None:
            torch.ops.load_library(extension.origin)
            return
    except OSError:
        pass
    library = torch.library.Library("torchvision", "DEF")
    for name in _OPERATORS:
        library.define(f"{name}(Tensor input) -> Tensor")
    declare_operators.library = library  # they are gone when it is


def without_transformers(module):
    """Have lerobot do without transformers."""
    module._transformers_available = False


sys.meta_path.insert(0, Meeting("torchvision", before=declare_operators))
sys.meta_path.insert(0, Meeting("lerobot.utils.import_utils", after=without_transformers))
