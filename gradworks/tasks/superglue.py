"""SuperGLUE (Wang et al. 2019, table 1), each read as one sequence of texts and one label.

COPA is a choice between two texts that the model reads together, WiC gives the word as a text of its own, MultiRC has
one row per answer (its column `group` names the question).
"""

from gradworks.tasks import TaskSpec

ROWS = (
    TaskSpec("boolq", "classification", ("question", "passage"), ("false", "true"), ("accuracy",)),
    TaskSpec(
        "cb",
        "classification",
        ("premise", "hypothesis"),
        ("entailment", "contradiction", "neutral"),
        ("macro_f1", "accuracy"),
    ),
    TaskSpec(
        "copa", "classification", ("premise", "question", "choice1", "choice2"), ("choice1", "choice2"), ("accuracy",)
    ),
    TaskSpec("multirc", "classification", ("passage", "question", "answer"), ("false", "true"), ("f1", "accuracy")),
    TaskSpec("rte", "classification", ("premise", "hypothesis"), ("entailment", "not_entailment"), ("accuracy",)),
    TaskSpec("wic", "classification", ("word", "sentence1", "sentence2"), ("false", "true"), ("accuracy",)),
)
