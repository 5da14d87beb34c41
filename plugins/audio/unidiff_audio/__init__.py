"""Spoken digits: a modality and two tasks for UniDiff."""

from unidiff.plugins import Plugin

from .codec import SpeechTokenizer
from .tasks import HearDigit, SayDigit

plugin = Plugin("audio", tasks=(HearDigit(), SayDigit()), modalities=(SpeechTokenizer,))
