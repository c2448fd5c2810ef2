"""GLUE (Wang et al. 2018, table 1 for the metrics); MNLI is the task `nli`, RTE is in superglue.py."""

from gradworks.tasks import Hub, TaskSpec

_PAIR = ("sentence1", "sentence2")


def _hub(config: str) -> tuple[Hub]:
    return (Hub("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", config),)


ROWS = (
    TaskSpec(
        "cola",
        "classification",
        ("sentence",),
        ("unacceptable", "acceptable"),
        ("matthews", "accuracy"),
        hub=_hub("cola"),
    ),
    TaskSpec("sst2", "classification", ("sentence",), ("negative", "positive"), ("accuracy",), hub=_hub("sst2")),
    TaskSpec("mrpc", "classification", _PAIR, ("not_equivalent", "equivalent"), ("f1", "accuracy"), hub=_hub("mrpc")),
    TaskSpec("qqp", "classification", _PAIR, ("not_duplicate", "duplicate"), ("f1", "accuracy"), hub=_hub("qqp")),
    TaskSpec("stsb", "regression", _PAIR, None, ("pearson", "spearman"), hub=_hub("stsb")),  # similarity, 0 to 5
    TaskSpec(
        "qnli",
        "classification",
        ("question", "sentence"),
        ("entailment", "not_entailment"),
        ("accuracy",),
        hub=_hub("qnli"),
    ),
    TaskSpec("wnli", "classification", _PAIR, ("not_entailment", "entailment"), ("accuracy",), hub=_hub("wnli")),
)
