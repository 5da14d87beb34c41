"""Vision-language-action with UniDiff: robots driven by masked diffusion over action tokens."""
