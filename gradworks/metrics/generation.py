"""Metrics of written text: perplexity, exact match, ROUGE.

ROUGE is torchmetrics', which gives what Google's rouge_score gives without a stemmer: lower case, and what is neither
a letter from a to z nor a digit separates words, so that text in other alphabets has no words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradworks.base.errors import InputError
from gradworks.metrics._shared.scores import FEWEST_LOSSES, Score, known, student, wilson

METRICS = ("perplexity", "exact_match", "rouge1", "rouge2", "rougeL")
LOWER_IS_BETTER = ("perplexity",)
ANSWERS = np.dtype([("text", object), ("nll", np.float64), ("tokens", np.float64)])
_KEPT: dict[tuple[str, str, str], float] = {}  # ROUGE of pairs that were compared: reports ask for the same again
_MOST = 200_000


def score(metric: str, labels: Any, answers: Any) -> Score:
    """One metric with its 95 % interval over examples.

    Perplexity: exp of the mean negative log-likelihood of a token, over all tokens of all references; the interval is
    that of the ratio of two means over examples (delta method, Student's t), on the scale of the logarithm; none below
    30 examples. Exact match: Wilson (1927). ROUGE: the mean of F1 (Lin 2004) over examples, Wilson's interval at the
    number of examples that a share of the same standard error has (Korn and Graubard 1998); none below 30 examples.

    Args:
        metric: a name in METRICS.
        labels: (n,) references.
        answers: (n,) of the type ANSWERS: the text that was written, the negative log-likelihood (nats) of the
            reference, a sum over its tokens, and their number.

    Raises:
        InputError: an unknown metric, or ROUGE without torchmetrics.
    """
    known(metric, "a task of texts", METRICS)
    n = len(labels)
    if len(answers) != n:
        raise ValueError(f"{n} labels but {len(answers)} answers")
    if n == 0:
        return Score(None, 0, note="no examples")
    if metric == "perplexity":
        return _perplexity(answers)
    values = _values(metric, labels, answers)
    share = float(values.mean())
    if metric == "exact_match":
        return Score(share, n, *wilson(int(values.sum()), n))
    if n < FEWEST_LOSSES:
        return Score(share, n, note=f"no interval below {FEWEST_LOSSES} examples")
    variance = float(values.var(ddof=1)) / n
    alike = share * (1 - share) / variance if variance else n
    return Score(share, n, *wilson(share * alike, alike))


def shares(metric: str, labels: Any, answers: Any) -> np.ndarray | None:
    """What each of n examples adds to a score: (n,) whose mean is the score and whose variance over n is the score's
    variance over examples; for the perplexity its linearisation. None where the score is not defined.
    """
    if len(labels) < 2:
        return None
    if metric != "perplexity":
        return _values(metric, labels, answers)
    found = _perplexity(answers).value
    return None if found is None else found * (1 + _residuals(answers))


def exact(one: str, other: str) -> bool:
    """Whether two texts are equal but for blanks around and between words."""
    return one.split() == other.split()


def rouge(metric: str, reference: str, text: str) -> float:
    """F1 of rouge1, rouge2 or rougeL of one text. Raises InputError where torchmetrics is not installed."""
    key = (metric, reference, text)
    if key not in _KEPT:
        if len(_KEPT) >= _MOST:
            _KEPT.clear()
        made = _library()(text, reference, rouge_keys=metric)
        _KEPT[key] = float(made[f"{metric}_fmeasure"])
    return _KEPT[key]


def check_library(metrics: Sequence[str]) -> None:
    """Raises InputError where one of the metrics needs a library that is not installed."""
    if any(name.startswith("rouge") for name in metrics):
        _library()


def _library() -> Any:
    try:
        from torchmetrics.functional.text.rouge import rouge_score
    except ImportError:
        raise InputError(
            "ROUGE: torchmetrics is not installed\nexpected: pip install 'gradworks[generation]'"
        ) from None
    return rouge_score


def _values(metric: str, labels: Any, answers: Any) -> np.ndarray:
    pairs = zip(labels, answers["text"], strict=True)
    if metric == "exact_match":
        return np.array([float(exact(label, text)) for label, text in pairs])
    return np.array([rouge(metric, label, text) for label, text in pairs])


def _perplexity(answers: Any) -> Score:
    n, nll, tokens = len(answers), answers["nll"], answers["tokens"]
    bad = int((~np.isfinite(nll)).sum())
    if bad or tokens.sum() <= 0:
        return Score(None, n, note=f"{bad} of {n} likelihoods are not finite" if bad else "no tokens")
    log, note = nll.sum() / tokens.sum(), f"{int(tokens.sum())} tokens"
    if n < FEWEST_LOSSES:
        return Score(_exp(log), n, note=f"{note}; no interval below {FEWEST_LOSSES} examples")
    half = student(n) * float(_residuals(answers).std(ddof=1)) / np.sqrt(n)
    return Score(_exp(log), n, _exp(log - half), _exp(log + half), note=note)


def _residuals(answers: Any) -> np.ndarray:
    """(n,) the influence of each example on the logarithm of the perplexity, times n; their mean is 0."""
    nll, tokens = answers["nll"], answers["tokens"]
    return (nll - nll.sum() / tokens.sum() * tokens) / tokens.mean()


def _exp(log: float) -> float:
    return float(np.exp(min(log, 700.0)))
