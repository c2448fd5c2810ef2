"""Natural language inference: MNLI, SNLI, ANLI, HANS and the synthetic grammar."""

from gradworks.tasks import Hub, TaskSpec

_HUB = (
    Hub("nyu-mll/multi_nli", "da70db2af9d09693783c3320c4249840212ee221"),
    Hub("stanfordnlp/snli", "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b"),
    Hub("facebook/anli", "8e4813d81f46d313dac7892e1c28076917cfcdf9"),
)

ROWS = (
    TaskSpec(
        "nli",
        "classification",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        ("accuracy",),
        hub=_HUB,
    ),
    # HANS has these two labels; MNLI is folded into them to be trained and tested with it (Chi et al.)
    TaskSpec(
        "nli-binary",
        "classification",
        ("premise", "hypothesis"),
        ("entailment", "not_entailment"),
        ("accuracy",),
        {"neutral": "not_entailment", "contradiction": "not_entailment"},
    ),
)
