"""Filling holes: fill-in-the-middle, texts with several holes, texts beside pictures with holes."""

from unidiff.plugins import Plugin

from .fim import FillInTheMiddle
from .infilling import Infilling

plugin = Plugin("infilling", tasks=(FillInTheMiddle(), Infilling()))
