"""`gradworks new`: foreign files, each to a report without an edit; and what is refused, in three lines."""

import csv
import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from gradworks import new, tasks
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.data import look
from tests.small import run, run_all

ROOT = Path(__file__).parent.parent
GOOD, BAD = ("great", "lovely", "superb", "fine"), ("awful", "dull", "poor", "sad")


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "components").mkdir()
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "versions.json", tmp_path / "versions.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sentences(n=120, classes=2):
    """Text and class, which the text's words tell."""
    rng, rows = random.Random(0), []  # noqa: S311
    for i in range(n):
        label = i % classes
        words = rng.choices(GOOD if label else BAD, k=2) + rng.choices(("the", "film", "was", "a", "plot"), k=4)
        rng.shuffle(words)
        rows.append((" ".join([*words, str(i)]), label))
    return rows


def delimited(path, header, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerows([header, *rows] if header else rows)
    return path


def one_csv():
    return delimited(Path("data/reviews.csv"), ("text", "label"), [(t, ["neg", "pos"][y]) for t, y in sentences()])


def one_tsv():
    return delimited(Path("data/stars.tsv"), ("sentence", "stars"), [(t, y + 1) for t, y in sentences(classes=3)], "\t")


def one_jsonl():
    path = Path("data/tickets.jsonl")
    rows = ({"id": i, "body": t, "is_spam": bool(y), "tags": ["a"]} for i, (t, y) in enumerate(sentences()))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one_parquet():
    texts = [t for t, _ in sentences()]
    path = Path("data/scores.parquet")
    pq.write_table(pa.table({"review": texts, "score": [y * 2.5 + len(t) / 100 for t, y in sentences()]}), path)
    return path


def two_texts():
    rows = [(i, f"is the {t} thing", t[::-1], ["ja", "nein"][y]) for i, (t, y) in enumerate(sentences())]
    return delimited(Path("data/meine fragen.csv"), ("Nr", "Die Frage (1)", "答え", "Urteil?"), rows)


def small(params):
    """The same with fewer and smaller cells."""
    values = yaml.safe_load(params.read_text())
    values["train"]["epochs"] = 1
    values["pretrain"]["gru"] |= {"vocabulary": 100, "embedding": 8, "hidden": 8}
    values["measure"] = {"pairs": [9, 9], "half_width": 1.0}
    block = {"condition": ["clean"], "method": ["erm", "reweight"], "encoder": ["gru"]}
    values["cells"] = {"seeds": [0], "grid": [block]}
    values["report"]["controls"] = {}
    params.write_text(yaml.safe_dump(values))


def to_report(params):
    """Every stage of its dvc.yaml, made small, in this process."""
    small(params)
    return run_all(params)


@pytest.mark.slow("whole pipelines")
@pytest.mark.parametrize(
    ("make", "texts", "classes"),
    [
        (one_csv, ["text"], ["neg", "pos"]),
        (one_tsv, ["sentence"], ["stars_1", "stars_2", "stars_3"]),
        (one_jsonl, ["body"], ["not_spam", "spam"]),
        (one_parquet, ["review"], None),
        (two_texts, ["die_frage_1", "text"], ["ja", "nein"]),
    ],
    ids=["csv", "tsv", "jsonl", "parquet", "two"],
)
def test_a_foreign_file_goes_to_a_report(project, make, texts, classes):
    said = new.write("mine", make())
    params = project / "pipelines/mine/params.yaml"
    assert "guess" in params.read_text() and "gradworks run pipelines/mine/params.yaml" in said
    values = yaml.safe_load(params.read_text())
    task = values["tasks"]["mine"]
    assert task["texts"] == texts and task.get("classes") == classes
    assert values["measure"] and values["cells"]["seeds"] == [0, 1]
    results = to_report(Path("pipelines/mine/params.yaml"))
    assert {cell["state"] for cell in results["cells"]} <= {"ok", "not converged"} and len(results["cells"]) == 2
    assert not any(cell["outdated"] for cell in results["cells"])  # all are of these parameters
    assert (project / "pipelines/mine/report/report.html").exists()
    counts = artifacts.read_json(Path("pipelines/mine/runs/corrupt/clean/0/manifest.json"))["splits"]
    assert {name: one["rows"] for name, one in counts.items()} == {
        "train": 72,
        "clean": 12,
        "selection": 12,
        "test": 24,
    }
    if classes:
        assert set(counts["train"]["labels"]) == set(classes)


def test_labels_are_read_as_they_were_counted(project):
    """The oracle: the file itself, line by line."""
    new.write("mine", one_tsv())
    run("fetch", "--params", "pipelines/mine/params.yaml", "--source", "mine", "--out", "out")
    table = pq.read_table("out/all.parquet")
    expected = [(t, f"stars_{y + 1}") for t, y in sentences(classes=3)]
    assert list(zip(table["sentence"].to_pylist(), table["label"].to_pylist(), strict=True)) == expected


def values_of(name="mine"):
    return yaml.safe_load(Path(f"pipelines/{name}/params.yaml").read_text())


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["yes", "no"], {"yes": "label_yes", "no": "label_no"}),
        ([1.0, 0.0], {"0": "label_0", "1": "label_1"}),
        ([-1, 1], {"-1": "label_minus_1", "1": "label_1"}),
        (["Good", "bad", "good"], {"Good": "Good", "bad": "bad", "good": "Good"}),
        (["sehr schön", "übel"], {"sehr schön": "sehr_schon", "übel": "ubel"}),
        (["喜", "怒"], {"喜": "label_1", "怒": "label_2"}),
    ],
)
def test_every_value_becomes_the_class_it_is(project, found, expected):
    rows = [{"text": t, "label": found[i % len(found)]} for i, (t, _) in enumerate(sentences(60))]
    Path("data/x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    new.write("mine", Path("data/x.jsonl"))
    run("fetch", "--params", "pipelines/mine/params.yaml", "--source", "mine", "--out", "out")
    labels = pq.read_table("out/all.parquet")["label"].to_pylist()
    one = {look.labels.form(key): label for key, label in expected.items()}
    assert set(values_of()["tasks"]["mine"]["classes"]) >= set(labels)
    if len(one) == len(found):
        assert labels == [one[look.labels.form(row["label"])] for row in rows]


def test_a_folder_of_splits(project):
    Path("data/f").mkdir()
    for name, rows in (("train", sentences(200)), ("dev", sentences(60)), ("test", sentences(60))):
        rows = [(f"{name} {t}", y) for t, y in rows]
        delimited(Path(f"data/f/{name}.csv"), ("text", "label"), [(t, "ab"[y]) for t, y in rows])
    Path("data/f/notes.csv").write_text("a,b\n1,2\n")
    said = new.write("mine", Path("data/f"))
    splits = values_of()["corrupt"]["splits"]
    assert {n: splits[n]["from"] for n in ("train", "selection", "test")} == {
        "train": "mine/train", "selection": "mine/dev", "test": "mine/test",
    }  # fmt: skip
    assert "notes.csv" in said
    delimited(Path("data/f/test.csv"), ("text",), [(t,) for t, _ in sentences(60)])  # as benchmarks publish it
    new.write("other", Path("data/f"))
    assert values_of("other")["corrupt"]["splits"]["test"]["from"] == "other/dev"


def test_a_file_whose_first_line_is_a_row(project):
    new.write("mine", delimited(Path("data/bare.csv"), None, [(y, f"{t}, and so on it goes") for t, y in sentences()]))
    source = values_of()["fetch"]["mine"]
    assert source["header"] == ["column_1", "column_2"] and source["columns"]["label"] == "column_1"
    run("fetch", "--params", "pipelines/mine/params.yaml", "--source", "mine", "--out", "out")
    assert pq.read_table("out/all.parquet").num_rows == 120


def of(header, row, n=60, suffix="csv"):
    return lambda: delimited(Path(f"data/x.{suffix}"), header, [row(i, *one) for i, one in enumerate(sentences(n))])


def raw(name, content):
    def make():
        path = Path(f"data/{name}")
        path.write_bytes(content)
        return path

    return make


def duplicated():
    table = pa.table([pa.array(["a b c", "d e f"] * 30), pa.array(["x", "y"] * 30), pa.array(["x", "y"] * 30)],
                     names=["text", "label", "label"])  # fmt: skip
    pq.write_table(table, "data/x.parquet")
    return Path("data/x.parquet")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (of(("text", "note"), lambda i, t, y: (t, f"{t} and more {i}")), "no column looks like a label"),
        (of(("text", "label"), lambda i, t, y: (t, "same")), "one class, 'same' in 60 rows"),
        (of(("text", "source"), lambda i, t, y: (t, "web")), "'source' has one value, 'web'"),
        (of(("text", "label"), lambda i, t, y: (t, f"k{i} {t}")), "found 60 values in 60 rows"),
        (of(("doc_id", "label"), lambda i, t, y: (f"d-{i}", "ab"[y])), "no column looks like a text; 'doc_id' has ids"),
        (of(("text", "label", "label"), lambda i, t, y: (t, y, y)), "duplicate column 'label'"),
        (duplicated, "Multiple matches for FieldRef.Name(label)"),
        (of(("text", "label"), lambda i, t, y: (t, y), n=4), "found 4 rows"),
        (raw("x.csv", b""), "empty"),
        (raw("x.csv", b"text,label\n"), "no rows"),
        (raw("x.csv", b"text;label\ngut;1\nschlecht;0\n"), "found 2 rows"),
        (raw("x.xlsx", b"PK"), "found .xlsx"),
        (raw("x.parquet", b"PK"), "not a readable Parquet file"),
        (raw("x.csv", "text,label\na,b\n".encode("utf-16")), "UTF-16"),
        (raw("x.csv", b"text,label\n" + b"caf\xe9 ol,1\n" * 30), "not UTF-8"),
        (lambda: Path("data/nothing.csv"), "no file or folder 'data/nothing.csv'"),
        (lambda: Path("data"), "no data file"),
    ],
)  # fmt: skip
def test_what_is_no_data_is_refused_in_words(project, make, said):
    with pytest.raises(InputError) as error:
        new.write("mine", make())
    assert said in str(error.value) and len(str(error.value).splitlines()) <= 3
    assert not (project / "pipelines/mine").exists()


PROSE = {name: lambda i, name=name: f"{name} number {i} of many" for name in ("title", "body", "comment", "notes")}
PLACE = {"place": lambda i: ("the far north", "the deep south")[i // 3 % 2]}  # a category in words


@pytest.mark.parametrize(
    ("columns", "texts", "more"),
    [
        (("title", "body", "comment"), ["title", "body"], ["comment"]),
        (("comment", "notes", "body"), ["comment", "body"], ["notes"]),
        (("body", "notes"), ["body"], ["notes"]),
        (("notes", "place", "body"), ["body"], ["notes"]),
        (("place", "notes"), ["notes"], []),
    ],
    ids="-".join,
)
def test_texts_that_are_not_taken_are_named(project, columns, texts, more):
    rows = [(*((PROSE | PLACE)[name](i) for name in columns), "ab"[y]) for i, (_, y) in enumerate(sentences())]
    said = new.write("mine", delimited(Path("data/x.csv"), (*columns, "label"), rows))
    assert values_of()["tasks"]["mine"]["texts"] == texts
    assert [n for n in columns if f"could be a text, too (--text): {n!r}" in said] == more
    assert [
        n for n in columns if f"# could be a text, too: {n}; " in (Path("pipelines/mine/params.yaml").read_text())
    ] == more


def test_a_second_text_that_most_rows_lack_is_not_taken(project):
    rows = [(f"title of {i} here", t if i % 8 else "", "ab"[y]) for i, (t, y) in enumerate(sentences())]
    new.write("mine", delimited(Path("data/x.csv"), ("title", "notes", "label"), rows))
    assert values_of()["tasks"]["mine"]["texts"] == ["title"]


def test_no_name_of_a_column_breaks_the_file(project):
    header = ("No", "the\nlabel: x", 'a "quoted" # name\n- b', "label")
    rows = [(t, y, f"other {i} words", "ab"[y]) for i, (t, y) in enumerate(sentences())]
    new.write("mine", delimited(Path("data/odd.csv"), header, rows))
    columns = values_of()["fetch"]["mine"]["columns"]
    assert columns == {"no_text": "No", "a_quoted_name_b": 'a "quoted" # name\n- b', "label": "label"}


def test_rows_without_a_text_are_left_out_and_said(project):
    rows = [(t if i % 10 else " ", "ab"[i % 3 == 0]) for i, (t, _) in enumerate(sentences())]
    new.write("mine", delimited(Path("data/holes.csv"), ("text", "label"), rows))
    assert values_of()["fetch"]["mine"]["bad_rows"] == 0.1
    run("fetch", "--params", "pipelines/mine/params.yaml", "--source", "mine", "--out", "out")
    assert pq.read_table("out/all.parquet")["text"].to_pylist() == [t for t, _ in rows if t.strip()]
    with pytest.raises(InputError, match="120 rows have no text in other"):
        rows = [(t, "", y) for t, y in rows]
        new.write("more", delimited(Path("data/none.csv"), ("text", "other", "label"), rows), texts=["other"])


def test_a_choice_is_taken_and_nothing_is_overwritten(project):
    rows = of(("text", "other", "label"), lambda i, t, y: (t, f"the {i} other text here", "ab"[y]))()
    new.write("mine", rows, label="label", texts=["other", "text"])
    assert values_of()["tasks"]["mine"]["texts"] == ["other", "text"]
    before = Path("pipelines/mine/params.yaml").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        new.write("mine", rows)
    assert Path("pipelines/mine/params.yaml").read_bytes() == before
    for given, said in (({"label": "labl"}, "--label: found 'labl'"), ({"texts": ["txt"]}, "--text: found 'txt'")):
        with pytest.raises(InputError, match=said):
            new.write("other", rows, **given)
    with pytest.raises(InputError, match="found the name 'my data'"):
        new.write("my data", rows)


def test_semicolons_between_fields(project):
    """As spreadsheets write in countries with a decimal comma; commas in quoted fields are text."""
    rows = [(f"r{i}", ["schlecht", "gut"][y], f"{t}, und so fort") for i, (t, y) in enumerate(sentences())]
    new.write("mine", delimited(Path("data/x.csv"), ("Nr", "Klasse", "Überschrift"), rows, ";"))
    run("fetch", "--params", "pipelines/mine/params.yaml", "--source", "mine", "--out", "out")
    table = pq.read_table("out/all.parquet")
    found = list(zip(table["uberschrift"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert found == [(text, label) for _, label, text in rows]


def test_numbers_are_learned_in_units_of_their_spread(project):
    """The oracle: mean and deviation by hand. A constant's loss is near 1; answers have the label's unit."""
    rows = [(t, y * 80.0 + i % 20 + 0.5) for i, (t, y) in enumerate(sentences())]
    new.write("mine", delimited(Path("data/x.csv"), ("text", "score"), rows))
    mean = sum(y for _, y in rows) / len(rows)
    spread = (sum((y - mean) ** 2 for _, y in rows) / len(rows)) ** 0.5
    values = values_of()
    own = values["tasks"]["mine"]
    assert own["center"] == pytest.approx(mean, rel=0.01) and own["spread"] == pytest.approx(spread, rel=0.01)
    kind = tasks.kind(tasks.find("mine", values))
    batch = SimpleNamespace(labels=torch.tensor([y for _, y in rows]))
    constant = (torch.zeros(len(rows), 1),)
    assert kind.loss(constant, batch).mean().item() == pytest.approx(1, rel=0.02)
    assert kind.answers((torch.tensor([[0.5]]),)).tolist() == [pytest.approx(mean + spread / 2, rel=0.01)]
