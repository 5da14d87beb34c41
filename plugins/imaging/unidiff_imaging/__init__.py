"""Pictures for UniDiff: drawing, filling, extending, editing and sharpening them."""

from unidiff.plugins import Plugin

from .editing import Editing
from .filling import Inpainting, Outpainting
from .super_resolution import SuperResolution
from .text_to_image import TextToImage

plugin = Plugin(
    "imaging",
    tasks=(TextToImage(), Inpainting(), Outpainting(), Editing(), SuperResolution()),
)
