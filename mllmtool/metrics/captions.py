"""Caption scores of the COCO pipeline: CIDEr-D, BLEU and ROUGE-L, one row an image.

Formulas of pycocoevalcap, which they equal to 1e-9; its tokenizer is `caption_tokens` here.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mllmtool.metrics.caption_tokens import caption_tokens
from mllmtool.metrics.edits import common_subsequence
from mllmtool.metrics.ngrams import ORDER, Captions, Counts, Ints

Array = NDArray[np.float64]
SIGMA = 6.0  # of CIDEr-D's penalty for a difference of lengths
SCALE = 10.0  # of CIDEr
BETA = 1.2  # weight of recall in ROUGE-L
TINY, SMALL = 1e-15, 1e-9  # keep BLEU's ratios from 0 / 0


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
    r"""CIDEr-D of each image.

    $10 \cdot \mathrm{mean}_{n, r} \sum_g \min(h_g, r_g) r_g / (|h||r|) \cdot
    e^{-(l_h - l_r)^2 / 72}$ with $h, r$ counts times $\ln N - \ln \max(1, df)$, df the images
    whose references hold g, and lengths in bigrams. A single image scores 0.
    """
    captions = Captions.read(candidates, references)
    bigrams = np.maximum(captions.lengths - 1, 0)
    ahead = bigrams - bigrams[captions.candidates][captions.image]
    similar = sum(_similarity(captions, counts) for counts in captions.counts())
    each = similar * np.exp(-(ahead**2) / (2 * SIGMA**2)) / ORDER  # (texts,)
    each[captions.candidates] = 0
    number = np.bincount(captions.image) - 1
    total: Array = SCALE * np.bincount(captions.image, each) / number
    return total


def bleu_statistics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
    """Of each image: 4 clipped matches, 4 candidate n-grams, its length, the nearest reference's.

    Their sums over images give `bleu`; of two references as near the shorter counts.
    """
    captions = Captions.read(candidates, references)
    matches = [_clipped(captions, counts) for counts in captions.counts()]
    length = captions.lengths[captions.candidates]
    nearest = _nearest(captions, length)
    guesses = [np.maximum(length - n, 0) for n in range(ORDER)]
    return np.stack([*matches, *guesses, length, nearest], axis=1).astype(np.float64)


def bleu(sums: Array, order: int) -> Array:
    """BLEU of `order` from sums of `bleu_statistics`, (..., 10)."""
    matches, guesses = sums[..., :order], sums[..., ORDER : ORDER + order]
    precision = ((matches + TINY) / (guesses + SMALL)).prod(-1) ** (1 / order)
    ratio = (sums[..., -2] + TINY) / (sums[..., -1] + SMALL)
    found: Array = precision * np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return found


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """F of the highest precision and the highest recall, which may be of two references."""
    said = caption_tokens(candidate)
    rows = [caption_tokens(text) for text in references]
    common = [common_subsequence(said, row) for row in rows]
    if not said or not any(common):
        return 0.0
    precision = max(common) / len(said)
    recall = max(same / max(1, len(row)) for same, row in zip(common, rows, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _similarity(captions: Captions, counts: Counts) -> Array:
    """Clipped cosine of each text with its image's candidate, (texts,)."""
    texts = len(captions.lengths)
    weights = _idf(captions, counts)[counts.gram]
    values = counts.times * weights
    norms = np.sqrt(np.bincount(counts.text, values**2, minlength=texts))
    said = _of_candidates(captions, counts)[counts.group] * weights
    products = np.bincount(counts.text, np.minimum(said, values) * values, minlength=texts)
    both = norms * norms[captions.candidates][captions.image]
    cosine: Array = np.divide(products, both, out=np.zeros(texts), where=both > 0)
    return cosine


def _idf(captions: Captions, counts: Counts) -> Array:
    """The idf, ln N - ln max(1, df), of each n-gram; its images are the groups with a reference."""
    sizes = np.diff(np.append(counts.first, len(counts.text)))
    alone = (sizes == 1) & captions.is_candidate(counts.text[counts.first])
    found = np.bincount(counts.gram[counts.first], ~alone)
    idf: Array = np.log(float(captions.images)) - np.log(np.maximum(1.0, found))
    return idf


def _of_candidates(captions: Captions, counts: Counts) -> Ints:
    """How often the candidate of each group holds its n-gram; it comes first, if it does."""
    theirs = captions.is_candidate(counts.text[counts.first])
    return np.where(theirs, counts.times[counts.first], 0)


def _clipped(captions: Captions, counts: Counts) -> Array:
    """N-grams of each candidate, each at most as often as a reference has it."""
    if not len(counts.text):
        return np.zeros(captions.images)
    others = np.where(captions.is_candidate(counts.text), 0, counts.times)
    most = np.maximum.reduceat(others, counts.first)
    shared = np.minimum(most, _of_candidates(captions, counts))
    image = captions.image[counts.text[counts.first]]
    matches: Array = np.bincount(image, shared, minlength=captions.images).astype(np.float64)
    return matches


def _nearest(captions: Captions, length: Ints) -> Ints:
    """Of each image the length of a reference that is nearest the candidate's; of two the less."""
    texts = np.delete(np.arange(len(captions.lengths)), captions.candidates)
    image, lengths = captions.image[texts], captions.lengths[texts]
    order = np.lexsort((lengths, abs(lengths - length[image]), image))
    found: Ints = lengths[order][np.searchsorted(image, np.arange(captions.images))]
    return found
