"""Label models: probabilities of the classes of each row from the votes of labelling functions, without labels.

Both read votes (n, m): class indices, or -1 where a function abstained.
"""

from __future__ import annotations

import numpy as np

from gradworks.base.errors import InputError

_PSEUDO = 0.01  # counts added to each answer of a function, so that none is impossible
_MOST, _ENOUGH = 5000, 1e-6


def majority(votes: np.ndarray, classes: int) -> np.ndarray:
    """(n, C) the share of each class among a row's votes; equal ones where it has none."""
    counts = _counts(votes, classes)
    total = counts.sum(1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), 1 / classes)


def dawid_skene(votes: np.ndarray, classes: int) -> np.ndarray:
    """(n, C) by Dawid and Skene's model (1979, Applied Statistics 28), fitted by expectation maximisation.

    Each function has, for each true class, a probability of each answer, and to abstain is one of its answers: a
    function that votes for one class alone says something by where it does not vote. (Of votes alone, as in crowd-kit,
    such functions say nothing, and the model fails on them: benchmarks/LABEL_MODELS.md.) Assumes that the functions
    answer independently given the class, and so does not see that two of them copy each other: these count twice.
    Starts at the majority vote, which settles which class is which. Rows without votes count in the fit: without
    them the functions' answers are not independent, and estimates have a bias.

    Raises:
        InputError: the fit does not end, or ends where functions are on average wrong: it has exchanged classes.
    """
    n, m = votes.shape
    answers = np.eye(classes + 1)[np.where(votes < 0, classes, votes)].reshape(n, -1)  # (n, m (C + 1))
    made = first = majority(votes, classes)
    for _ in range(_MOST):
        prior = (made.sum(0) + _PSEUDO) / (n + classes * _PSEUDO)
        of = (made.T @ answers).reshape(classes, m, -1) + _PSEUDO  # P(answer of a function | class)
        of /= of.sum(2, keepdims=True)
        z = np.log(prior) + answers @ np.log(of).reshape(classes, -1).T
        z = np.exp(z - z.max(1, keepdims=True))
        before, made = made, z / z.sum(1, keepdims=True)
        if np.abs(made - before).max() < _ENOUGH:
            break
    else:
        raise InputError(f"label model: not settled after {_MOST} steps\nexpected more votes, or model: majority")
    _check(votes, made, first)
    return made


def _check(cast: np.ndarray, made: np.ndarray, first: np.ndarray) -> None:
    """The classes are still those of the votes: a vote is right more often than one for a class at random."""
    rows, places = np.nonzero(cast >= 0)
    right, chance = made[rows, cast[rows, places]].mean(), made.mean(0)[cast[rows, places]].mean()
    if right <= chance:
        agree = float((made.argmax(1) == first.argmax(1)).mean())
        raise InputError(
            f"label model: found votes right with probability {right:.2f}, a random one with {chance:.2f}; "
            f"agrees with the majority on {agree:.0%} of rows\nexpected functions that agree by more than chance"
        )


def _counts(votes: np.ndarray, classes: int) -> np.ndarray:
    return np.stack([(votes == c).sum(1) for c in range(classes)], axis=1).astype(float)


MODELS = {"dawid_skene": dawid_skene, "majority": majority}
