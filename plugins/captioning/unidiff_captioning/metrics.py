"""How near captions are to references: CIDEr by pycocoevalcap, BLEU by sacrebleu."""

# Shapes: N captions.

from collections.abc import Sequence

import numpy as np


def cider(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """(N,) CIDEr-D of each caption in [0, 10]; document frequencies come from the references.

    Args:
        captions: N sentences.
        references: N lists of right sentences.

    Source: Vedantam et al. 2015, arXiv 1411.5726; the code is pycocoevalcap's, with words split at
        spaces and in lower case instead of by its Java tokenizer.
    """
    from pycocoevalcap.cider.cider import Cider

    truth = {index: [_words(one) for one in many] for index, many in enumerate(references)}
    said = {index: [_words(caption)] for index, caption in enumerate(captions)}
    _, scores = Cider().compute_score(truth, said)
    return np.asarray(scores, dtype=np.float64)


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of all captions in [0, 1]; a caption with fewer references repeats its last.

    Source: Papineni et al. 2002; the code is sacrebleu's, with its tokenizer 13a.
    """
    import sacrebleu

    widest = max(len(many) for many in references)
    columns = [[many[min(n, len(many) - 1)] for many in references] for n in range(widest)]
    return sacrebleu.corpus_bleu(list(captions), columns, lowercase=True).score / 100


def _words(sentence: str) -> str:
    """The sentence in lower case, its full stop a word of its own."""
    return " ".join(sentence.lower().replace(".", " .").split()) or "nothing"
