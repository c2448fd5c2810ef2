"""GLUE (Wang et al. 2018, table 1 for the metrics); MNLI is the task `nli`, RTE is in superglue.py."""

from gradworks.tasks import TaskSpec

_PAIR = ("sentence1", "sentence2")

ROWS = (
    TaskSpec("cola", "classification", ("sentence",), ("unacceptable", "acceptable"), ("matthews", "accuracy")),
    TaskSpec("sst2", "classification", ("sentence",), ("negative", "positive"), ("accuracy",)),
    TaskSpec("mrpc", "classification", _PAIR, ("not_equivalent", "equivalent"), ("f1", "accuracy")),
    TaskSpec("qqp", "classification", _PAIR, ("not_duplicate", "duplicate"), ("f1", "accuracy")),
    TaskSpec("stsb", "regression", _PAIR, None, ("pearson", "spearman")),  # similarity, 0 to 5
    TaskSpec("qnli", "classification", ("question", "sentence"), ("entailment", "not_entailment"), ("accuracy",)),
    TaskSpec("wnli", "classification", _PAIR, ("not_entailment", "entailment"), ("accuracy",)),
)
