"""Which label model finds planted labels: ours, crowd-kit's and Snorkel's, on votes of functions of known accuracy.

pip install crowd-kit==1.4.2 snorkel==0.10.0      into an environment of their own beside gradworks
python -m benchmarks.label_models                 writes benchmarks/LABEL_MODELS.md; three minutes
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gradworks import statistics
from gradworks.data.labelling_model import dawid_skene, majority

ROWS, SEEDS = 3000, 5
ACCURACY = (0.9, 0.85, 0.8, 0.75, 0.7, 0.65)
Model = Callable[[np.ndarray, int, int], np.ndarray]  # votes, classes, seed -> (n, C)
PLANTED = {
    "2 classes": (2, (0.5, 0.5), False),
    "2 classes, one rare": (2, (0.8, 0.2), False),
    "3 classes": (3, (0.5, 0.3, 0.2), False),
    "2 classes, votes for one each": (2, (0.5, 0.5), True),
    "3 classes, votes for one each": (3, (0.5, 0.3, 0.2), True),
}


def plant(seed: int, classes: int, prior: tuple[float, ...], one_each: bool) -> tuple[np.ndarray, np.ndarray]:
    """True classes (n,) and votes (n, m). Functions vote on two fifths of the rows and err independently given the
    class; with `one_each` a function votes for one class alone, on two fifths of its rows and on as many others as its
    accuracy says.
    """
    draw = np.random.default_rng(seed)
    y = draw.choice(classes, ROWS, p=prior)
    votes = np.full((ROWS, len(ACCURACY)), -1)
    for j, right in enumerate(ACCURACY):
        if one_each:
            mine = y == j % classes
            false = 0.4 * mine.mean() * (1 - right) / right / (1 - mine.mean())
            votes[draw.random(ROWS) < np.where(mine, 0.4, false), j] = j % classes
        else:
            wrong = (y + draw.integers(1, classes, ROWS)) % classes
            cast = np.where(draw.random(ROWS) < right, y, wrong)
            votes[:, j] = np.where(draw.random(ROWS) < 0.4, cast, -1)
    return y, votes


def models() -> dict[str, Model]:
    """Ours, and the others where they are installed."""
    made: dict[str, Model] = {
        "majority": lambda votes, classes, _: majority(votes, classes),
        "gradworks dawid_skene": lambda votes, classes, _: dawid_skene(votes, classes),
    }
    import pandas as pd
    from crowdkit.aggregation import DawidSkene, OneCoinDawidSkene
    from snorkel.labeling.model import LabelModel

    def crowd(kind: type) -> Model:
        def fit(votes: np.ndarray, classes: int, seed: int) -> np.ndarray:
            rows, places = np.nonzero(votes >= 0)
            table = pd.DataFrame({"task": rows, "worker": places, "label": votes[rows, places]})
            found = kind(100).fit_predict_proba(table)
            every = found.reindex(index=range(len(votes)), columns=range(classes)).fillna(0)
            return every.to_numpy()

        return fit

    def snorkel(votes: np.ndarray, classes: int, seed: int) -> np.ndarray:
        model = LabelModel(cardinality=classes, verbose=False)
        model.fit(votes, n_epochs=500, log_freq=10**6, seed=seed, progress_bar=False)
        return model.predict_proba(votes)

    made |= {"crowd-kit DawidSkene": crowd(DawidSkene), "crowd-kit OneCoinDawidSkene": crowd(OneCoinDawidSkene)}
    return made | {"snorkel LabelModel": snorkel}


def measured(model: Model, seed: int, *planted: object) -> tuple[float, float, float]:
    """Share of rows with a vote that are labelled rightly, their log loss, largest error of a function's accuracy."""
    y, votes = plant(seed, *planted)
    p, known = model(votes, planted[0], seed), (votes >= 0).any(1)
    worst = 0.0
    for j in range(votes.shape[1]):
        cast = votes[:, j] >= 0
        true = (votes[cast, j] == y[cast]).mean()
        worst = max(worst, abs(p[cast, votes[cast, j]].mean() - true))
    loss = -np.log(p[np.arange(len(y)), y].clip(1e-6))[known].mean()
    return (p.argmax(1) == y)[known].mean(), loss, worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("LABEL_MODELS.md"))
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = []
    for name, planted in PLANTED.items():
        for label, model in models().items():
            found = np.array([measured(model, seed, *planted) for seed in range(SEEDS)])
            means = [statistics.mean(column.tolist()) for column in found.T]
            rows.append(f"| {name} | {label} | " + " | ".join(f"{m.value:.3f} ± {m.se:.3f}" for m in means) + " |")
            print(rows[-1], flush=True)
    text = f"""# Label models on planted truth

Written by `python -m benchmarks.label_models`: {ROWS} rows, {len(ACCURACY)} functions with accuracies of
{", ".join(map(str, ACCURACY))}, which err independently given the class; mean ± standard error over {SEEDS} draws.
Labels are those of rows with a vote; log loss in nats, probabilities cut at 1e-6; the last column is the largest error
of the estimated accuracy of a function. "Votes for one each": each function votes for one class alone, as most that
people write do.

| planted | label model | labels right | log loss | largest error |
|---|---|---:|---:|---:|
""" + "\n".join(rows) + "\n"  # fmt: skip
    args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
