"""Natural language inference: MNLI, SNLI, HANS and the synthetic grammar."""

from gradworks.tasks import Row

ROWS = (
    Row("nli", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), ("accuracy",)),
    # HANS has these two labels; MNLI is folded into them to be trained and tested with it (Chi et al.)
    Row(
        "nli-binary",
        ("premise", "hypothesis"),
        ("entailment", "not_entailment"),
        ("accuracy",),
        {"neutral": "not_entailment", "contradiction": "not_entailment"},
    ),
)
