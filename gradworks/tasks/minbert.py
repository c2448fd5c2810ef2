"""The minBERT project: sentiment, and `sts`, the similarity set of `stsb` by the cosine of two encodings.

Its paraphrase set is the task `qqp`.
"""

from gradworks.tasks import TaskSpec

ROWS = (
    TaskSpec(
        "sst5",
        "classification",
        ("sentence",),
        ("very_negative", "negative", "neutral", "positive", "very_positive"),
        ("accuracy", "macro_f1"),
    ),
    TaskSpec("cfimdb", "classification", ("sentence",), ("negative", "positive"), ("accuracy",)),
    TaskSpec("sts", "similarity", ("sentence1", "sentence2"), None, ("pearson", "spearman")),  # label / 5
)
