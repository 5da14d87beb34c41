"""Spoken digits as codes: a modality for UniDiff."""
