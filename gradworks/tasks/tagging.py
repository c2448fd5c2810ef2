"""Tags of words: CoNLL-2003 (Tjong Kim Sang and De Meulder 2003, table 2), by default English, in the scheme IOB2."""

from gradworks.tasks import TaskSpec

ROWS = (
    TaskSpec(
        "conll2003", "tagging", ("tokens",),
        ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"),  # the hub's indices
        ("entity_f1", "tag_accuracy"),
        sizes={"train": 14041, "validation": 3250, "test": 3453}, majority={"entity_f1": 0.0},
    ),
)  # fmt: skip
