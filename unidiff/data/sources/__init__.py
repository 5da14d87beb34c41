"""Sources of examples: photographs, rendered scenes, library text and the tabletop."""
