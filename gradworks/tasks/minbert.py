"""Sentiment as in the minBERT project; its paraphrase and similarity sets are the tasks `qqp` and `stsb`."""

from gradworks.tasks import Row

ROWS = (
    Row(
        "sst5",
        ("sentence",),
        ("very_negative", "negative", "neutral", "positive", "very_positive"),
        ("accuracy", "macro_f1"),
    ),
    Row("cfimdb", ("sentence",), ("negative", "positive"), ("accuracy",)),
)
