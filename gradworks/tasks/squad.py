"""Questions whose answer is a part of a text: SQuAD (Rajpurkar et al. 2016; 2018, table 2) and sets in its layout.

NewsQA and Quasar-T with the sizes that the DotProd paper gives of them: answered questions; exact spans alone.
"""

from gradworks.tasks import Hub, TaskSpec

_TEXTS, _METRICS = ("question", "context"), ("answer_f1", "answer_em")

ROWS = (
    TaskSpec(
        "squad", "span", _TEXTS, None, _METRICS, options={"impossible": False},
        sizes={"train": 87599, "validation": 10570},
        hub=(Hub("rajpurkar/squad", "7b6d24c440a36b6815f21b70d25016731768db1f"),),
    ),
    TaskSpec(
        "squad2", "span", _TEXTS, None, _METRICS,
        sizes={"train": 130319, "validation": 11873}, majority={"answer_f1": 0.5007, "answer_em": 0.5007},
        hub=(Hub("rajpurkar/squad_v2", "3ffb306f725f7d2ce8394bc1873b24868140c412"),),
    ),
    TaskSpec(
        "newsqa", "span", _TEXTS, None, _METRICS, options={"impossible": False},
        sizes={"train": 97313, "validation": 5456},
    ),
    TaskSpec(
        "quasart_long", "span", _TEXTS, None, _METRICS, options={"impossible": False},
        sizes={"train": 24499, "validation": 1920},
    ),
    TaskSpec(
        "quasart_short", "span", _TEXTS, None, _METRICS, options={"impossible": False},
        sizes={"train": 20533, "validation": 1653},
    ),
)  # fmt: skip
