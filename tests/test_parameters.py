"""The whole params file is checked before anything runs: mistakes that people make, and what is said of each."""

import contextlib
import copy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gradworks import parameters
from gradworks.base.errors import InputError
from tests.small import SMALL

ROOT = Path(__file__).parent.parent


def checked(folder, change=lambda values: None, data=False, **files):
    values = copy.deepcopy(SMALL)
    change(values)
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    for name, text in files.items():
        (folder / name.replace("__", "/")).parent.mkdir(parents=True, exist_ok=True)
        (folder / name.replace("__", "/")).write_text(text)
    parameters.check(path, data=data)


def put(key, value):
    """A change of one value, at a dotted key."""

    def change(values):
        *folders, last = key.split(".")
        for one in folders:
            values = values[int(one)] if isinstance(values, list) else values.setdefault(one, {})
        values[last] = value

    change.said = f"{key} = {value!r}"
    return change


def drop(key):
    def change(values):
        *folders, last = key.split(".")
        for one in folders:
            values = values[one]
        del values[last]

    change.said = f"no {key}"
    return change


def last_layer(values):
    values["methods"]["last_layer"] = {"from": "smart", "trainable": "head"}
    values["cells"]["grid"][0]["method"].append("last_layer")


GRID = "cells.grid"
MISTAKES = [
    # the values that are no sections
    (put("device", "gpu"), "device: found 'gpu'", "expected one of: cpu, cuda, auto"),
    (put("threads", 0), "threads: found 0", "expected a number of at least 1"),
    (put("threads", "many"), "threads: found 'many'", "expected a whole number"),
    (put("gpu", {"kind": "a100", "count": -1}), "gpu.count: found -1", "expected a number of at least 0"),
    (put("gpu", {"kinds": "a100", "count": 0}), "gpu.kinds: unknown key; did you mean kind?", "expected one of"),
    (put("task", "nil"), "task: found 'nil'; did you mean nli?", "expected one of: "),
    (put("trian", {}), "trian: unknown section; did you mean train?", "expected one of: "),
    (put("here", "pipelines/other/"), "here: found 'pipelines/other/', expected ''", "leave root and here out"),
    (drop("train"), "train: missing", ""),
    (drop("device"), "device: missing", ""),
    # sources
    (put("fetch.synthetic.from", "synthetic:nil"), "fetch.synthetic", "from: expected synthetic:nli"),
    (put("fetch.synthetic.from", "files:data"), "fetch.synthetic", "expected synthetic:nli, file:FOLDER"),
    (put("fetch.synthetic.row", {"train": 1}), "fetch.synthetic.row: unknown key; did you mean rows?", ""),
    (put("fetch.synthetic.rows.train", -5), "fetch.synthetic.rows.train: found -5", "expected a number of at least 1"),
    (put("fetch.synthetic.seed", "one"), "fetch.synthetic.seed: found 'one'", "expected a whole number"),
    (put("fetch.mine", {"from": "file:data", "columns": {"premis": "a"}}), "columns: found 'premis'; did you mean", ""),
    (put("fetch.mine", {"from": "file:data", "labels": {0: "neutrl"}}), "labels.0: found 'neutrl'", "expected one"),
    (put("fetch.mine", {"from": "file:data", "layout": "cvs"}), "layout: found 'cvs'; did you mean csv?", "expected"),
    (put("fetch.mine", {"from": "file:d", "files": {"train": "a.csv", "dev": "a.csv"}}), "a.csv is two splits", ""),
    (put("fetch.mine", {"from": "file:d", "task": "stt"}), "fetch.mine.task: found 'stt'", "expected one of"),
    (put("fetch.mine", {"from": "hub:glue@main"}), "fetch.mine", "expected hub:OWNER/NAME@COMMIT"),
    # splits and conditions
    (put("corrupt.splits.train.from", "synthetic"), "train.from: found 'synthetic'", "expected text of the form"),
    (put("corrupt.splits.train.from", "sintetic/train"), "found 'sintetic'; did you mean synthetic?", ""),
    (put("corrupt.splits.test.from", "synthetic/tests"), "did you mean synthetic/test?", "expected one of: synthetic/"),
    (put("corrupt.splits.clean.size", 500), "clean.size: found 500", "expected at most 160"),
    (put("corrupt.splits.selection.size", 0), "selection.size: found 0", "expected a number of at least 1"),
    (put("corrupt.splits.clean.where", {"sets": "challenge"}), "where: found 'sets'; did you mean set?", "expected"),
    (put("corrupt.splits.clean.where", {"set": "chalenge"}), "found 'chalenge'; did you mean challenge?", "expected"),
    (put("corrupt.splits.test", {"from": "synthetic/train"}), "test: it takes all of synthetic/train", "`size`"),
    (put("corrupt.conditions.noise.noise.share", 50), "noise.share: found 50", "expected a number of at most 1"),
    (put("corrupt.conditions.noise.nosie", {}), "noise.nosie: unknown key; did you mean noise?", ""),
    (put("corrupt.conditions.noise", {"imbalance": {"ratios": {"neutrl": 0.1}}}), "did you mean neutral?", "expected"),
    (put("corrupt.conditions.noise", {"leak": {"count": 900}}), "leak.count: found 900", "at most 160"),
    (put("corrupt.condition", {}), "corrupt: found 'condition'; did you mean conditions?", "expected one of"),
    (put("corrupt.conditions.noise.noise", None), "conditions.noise.noise: found nothing", "leave the key out"),
    (put("corrupt.splits.clean.size", None), "splits.clean.size: found nothing", "leave the key out"),
    (put("fetch.synthetic.seed", -1), "fetch.synthetic.seed: found -1", "expected a number of at least 0"),
    (put("fetch.words", {"from": "file:data", "task": "universal_pos", "tags": "spacey:en_core_web_sm"}),
     "fetch.words:\ntags: found 'spacey:en_core_web_sm'", "textblob, spacy:PACKAGE or spacy:./FOLDER"),
    (put("fetch.words", {"from": "file:data", "task": "conll2003", "tags": "spacy:en_core_web_sm"}),
     "fetch.words.tags: the task conll2003 has no class 'NOUN'", "the classes of the task universal_pos"),
    # encoders
    (put("pretrain.gru.model", "gur"), "pretrain.gru.model: found 'gur'; did you mean gru?", "one of: bilstm, bow"),
    (put("pretrain.gru.hiden", 16), "pretrain.gru.hiden: unknown key; did you mean hidden?", "expected one of"),
    (put("pretrain.gru.dropout", 1.5), "pretrain.gru.dropout: found 1.5", "expected a number less than 1"),
    (drop("pretrain.gru.vocabulary"), "pretrain.gru: no vocabulary", "expected: vocabulary"),
    (drop("pretrain.gru.embedding"), "pretrain.gru:", "one of embedding and vectors is needed"),
    # methods
    (put("methods.dotprod.update", "dotprd"), "dotprod.update: found 'dotprd'; did you mean dotprod?", "expected"),
    (put("methods.erm", {"weighting": "rewieght"}), "weighting: found 'rewieght'; did you mean reweight?", "expected"),
    (put("methods.dotprod.update", {"dotprod": {"wieght": 1}}), "methods.dotprod: update dotprod", "'wieght'"),
    (put("methods.dotprod.update", {"dotprod": {"weight": "big"}}), "weight: found 'big'", "expected a number"),
    (put("methods.dotprod.update", {"reptile": {"batches": 1.5}}), "methods.dotprod: update reptile", "whole number"),
    (put("methods.erm", {"objectiv": "smart"}), "erm.objectiv: unknown key; did you mean objective?", "expected"),
    (put("methods.erm", {"train_on": ["clen"]}), "train_on.0: found 'clen'; did you mean clean?", "expected one of"),
    (put("methods", {"erm": {}, "sam-0.05": {"update": "sam"}}), "found the name 'sam-0.05': a dot in it", "sam-0_05"),
    (put("methods", {"erm": {}, 2024: {}}), "methods: found the name 2024: to YAML that is a number", "x2024"),
    (put("methods", {"erm": {}, False: {}}), "methods: found the name False: to YAML that is a truth value", ""),
    (last_layer, "methods.last_layer.from: found 'smart'", "expected one of: erm, dotprod"),
    # train
    (put("train.epochs", -1), "train.epochs: found -1", "expected a number greater than 0"),
    (put("train.epoch", 2), "train.epoch: unknown key; did you mean epochs?", "expected one of"),
    (put("train.batch", 1000), "train.batch: found 1000", "expected at most 480, the examples of the split train"),
    (put("train.batch", 0), "train.batch: found 0", "expected a number greater than 0"),
    (put("train.batch", {"tokens": 0}), "train.batch.tokens: found 0", "expected a number greater than 0"),
    (put("train.batch", {"token": 64}), "train.batch.token: unknown key; did you mean tokens?", "expected one of"),
    (put("train.micro_batch", {"tokens": 64}), "micro_batch: found 64 tokens", "expected examples, as of batch: 8"),
    (put("train.window", 0), "train.window: found 0", "expected a number greater than 0"),
    (put("train.clean_batch", 500), "train.clean_batch: found 500", "expected at most 40"),
    (put("train.learning_rate", {"grus": 1e-3}), "learning_rate: found 'grus'; did you mean gru?", "expected"),
    (put("train.learning_rate", -0.1), "train.learning_rate: found -0.1", "expected a number greater than 0"),
    (put("train.select", {"metric": "acuracy"}), "metric: found 'acuracy'; did you mean accuracy?", "expected one of"),
    (put("train.select", {"metric": "pearson"}), "select.metric: found 'pearson'", "expected one of: accuracy"),
    (put("train.optimizer", "Adamw"), "train.optimizer: found 'Adamw'; did you mean AdamW?", "expected one of"),
    (put("train.precision", "fp16"), "train.precision: found 'fp16'", "expected one of: float32, bf16"),
    (put("train.warmup", 500), "train.warmup: found 500", "expected a number less than 1"),
    # measure, evaluate, report
    (put("measure.pairs", [5, 9]), "measure.pairs: found [5, 9]", "expected a least number of 9"),
    (put("evaluate.by", "set"), "evaluate.by: found 'set'", "expected a list"),
    (put("measure", 0), "measure: found 0", "expected keys with values"),
    (put("evaluate.by", ["set", "heuristics"]), "did you mean heuristic?", "expected one of: set, heuristic"),
    (put("report.primary.where", {"set": "chalenge"}), "where.set: found 'chalenge'; did you mean challenge?", ""),
    (put("methods.dotprod.update", {"dotprod": {"weight": 10**400}}), "methods.dotprod: ", "too large"),
    (put("report.primary.metric", "acc"), "report.primary", "expected one of"),
    (put("report.primary.where", {"subset": "challenge"}), "where: found 'subset'", "columns of evaluate.by"),
    (put("report.baseline", "plain"), "report.baseline: found 'plain'", "expected one of: erm, dotprod"),
    (put("report.controls", {"dotprd": "erm"}), "controls: found 'dotprd'; did you mean dotprod?", "expected one of"),
    # cells and ensembles
    (put("cells.seeds", [-1]), "cells.seeds.0: found -1", "expected a number of at least 0"),
    (put("cells.seeds", [0, 0]), "duplicate cell noise-erm-gru-0", "expected each cell once"),
    (put(f"{GRID}.0.method", ["erm", "dotprot"]), "method: found 'dotprot'; did you mean dotprod?", "expected one of"),
    (put(f"{GRID}.0.condition", "noise"), "cells.grid.0.condition: found 'noise'", "expected a list"),
    (put("ensemble", [{"condition": "noise", "method": "erm", "encoders": ["bert"]}]), "no cell of noise, erm", ""),
]  # fmt: skip


@pytest.mark.parametrize(("change", "found", "expected"), MISTAKES, ids=lambda one: getattr(one, "said", None))
def test_a_mistake_is_said_at_once(tmp_path, change, found, expected):
    with pytest.raises(InputError) as error:
        checked(tmp_path, change)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{tmp_path / 'params.yaml'}: ")
    assert found in str(error.value) and expected in str(error.value)
    assert len(lines) <= 3


@pytest.mark.parametrize(
    "change",
    [
        *(drop(name) for name in ("measure", "evaluate", "report", "ensemble")),
        put("train.learning_rate", "1e-2"),
        put("x-mine", {"anything": 1}),
        put("corrupt.conditions.noise", None),
        put("methods.dotprod.update", {"dotprod": None}),
    ],
    ids=lambda one: one.said,
)
def test_what_is_right_is_taken(tmp_path, change):
    def whole(values):
        if "evaluate" in change.said:
            del values["report"]["primary"]["where"]
        change(values)

    checked(tmp_path, whole)


@pytest.mark.parametrize("params", [Path("params.yaml"), *sorted(Path("pipelines").glob("*/params.yaml"))], ids=str)
def test_shipped_files_are_right(params):
    parameters.check(params)


@pytest.mark.parametrize(("clean", "selection", "right"), [(40, 120, True), (41, 120, False), (40, 121, False)])
def test_splits_of_one_source_split_share_its_examples(tmp_path, clean, selection, right):
    def change(values):
        values["corrupt"]["splits"]["clean"] = {"from": "synthetic/validation", "size": clean}
        values["corrupt"]["splits"]["selection"] = {"from": "synthetic/validation", "size": selection}

    if right:
        checked(tmp_path, change)
        return
    with pytest.raises(InputError, match=r"splits.selection.size: found .*\nexpected at most 1(19|20), the examples"):
        checked(tmp_path, change)


def own(values):
    values["fetch"]["mine"] = {"from": "file:data/mine"}
    values["corrupt"]["splits"]["train"] = {"from": "mine/train"}
    values["corrupt"]["splits"]["test"] = {"from": "mine/test"}


def test_data_that_is_named_must_be_there_before_a_run_only(tmp_path):
    checked(tmp_path, own)
    with pytest.raises(InputError, match=r"fetch\.mine\.from: no folder"):
        checked(tmp_path, own, data=True)
    rows = "premise,hypothesis,label\na,b,neutral\n"
    with pytest.raises(InputError, match=r"splits.test.from: found 'mine/test'\nexpected one of: mine/dev, mine/train"):
        checked(tmp_path, own, **{"data__mine__train.csv": rows, "data__mine__dev.csv": rows})


def test_a_test_file_that_is_the_training_file_is_refused(tmp_path):
    rows = "premise,hypothesis,label\na,b,neutral\n"
    with pytest.raises(InputError, match=r"mine/test and mine/train are the same file, test\.csv"):
        checked(tmp_path, own, **{"data__mine__train.csv": rows, "data__mine__test.csv": rows})
    checked(tmp_path, own, **{"data__mine__test.csv": rows + "c,d,neutral\n"})


@pytest.mark.parametrize(
    ("header", "columns", "found"),
    [
        ("premise,hypothesis,label", {}, ""),
        ("premise,hypothesis,label", {"premise": "text_a"}, r"train\.csv: no column for premise: expected 'text_a'"),
        ("text_a,hypothesis,label", {}, r"train\.csv: no column for premise"),
        ("premise,hypothesis,class", {}, r"train\.csv: no column for label"),
        ("premise,hypothesis,class", {"label": "class"}, ""),
    ],
)
def test_columns_are_looked_up_in_the_headers_of_files(tmp_path, header, columns, found):
    def mine(values):
        own(values)
        values["fetch"]["mine"]["columns"] = columns

    files = {f"data__mine__{split}.csv": f"{header}\n{split},b,neutral\n" for split in ("train", "test")}
    with pytest.raises(InputError, match=found) if found else contextlib.nullcontext():
        checked(tmp_path, mine, **files)


def test_a_parquet_file_that_is_none_is_said_at_once(tmp_path):
    with pytest.raises(InputError, match=r"train\.parquet: not a readable Parquet file"):
        checked(tmp_path, own, **{"data__mine__train.parquet": "PAR0", "data__mine__test.parquet": "PAR0, too"})


@pytest.mark.slow("a process that imports kfp")
@pytest.mark.parametrize("verb", ["compile", "submit"])
def test_a_mistake_ends_before_anything_is_compiled_or_submitted(tmp_path, verb):
    checked(tmp_path)
    (tmp_path / "cells.yaml").write_text("each: {}\n")
    (tmp_path / "params.yaml").write_text((tmp_path / "params.yaml").read_text().replace("epochs: 4", "epochs: -4"))
    code = "from gradworks.cli import main; main()"
    more = ["-o", str(tmp_path / "out.yaml")] if verb == "compile" else ["--cluster", "pipelines/cluster.example.yaml"]
    command = [sys.executable, "-c", code, verb, str(tmp_path), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path / 'params.yaml'}: train.epochs: found -4\nexpected a number greater than 0\n"
    )


def mixed(values, **given):
    """Two tasks trained together."""
    take = {"from": "synthetic/train"}
    again = {"train": take, "clean": {"from": "synthetic/validation", "size": 20}, "selection": take | {"size": 20},
             "test": {"from": "synthetic/test"}}  # fmt: skip
    values["corrupt"]["parts"] = {"rte": again}
    values["mixtures"] = {"both": {"parts": ["nli", "rte"], "schedule": "round_robin"} | given}


def test_a_mixture_is_taken(tmp_path):
    checked(tmp_path, mixed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: mixed(v, parts=["nli", "rtee"]), "mixtures.both.parts: found 'rtee'; did you mean rte?"),
        (lambda v: mixed(v, parts=["nli", "mrpc"]), "corrupt.parts: found 'rte'\nexpected one of: mrpc"),
        (lambda v: mixed(v, schedule="round-robin"), "found 'round-robin'; did you mean round_robin?"),
        (lambda v: mixed(v, select="rt"), "mixtures.both.select: found 'rt'; did you mean rte?"),
        (lambda v: mixed(v, schedule="single"), "mixtures.both.schedule, for methods.erm: found single"),
        (lambda v: [mixed(v), v["corrupt"].pop("parts")], "no splits of 'rte'\nexpected corrupt.parts.rte"),
        (lambda v: [mixed(v), v["corrupt"]["parts"]["rte"].pop("test")], "corrupt.parts.rte.test: missing"),
        (lambda v: [mixed(v), v["corrupt"]["parts"]["rte"]["test"].update({"from": "synth/test"})],
         "corrupt.parts.rte.test.from: found 'synth'; did you mean synthetic?"),
        (lambda v: [mixed(v), v["corrupt"].update(parts=["rte"])], "corrupt.parts: found ['rte']"),
    ],
)  # fmt: skip
def test_a_mixture_that_does_not_fit_is_refused(tmp_path, change, said):
    with pytest.raises(InputError) as error:
        checked(tmp_path, change)
    assert said in str(error.value) and len(str(error.value).splitlines()) <= 3
