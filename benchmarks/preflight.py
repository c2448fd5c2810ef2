"""Which methods and back-ends of `reweight` serve which family of transformers, and why the others do not.

Each family is a tiny model with random weights, made from a config with the switches of its published checkpoints, as
`from` of an encoder in params.yaml would make it, with the attention that transformers chooses. Encoder-decoders write
(model `seq2seq`), the others classify pairs of texts (model `transformer`). Every entry of every slot takes one step
beside plain training in the other two slots; what it is refused with is in the table, word for word.

    python -m benchmarks.preflight     writes docs/preflight.md; a minute on one core
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from gradworks import models, tasks
from gradworks.base import artifacts
from gradworks.data import tokenizer
from gradworks.data.batching import Examples
from gradworks.data.tables import to_examples
from gradworks.methods import Method
from gradworks.methods._shared import entries
from gradworks.methods.weightings import reweight
from gradworks.models._shared import files
from gradworks.models._shared.generation import END, PAD
from gradworks.tasks import TaskSpec

PAGE = Path(__file__).parents[1] / "docs/preflight.md"
WORDS = ("red", "blue", "cat", "dog", "sun", "moon", "tree")
_BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_BART = {f"{half}_{key}": n for half in ("encoder", "decoder") for key, n in
         (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))} | {"d_model": 16}  # fmt: skip
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {  # our model, transformers' model type, its sizes
    "BERT": ("transformer", "bert", _BERT),
    "RoBERTa": ("transformer", "roberta", _BERT | {"type_vocab_size": 1}),
    "ELECTRA": ("transformer", "electra", _BERT | {"embedding_size": 8}),
    "DistilBERT": ("transformer", "distilbert", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
    "ALBERT": ("transformer", "albert", _BERT | {"embedding_size": 8}),
    "DeBERTa-v2": ("transformer", "deberta-v2", _BERT | {
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
        "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True, "type_vocab_size": 0,
    }),
    "MPNet": ("transformer", "mpnet", _BERT),
    "GPT-2": ("transformer", "gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2}),
    "Llama": ("transformer", "llama", _BERT),
    "T5": ("seq2seq", "t5", {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}),
    "BART": ("seq2seq", "bart", _BART),
    "Pegasus": ("seq2seq", "pegasus", _BART),
}  # fmt: skip
SLOTS = ("objective", "weighting", "update")
_PLAIN = ("supervised", "uniform", "erm")
_SERVED = "yes"


def cases() -> dict[str, tuple[Any, Any, Any]]:
    """What a row of the table tries, by its name."""
    made: dict[str, tuple[Any, Any, Any]] = {}
    for place, slot in enumerate(SLOTS):
        for name in entries.names(slot):
            point: list[Any] = list(_PLAIN)
            point[place] = name
            made[f"{slot} `{name}`"] = (point[0], point[1], point[2])
    for name in reweight._BACKENDS:
        made[f"`reweight: {{backend: {name}}}`"] = ("supervised", {"reweight": {"backend": name}}, "erm")
    return made


def build(family: str, folder: Path) -> tuple[Any, dict[str, Any], Examples]:
    """A fresh model of a family, tasks for it, and 64 examples. `folder`: is filled."""
    from transformers import AutoConfig

    ours, kind, sizes = FAMILIES[family]
    writes = ours == "seq2seq"
    texts = [" ".join(WORDS)] * 2
    made = tokenizer.byte_level(texts, 270, True) if writes else tokenizer.train(texts, 60, True)
    ids = made.get_vocab()
    pad = ids[PAD]
    given = {"vocab_size": len(ids), "pad_token_id": pad, "max_position_embeddings": 64} | sizes
    config = {"model": ours, "attention": None}
    if writes:
        end = ids[END]
        given |= {"eos_token_id": end, "bos_token_id": pad, "decoder_start_token_id": pad, "forced_eos_token_id": None}
        config |= {"lora": None, "end": [end], "pad": pad}
    else:
        given |= {"eos_token_id": pad, "bos_token_id": pad}
        config |= {"pooling": "mean", "dropout": 0.1}
    AutoConfig.for_model(kind, **given).save_pretrained(folder)
    files.write_tokenizer(made, folder)
    artifacts.write_json(folder / files.CONFIG, config)
    classes = None if writes else ("low", "mid", "high")
    spec = TaskSpec("task", "seq2seq" if writes else "classification", ("one", "two"), classes, ())
    task = tasks.kind(spec)
    model = models.create(folder, task.size, seed=0)
    return model, {"task": task}, to_examples(_rows(classes), task, model, 32, family)


def _rows(classes: tuple[str, ...] | None, n: int = 64) -> pa.Table:
    words = [[WORDS[(i * i + k) % 7] for k in range(1 + i % 4)] for i in range(n)]
    label = [" ".join(one[: 1 + i % 3]) if classes is None else classes[i % 3] for i, one in enumerate(words)]
    columns = {"id": [str(i) for i in range(n)], "one": [" ".join(one) for one in words]}
    return pa.table(columns | {"two": [WORDS[i % 7] for i in range(n)], "label": label})


def tried(case: tuple[Any, Any, Any], model: Any, known: dict[str, Any], data: Examples) -> str:
    """`yes`, with the back-end that `auto` took, or what a step is refused with."""
    model.zero_grad(set_to_none=True)
    try:
        if entries.load("update", case[2]).needs.batches == "one_per_task":
            case = (*case[:2], {case[2]: {"batches": 2}})
        method = Method(*case, tasks=known, seed=0)
        batches = [[data.batch(range(8 * i, 8 * i + 8))] for i in range(method.batches)]
        clean = [[data.batch(range(48, 56))] for _ in batches] if method.clean else ()
        method.backward(model, batches, clean)
    except (ValueError, RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
        said = "; ".join(line.strip() for line in str(error).splitlines() if line.strip()).replace("|", "\\|")
        return said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}"
    taken = getattr(method.weighting, "taken", "")
    return f"{_SERVED}, {taken}" if case[1] == "reweight" else _SERVED


def column(family: str, only: set[str] | None = None) -> dict[str, str]:
    """What each row of the table says of a family; `only`: of these rows."""
    logging.getLogger("gradworks").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        model, known, data = build(family, Path(folder))
        return {name: tried(case, model, known, data) for name, case in cases().items() if not only or name in only}


_INTRO = """# What serves which family

Tiny models with random weights and the switches of published checkpoints, one step each: what `from` of an encoder in
`params.yaml` would meet. ✓: served; a number: the refusal below, word for word. Encoder-decoders write (`seq2seq`), the
others classify. `weighting reweight` takes by itself what its row names; `head` is an approximation; `jvp`,
`per_example` and `second_order` are slow forms for comparison. What `ghost` is refused for lies in the layers below the
head: with `trainable: head` it serves DeBERTa-v2 and MPNet, too, and `auto` takes it.
"""


def page(columns: dict[str, dict[str, str]]) -> str:
    """The text of docs/preflight.md, from what `column` gives of each family."""
    reasons: dict[str, int] = {}
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name in cases():
        row = [_cell(one[name], reasons) for one in columns.values()]
        lines.append(f"| {name} | {' | '.join(row)} |")
    said = [f"{number}. {text}" for text, number in reasons.items()]
    made = "Made by `python -m benchmarks.preflight`."
    return "\n".join([_INTRO, *lines, "", *(["Refusals:", "", *said, ""] if said else []), made, ""])


def _cell(found: str, reasons: dict[str, int]) -> str:
    head, _, taken = found.partition(", ")
    if head == _SERVED:
        return f"`{taken}`" if taken else "✓"
    return str(reasons.setdefault(found, len(reasons) + 1))


def parsed(text: str) -> dict[str, dict[str, str]]:
    """What the page says: family -> row -> as `column` gives it."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    said = dict(line.split(". ", 1) for line in text.splitlines() if line[:1].isdigit())
    whole = {"✓": _SERVED} | said
    return {
        family: {row[0]: whole.get(row[at], f"{_SERVED}, {row[at].strip('`')}") for row in rows[2:]}
        for at, family in enumerate(rows[0])
        if at
    }


def main() -> None:
    text = page({family: column(family) for family in FAMILIES})
    with artifacts.atomic_file(PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
