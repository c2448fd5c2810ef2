"""Summaries: a document and the text that says it in short.

Gigaword: the first sentence of an article and its headline, numbers as # (Rush et al. 2015). CNN/DailyMail: articles
and their highlights (Hermann et al. 2015; See et al. 2017). ROUGE-1, ROUGE-2 and ROUGE-L are what both are compared by.
"""

from gradworks.tasks import Hub, TaskSpec

_ROUGE = ("rougeL", "rouge1", "rouge2")

ROWS = (
    TaskSpec("gigaword", "seq2seq", ("document",), None, _ROUGE, options={"max_response": 32}),
    TaskSpec(
        "cnn_dailymail", "seq2seq", ("document",), None, _ROUGE, options={"max_response": 128},
        hub=(Hub("abisee/cnn_dailymail", "96df5e686bee6baa90b8bee7c28b81fa3fa6223d", "3.0.0"),),
    ),
)  # fmt: skip
