"""Tags of words: CoNLL-2003 (Tjong Kim Sang and De Meulder 2003, table 2), by default English, in the scheme IOB2; and
universal part-of-speech tags (Petrov, Das, McDonald 2012) of any text, as `tags` of a source gives them.
"""

from gradworks.tasks import TaskSpec

ROWS = (
    TaskSpec(
        "conll2003", "tagging", ("tokens",),
        ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"),  # the hub's indices
        ("entity_f1", "tag_accuracy"),
        sizes={"train": 14041, "validation": 3250, "test": 3453}, majority={"entity_f1": 0.0},
    ),
    TaskSpec(
        "universal_pos", "tagging", ("text",),
        ("NOUN", "VERB", "ADJ", "ADV", "PRON", "DET", "ADP", "NUM", "CONJ", "PRT", ".", "X"), ("tag_accuracy",),
    ),
)  # fmt: skip
