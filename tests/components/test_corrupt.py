"""The stage corrupt: four splits, a list of changes, a manifest; and what it refuses."""

import json
from pathlib import Path

import pytest
import yaml

from components import corrupt, fetch
from gradworks import base
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.data import corruptions
from tests.kinds import kind

SPLITS = {
    "train": {"from": "synthetic/train"},
    "clean": {"from": "synthetic/validation", "size": 20, "where": {"set": "challenge"}},
    "selection": {"from": "synthetic/validation", "size": 30},
    "test": {"from": "synthetic/test"},
}
CONDITIONS = {
    "clean": {},
    "noise": {"noise": {"share": 0.5}},
    "imbalance": {"imbalance": {"ratios": {"neutral": 0.1}}},
    "leak": {"leak": {"count": 10}},
    "all": {"noise": {"share": 0.5}, "imbalance": {"ratios": {"neutral": 0.1}}, "leak": {"count": 10}},
}


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """runs/fetch with one synthetic source, as the stage before writes it."""
    folder = tmp_path_factory.mktemp("project")
    source = {"from": "synthetic:nli", "rows": {"train": 300, "validation": 120, "test": 60}}
    (folder / "params.yaml").write_text(yaml.safe_dump({"task": "nli", "fetch": {"synthetic": source}}))
    with pytest.MonkeyPatch.context() as patch:
        out = str(folder / "runs/fetch/synthetic")
        args = ["--params", str(folder / "params.yaml"), "--source", "synthetic", "--out", out]
        patch.setattr("sys.argv", ["fetch", *args])
        fetch.main()
    return folder / "runs/fetch"


@pytest.fixture
def run(tmp_path, monkeypatch, fetched):
    monkeypatch.chdir(tmp_path)

    def run(condition="clean", seed=0, task="nli", splits=SPLITS, conditions=CONDITIONS, data=fetched, **more):
        section = {"splits": splits, "conditions": conditions, **more}
        Path("params.yaml").write_text(yaml.safe_dump({"task": task, "corrupt": section}))
        out = Path("runs/corrupt") / condition / str(seed)
        args = ["--condition", condition, "--seed", str(seed), "--data", str(data), "--out", str(out)]
        monkeypatch.setattr("sys.argv", ["corrupt", *args])
        corrupt.main()
        return out

    return run


def read(out, name):
    return artifacts.read_parquet(out / f"{name}.parquet")


def ids(out, name):
    return read(out, name)["id"].to_pylist()


def test_what_is_written(run):
    out = run("noise")
    manifest = artifacts.check(out)
    names = ("clean", "corruptions", "selection", "test", "train")
    assert sorted(manifest["files"]) == [f"{name}.parquet" for name in names]
    assert {n: s["rows"] for n, s in manifest["splits"].items()} == {
        "train": 300,
        "clean": 20,
        "selection": 30,
        "test": 60,
    }
    assert manifest["seed"] == 0 and manifest["parameters"]["condition"] == {"noise": {"share": 0.5, "to": "any"}}
    done = manifest["corruptions"]["noise"]
    assert done["rows"] == 150 and done["share"] == 0.5 and 0.2 < done["changed_share"] < 0.45
    assert read(out, "corruptions").num_rows == 150
    assert set(read(out, "clean")["set"].to_pylist()) == {"challenge"}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_training_split_can_be_restored(run, fetched, condition):
    out = run(condition)
    source = artifacts.read_parquet(fetched / "synthetic/train.parquet")
    assert corruptions.restore(read(out, "train"), read(out, "corruptions"), source).equals(source)


def test_all_conditions_of_a_seed_are_paired(run):
    outs = {c: run(c) for c in CONDITIONS}
    for name in ("clean", "selection", "test"):
        assert len({tuple(ids(out, name)) for out in outs.values()}) == 1
    leaked = {c: set(ids(outs[c], "train")) & set(ids(outs[c], "test")) for c in CONDITIONS}
    assert leaked["leak"] == leaked["all"] and len(leaked["leak"]) == 10
    assert not leaked["clean"] and not leaked["noise"]
    other = run("clean", seed=1)
    assert ids(other, "test") == ids(outs["clean"], "test") and ids(other, "clean") != ids(outs["clean"], "clean")


def test_the_same_bytes_twice(run):
    first = json.loads((run("all") / "manifest.json").read_text())
    assert json.loads((run("all") / "manifest.json").read_text()) == first


def test_a_binary_task_folds_three_classes(run):
    out = run("noise", task="nli-binary")
    for name in ("train", "clean", "selection", "test"):
        assert set(read(out, name)["label"].to_pylist()) == set(kind("nli-binary").classes)


@pytest.mark.parametrize(
    "given, said",
    [
        ({"condition": "nois"}, "no key 'corrupt.conditions.nois'\nfound: all, clean, imbalance, leak, noise"),
        ({"conditions": {"clean": {"nosie": {}}}},
         "corrupt.conditions.clean.nosie: unknown key; did you mean noise?\nexpected one of"),
        ({"conditions": {"clean": {"noise": {"share": 1.5}}}}, "corrupt.conditions.clean.noise.share: found 1.5"),
        ({"conditions": {"clean": {"noise": {"share": 0.7, "to": "other"}}}}, "corrupt.conditions.clean.noise: "),
        ({"splits": {**SPLITS, "test": {"from": "synthetic/tst"}}},
         "corrupt.splits.test.from: found 'synthetic/tst'\nsynthetic has: test, train, validation"),
        ({"splits": {**SPLITS, "test": {"from": "hans/test"}}}, "corrupt.splits.test.from: no source 'hans' in"),
        ({"splits": {**SPLITS, "test": {"from": "test"}}}, "corrupt.splits.test.from: found 'test'"),
        ({"splits": {k: v for k, v in SPLITS.items() if k != "clean"}}, "corrupt.splits.clean: missing"),
        ({"data": Path("nowhere")}, "corrupt.splits.train.from: no source 'synthetic' in nowhere\nfound: none"),
    ],
)  # fmt: skip
def test_what_is_refused(run, capsys, given, said):
    with pytest.raises(SystemExit) as caught:
        base.run(lambda: run(**given))
    assert caught.value.code == 2 and not Path("runs").exists()
    message = capsys.readouterr().err
    assert message.startswith(f"error: params.yaml: {said}") and len(message.splitlines()) <= 3


def test_a_label_outside_the_tasks_set_names_file_and_row(run, fetched):
    with pytest.raises(InputError) as caught:
        run(task="rte")
    assert "synthetic/train.parquet: row synthetic/train-" in str(caught.value)
    assert "expected one of: entailment, not_entailment" in str(caught.value)


def test_a_column_that_the_task_needs(run):
    with pytest.raises(InputError, match=r"synthetic/train.parquet: no column 'sentence1'\nfound: id, premise"):
        run(task="stsb")


def test_damaged_data_stops_the_stage(run, fetched, tmp_path):
    import shutil

    shutil.copytree(fetched, tmp_path / "copy")
    with (tmp_path / "copy/synthetic/test.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=r"test.parquet: damaged"):
        run(data=tmp_path / "copy")


@pytest.mark.slow("whole data sets")
def test_real_data(run, data, tmp_path, monkeypatch):
    """MNLI with HANS as Chi et al. had it: binary labels, clean from one heuristic, test on another."""
    sources = {"mnli": {"from": f"file:{data}/mnli"}, "hans": {"from": f"file:{data}/hans"}}
    Path("params.yaml").write_text(yaml.safe_dump({"task": "nli-binary", "fetch": sources}))
    for name in sources:
        monkeypatch.setattr("sys.argv", ["fetch", "--source", name, "--out", f"runs/fetch/{name}"])
        fetch.main()
    splits = {
        "train": {"from": "mnli/train"},
        "clean": {"from": "hans/train", "where": {"heuristic": "subsequence"}, "size": 5000},
        "selection": {"from": "mnli/dev_matched"},
        "test": {"from": "hans/eval", "where": {"heuristic": "lexical_overlap"}},
    }
    out = run(
        "leak", task="nli-binary", splits=splits, conditions={"leak": {"leak": {"count": 100}}}, data=Path("runs/fetch")
    )
    manifest = artifacts.check(out)
    assert {n: s["rows"] for n, s in manifest["splits"].items()} == {
        "train": 10_100, "clean": 5_000, "selection": 3_000, "test": 5_000
    }  # fmt: skip
    kept = 3_239 + sum(one == "entailment" for one in read(out, "train")["label"].to_pylist()[-100:])
    assert manifest["splits"]["train"]["labels"] == {"entailment": kept, "not_entailment": 10_100 - kept}
    assert manifest["corruptions"]["collapse"]["rows"] == 3_367 + 3_394
    assert set(read(out, "clean")["heuristic"].to_pylist()) == {"subsequence"}


def same_texts(fetched, tmp_path, letters=str):
    """A copy of the source whose split `again` has the texts of train, under ids of its own."""
    import shutil

    import pyarrow as pa

    shutil.copytree(fetched, tmp_path / "copy", dirs_exist_ok=True)
    folder = tmp_path / "copy/synthetic"
    train = artifacts.read_parquet(folder / "train.parquet")
    again = train.set_column(0, "id", pa.array([f"again-{i}" for i in range(train.num_rows)]))
    for n, name in enumerate(("premise", "hypothesis"), 1):
        again = again.set_column(n, name, pa.array([letters(one) for one in train[name].to_pylist()]))
    artifacts.write_parquet(folder / "again.parquet", again)
    manifest = artifacts.read_json(folder / "manifest.json")
    manifest["files"]["again.parquet"] = {
        "sha256": artifacts.digest(folder / "again.parquet"), "bytes": (folder / "again.parquet").stat().st_size
    }  # fmt: skip
    manifest["splits"]["again"] = {"rows": train.num_rows, "label_values": {"0": "entailment"}}
    artifacts.write_json(folder / "manifest.json", manifest)
    return tmp_path / "copy"


@pytest.mark.parametrize("split", ["test", "selection"])
def test_a_test_or_selection_split_that_is_the_training_split_is_refused(run, fetched, tmp_path, split):
    data = same_texts(fetched, tmp_path, lambda text: f" {text.upper()}")
    splits = {**SPLITS, split: {"from": "synthetic/again"}}
    with pytest.raises(InputError, match=rf"corrupt.splits.{split}: train has the texts of all its 300 examples"):
        run(splits=splits, data=data)
    out = run(splits={**splits, "duplicates": "keep"}, data=data)
    manifest = artifacts.check(out)
    assert manifest["duplicates"][split]["train"] == {"same": 0, "alike": 300}
    assert manifest["label_values"] == {"synthetic/again": {"0": "entailment"}}


def test_duplicates_are_counted_said_and_left_out(run, fetched, tmp_path, capsys):
    data = same_texts(fetched, tmp_path)
    splits = {**SPLITS, "clean": {"from": "synthetic/again", "size": 25}}
    manifest = artifacts.check(run("leak", splits=splits, data=data))
    assert manifest["duplicates"]["clean"]["train"] == {"same": 25, "alike": 25}
    assert manifest["duplicates"]["test"]["train"]["alike"] < 10  # 10 are leaked on purpose
    assert "clean: 25 of 25 examples have the texts of one of train, 25 of them letter by l" in capsys.readouterr().err
    manifest = artifacts.check(run("leak", splits={**splits, "duplicates": "drop"}, data=data))
    assert all(count["alike"] == 0 for others in manifest["duplicates"].values() for count in others.values())
    assert manifest["splits"]["clean"]["rows"] == 25 and manifest["duplicates_dropped"]["train"] >= 25


def test_a_split_that_fetch_left_out_says_why(run, fetched, tmp_path):
    data = same_texts(fetched, tmp_path)
    manifest = artifacts.read_json(data / "synthetic/manifest.json")
    artifacts.write_json(
        data / "synthetic/manifest.json", {**manifest, "left_out": {"tst": "f.tsv: no column for label"}}
    )
    with pytest.raises(InputError, match=r"has: again, test, train, validation\ntst was left out: f.tsv: no column"):
        run(splits={**SPLITS, "test": {"from": "synthetic/tst"}}, data=data)


def test_a_seed_below_zero(run):
    with pytest.raises(InputError, match=r"--seed: found -1\nexpected 0 or more"):
        run(seed=-1)


PART = SPLITS | {"train": {"from": "synthetic/validation", "where": {"set": "in_distribution"}},
                 "test": {"from": "synthetic/train", "size": 20}}  # fmt: skip


def test_no_task_trains_on_what_another_is_evaluated_on(run, capsys):
    kept = run(parts={"nli-binary": PART}, between_tasks="keep")
    before = {name: ids(kept, name) for name in splits_of(kept)}
    assert "left out" not in capsys.readouterr().err
    made = run(parts={"nli-binary": PART})
    after = {name: ids(made, name) for name in splits_of(made)}
    tested = set(before["parts/nli-binary/test"])
    assert len(tested & set(before["train"])) == 20 and not tested & set(after["train"])
    selected = set(before["selection"]) & set(before["parts/nli-binary/train"])
    assert not (set(after["selection"]) | set(after["test"])) & set(after["parts/nli-binary/train"])
    assert all(after[name] == before[name] for name in before if "train" not in name)
    manifest = artifacts.check(made)
    assert manifest["of_other_tasks"]["train"]["dropped"] == len(before["train"]) - len(after["train"]) >= 20
    assert manifest["splits"]["train"]["rows"] == len(after["train"])
    counted = manifest["parts"]["nli-binary"].get("of_other_tasks", {"train": {"dropped": 0}})["train"]["dropped"]
    assert counted >= len(selected)
    assert "nli: 20 rows of train left out" in capsys.readouterr().err
    again = run("noise", parts={"nli-binary": PART})
    assert artifacts.read_parquet(again / "corruptions.parquet").num_rows > 0
    assert ids(again, "train") == after["train"]


def splits_of(folder):
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.parquet")
                  if p.stem != "corruptions")  # fmt: skip


RESPLIT = {
    "train": {"from": "synthetic/train"},
    "clean": {"from": "synthetic/validation", "size": 20},
    "selection": {"from": "synthetic/train", "share": 0.2},
    "test": {"from": "synthetic/test"},
}


def test_a_split_seed_draws_train_and_selection_apart_from_the_seed_of_the_run(run):
    conditions = {"own": {}, "one": {"split_seed": 1}, "two": {"split_seed": 2, "noise": {"share": 0.5}}}

    def made(condition, seed, **more):
        folder = run(condition, seed, splits=RESPLIT | more, conditions=conditions)
        return {name: ids(folder, name) for name in splits_of(folder)}

    one, two = made("one", 0), made("two", 0)
    assert one == made("one", 7) == made("own", 1)
    assert two["selection"] != one["selection"] and two["test"] == one["test"]
    assert sorted(one["train"] + one["selection"]) == sorted(two["train"] + two["selection"])
    assert made("own", 5, split_seed=1) == one == made("one", 5, split_seed=2)
    noisy = [read(run("two", s, splits=RESPLIT, conditions=conditions), "train")["label"]
             for s in (0, 1)]  # fmt: skip
    assert noisy[0] != noisy[1]  # noise is by the seed of the run
