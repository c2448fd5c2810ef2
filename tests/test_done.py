"""Which results are of other parameters or code, by dvc.lock alone."""

import hashlib
from pathlib import Path

import pytest
import yaml

from gradworks import done
from tests.small import SMALL

ROOT = Path(__file__).parent.parent


def md5(text):
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
def project(tmp_path):
    """A dvc.lock as DVC writes it, of two cells that share all but the method."""
    values = {name: value for name, value in SMALL.items() if name not in ("root", "here")}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "code.py").write_text("a = 1\n")
    common = {"condition": "noise", "encoder": "gru", "seed": 0, "start": "pretrain/gru"}
    train = {f"noise-{m}-gru-0": {**common, "method": m, "path": f"noise/{m}/gru/0"} for m in ("erm", "dotprod")}
    each = {"fetch": {"synthetic": {}}, "corrupt": {"noise-0": {}}, "pretrain": {"gru": {}}, "train": train}
    (tmp_path / "cells.yaml").write_text(yaml.safe_dump({"root": ".", "here": "", "each": each}))
    stages = {
        "fetch": ("each.fetch", [], ["fetch.${key}"], "runs/fetch/${key}"),
        "corrupt": ("each.corrupt", ["runs/fetch/synthetic"], ["corrupt.splits"], "runs/corrupt/${key}"),
        "pretrain": ("each.pretrain", ["runs/fetch/synthetic"], ["pretrain.${key}"], "runs/pretrain/${key}"),
        "train": (
            "each.train",
            ["code.py", "runs/corrupt/noise-0", "runs/pretrain/gru"],
            ["train", "methods.${item.method}"],
            "runs/train/${key}",
        ),
        "evaluate": ("each.train", ["runs/train/${key}"], ["evaluate"], "runs/metrics/${key}.json"),
    }
    made, lock = {}, {}
    for name, (many, deps, keys, out) in stages.items():
        body = {"cmd": "x", "deps": deps, "params": [{"params.yaml": keys}], "outs": [out]}
        made[name] = {"foreach": "${" + many + "}", "do": body}
        for key in each[many.removeprefix("each.")]:
            method = key.split("-")[1] if name in ("train", "evaluate") else ""

            def filled(text, key=key, method=method):
                return text.replace("${key}", key).replace("${item.method}", method)

            recorded = {}
            for one in map(filled, keys):
                recorded[one] = values
                for part in one.split("."):
                    recorded[one] = recorded[one][part]
            lock[f"{name}@{key}"] = {
                "cmd": "x",
                "deps": [
                    {"path": filled(one), "md5": md5("a = 1\n" if one == "code.py" else filled(one))} for one in deps
                ],
                "params": {"params.yaml": recorded},
                "outs": [{"path": filled(out), "md5": md5(filled(out))}],
            }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": made}))
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": lock}))
    return tmp_path


BOTH = {"noise/erm/gru/0", "noise/dotprod/gru/0"}


def lock_of(project, change):
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    change(lock["stages"])
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))


def params_of(project, old, new):
    text = (project / "params.yaml").read_text()
    assert old in text
    (project / "params.yaml").write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: None, set()),
        (lambda p: params_of(p, "epochs: 4", "epochs: 5"), BOTH),
        (lambda p: params_of(p, "weight: 0.1", "weight: 0.2"), {"noise/dotprod/gru/0"}),
        (lambda p: params_of(p, "vocabulary: 400", "vocabulary: 401"), BOTH),  # of a stage above
        (lambda p: params_of(p, "title: Small", "title: Other"), set()),
        (lambda p: (p / "code.py").write_text("a = 2\n"), BOTH),
        (lambda p: (p / "dvc.lock").unlink(), set()),
        (lambda p: (p / "dvc.lock").write_text("stages: {"), set()),  # DVC is writing it
        (lambda p: lock_of(p, lambda s: s.pop("evaluate@noise-erm-gru-0")), set()),
        (
            lambda p: lock_of(p, lambda s: s["train@noise-erm-gru-0"]["outs"][0].update(md5=md5("another model"))),
            {"noise/erm/gru/0"},  # trained anew, the result is of the model before
        ),
        (lambda p: lock_of(p, lambda s: s["train@noise-erm-gru-0"]["deps"].pop()), {"noise/erm/gru/0"}),
    ],
)
def test_what_is_outdated(project, change, expected):
    change(project)
    assert done.outdated(project / "params.yaml") == expected


def test_the_committed_benchmark_has_no_result_of_other_parameters(tmp_path):
    """With its own params.yaml; its code may have changed since."""
    import shutil

    for name in ("params.yaml", "cells.yaml", "dvc.yaml", "dvc.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert done.outdated(tmp_path / "params.yaml") == set()
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("epochs: 3 ", "epochs: 4 "))
    cells = yaml.safe_load((tmp_path / "cells.yaml").read_text())["each"]["train"]
    assert done.outdated(tmp_path / "params.yaml") == {cell["path"] for cell in cells.values()}
