"""A tiny random model, a lossless stand-in for the image tokenizer, scripted responders."""

from types import SimpleNamespace

import pytest
import torch

from unidiff.evaluation.context import EvaluationContext
from unidiff.evaluation.responder import Usage
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.image import FSQImageTokenizer, FSQImageTokenizerConfig
from unidiff.tokens.layout import contiguous_layout
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.tokens.text import build_text_tokenizer

NUM_CODES = 240


class RememberingTokenizer:
    """Keeps every picture it encodes; its codes are the picture's number: nothing is lost."""

    device = torch.device("cpu")

    def __init__(self):
        self.pictures = [torch.zeros(3, 32, 32) - 1.0]
        self.numbers = {}

    def get_image_tokens(self, pixels):
        codes = torch.zeros(len(pixels), 64, dtype=torch.int64)
        for row, picture in enumerate(pixels):
            key = picture.numpy().tobytes()
            if key not in self.numbers:
                self.numbers[key] = len(self.pictures)
                self.pictures.append(picture.clone())
            codes[row, :2] = torch.tensor(divmod(self.numbers[key], NUM_CODES))
        return codes

    def decode_image_tokens(self, codes, grid):
        numbers = (codes[:, 0] * NUM_CODES + codes[:, 1]).tolist()
        return torch.stack(
            [self.pictures[n] if n < len(self.pictures) else self.pictures[0] for n in numbers]
        )


class ScriptedResponder:
    """Answers with the functions it is given; each gets the conversations of one call."""

    def __init__(self, texts=None, images=None, actions=None):
        self.usage = Usage()
        self._answers = {"texts": texts, "images": images, "actions": actions}

    def texts(self, conversations, options, seed):
        return self._answers["texts"](conversations)

    def images(self, conversations, options, seed):
        return self._answers["images"](conversations)

    def actions(self, conversations, options, seed):
        return self._answers["actions"](conversations)


@pytest.fixture
def lossless():
    layout = contiguous_layout(
        {"text": 300, "image": NUM_CODES}, mask_token_id=1, pad_token_id=0, end_token_ids=(3,)
    )
    return SimpleNamespace(image_tokenizer=RememberingTokenizer(), layout=layout)


@pytest.fixture
def context_with(lossless):
    def make(limit=None, **answers):
        return EvaluationContext(ScriptedResponder(**answers), None, lossless, 0, limit)

    return make


@pytest.fixture(scope="session")
def processor():
    torch.manual_seed(0)
    sizes = {"num_encoder_blocks": 0, "num_decoder_blocks": 0, "num_stage_blocks": 0}
    return UniDiffProcessor(
        tokenizer=build_text_tokenizer(["a photo of a sneaker. def f(x): return x"] * 9, 300),
        image_model=FSQImageTokenizer(FSQImageTokenizerConfig(hidden_sizes=[8, 8], **sizes)),
        action_bins=BinTokenizer((-1.0, -1.0), (1.0, 1.0), 256, horizon=8),
        state_bins=BinTokenizer((0.0, 0.0), (1.0, 1.0), 256),
    )


@pytest.fixture(scope="session")
def model(processor):
    torch.manual_seed(0)
    config = UniDiffConfig(
        vocab_size=processor.layout.num_ids,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        head_dim=16,
        token_layout=processor.layout.to_dict(),
        canvas_length=8,
    )
    return UniDiffForBlockDiffusion(config).eval()
