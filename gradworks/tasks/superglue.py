"""SuperGLUE (Wang et al. 2019; sizes of table 1, majority baselines of table 3, which are those of the test sets).

MultiRC has one row per answer; its column `group` names the question. ReCoRD has one row per question. WiC's columns
start1 to end2 say where the word stands.
"""

from gradworks.tasks import Hub, TaskSpec

_TRUTH = ("false", "true")


def _hub(config: str) -> tuple[Hub]:
    return (Hub("aps/super_glue", "3de24cf8022e94f4ee4b9d55a6f539891524d646", config),)


ROWS = (
    TaskSpec(
        "boolq", "classification", ("question", "passage"), _TRUTH, ("accuracy",),
        sizes={"train": 9427, "validation": 3270, "test": 3245}, majority={"accuracy": 0.623},
        hub=_hub("boolq"),
    ),
    TaskSpec(
        "cb", "classification", ("premise", "hypothesis"), ("entailment", "contradiction", "neutral"),
        ("macro_f1", "accuracy"),
        sizes={"train": 250, "validation": 56, "test": 250}, majority={"macro_f1": 0.217, "accuracy": 0.484},
        hub=_hub("cb"),
    ),
    TaskSpec(
        "copa", "choice", ("premise", "question", "choice1", "choice2"), ("choice1", "choice2"), ("accuracy",),
        sizes={"train": 400, "validation": 100, "test": 500}, majority={"accuracy": 0.5},
        hub=_hub("copa"),
    ),
    TaskSpec(
        "multirc", "answers", ("passage", "question", "answer"), _TRUTH, ("f1a", "question_em"),
        sizes={"train": 27243, "validation": 4848, "test": 9693}, majority={"f1a": 0.611, "question_em": 0.003},
        hub=_hub("multirc"),
    ),
    TaskSpec(
        "record", "cloze", ("passage", "query", "entities"), None, ("cloze_f1", "cloze_em"),
        sizes={"train": 100730, "validation": 10000, "test": 10000}, majority={"cloze_f1": 0.334, "cloze_em": 0.325},
        hub=_hub("record"),
    ),
    TaskSpec(
        "rte", "classification", ("premise", "hypothesis"), ("entailment", "not_entailment"), ("accuracy",),
        sizes={"train": 2490, "validation": 277, "test": 3000}, majority={"accuracy": 0.503},
        hub=_hub("rte"),
    ),
    TaskSpec(
        "wsc", "classification", ("text", "span1_text", "span2_text"), _TRUTH, ("accuracy",),
        sizes={"train": 554, "validation": 104, "test": 146}, majority={"accuracy": 0.651},
        hub=_hub("wsc"),
    ),
    TaskSpec(
        "wic", "word_in_context", ("word", "sentence1", "sentence2"), _TRUTH, ("accuracy",),
        sizes={"train": 5428, "validation": 638, "test": 1400}, majority={"accuracy": 0.5},
        hub=_hub("wic"),
    ),
)  # fmt: skip
