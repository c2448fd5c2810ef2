"""GLUE (Wang et al. 2018, table 1 for the metrics); MNLI is the task `nli`, RTE stands in superglue.py."""

from gradworks.tasks import Row

_PAIR = ("sentence1", "sentence2")

ROWS = (
    Row("cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews", "accuracy")),
    Row("sst2", ("sentence",), ("negative", "positive"), ("accuracy",)),
    Row("mrpc", _PAIR, ("not_equivalent", "equivalent"), ("f1", "accuracy")),
    Row("qqp", _PAIR, ("not_duplicate", "duplicate"), ("f1", "accuracy")),
    Row("stsb", _PAIR, None, ("pearson", "spearman")),  # similarity, 0 to 5
    Row("qnli", ("question", "sentence"), ("entailment", "not_entailment"), ("accuracy",)),
    Row("wnli", _PAIR, ("not_entailment", "entailment"), ("accuracy",)),
)
