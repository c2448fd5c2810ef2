"""Natural language inference: MNLI, SNLI, HANS and the synthetic grammar."""

from gradworks.tasks import TaskSpec

ROWS = (
    TaskSpec(
        "nli", "classification", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), ("accuracy",)
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
