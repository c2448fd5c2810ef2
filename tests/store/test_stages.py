"""The stages of one dvc.yaml: what DVC itself makes of it, without reading any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradworks.base.errors import InputError
from gradworks.pod import environment
from gradworks.store import stages

ROOT = Path(__file__).parents[2]
MATRIX = """
vars: [{sizes: [1, 2]}]
stages:
  report:
    cmd: [echo a, echo b]
    deps: [out/train, plain.txt]
    outs: [page/page.html, page/text.md, {page/data: {push: false}}]
    plots: [page/plot.json]
  train:
    matrix: {size: "${sizes}", kind: [no, 1e-3]}
    wdir: out
    cmd: python train.py ${item.size} ${item.kind}
    deps: [made/part/one.csv]
    params: [alpha, ../other.yaml: [beta]]
    outs:
      - train/${item.size}/${item.kind}
      - models/${item.size}/${item.kind}: {type: model}
      - models/more${key}: {type: model}
    metrics:
      - m/${key}.json: {cache: false}
    meta: {image: gpu, retries: "${sizes[0]}"}
  make:
    cmd: make
    deps: ["s3://bucket/data"]
    outs: [out/made]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text(MATRIX)
    return tmp_path / "dvc.yaml"


def test_names_paths_and_types(project):
    found = stages.load(project)
    assert list(found) == ["make", "train@1-no", "train@1-0.001", "train@2-no", "train@2-0.001", "report"]
    one = found["train@2-0.001"]
    assert (one.group, one.wdir, one.cmd) == ("train", "out", "python train.py 2 0.001")
    assert one.deps == ("out/made/part/one.csv",) and one.params == ("out/params.yaml", "other.yaml")
    assert [(o.path, o.kind, o.name, o.cache) for o in one.outs] == [
        ("out/train/2/0.001", "Dataset", "dataset", True),
        ("out/models/2/0.001", "Model", "model", True),
        ("out/models/more2-0.001", "Model", "model_2", True),
        ("out/m/2-0.001.json", "Metrics", "metrics", False),
    ]
    assert (one.meta.kind, one.meta.retries) == ("gpu", 1)
    assert found["report"].cmd == "echo a\necho b"
    assert [(o.kind, o.name, o.push) for o in found["report"].outs] == [
        ("HTML", "html", True), ("Markdown", "markdown", True), ("Dataset", "dataset", False),
        ("Dataset", "dataset_2", True),
    ]  # fmt: skip


def test_an_input_is_made_by_what_writes_it_or_a_part_of_it_or_the_folder_it_is_in(project):
    found = stages.load(project)
    assert found["make"].ups == () and found["make"].deps == ("s3://bucket/data",)
    assert found["train@1-no"].ups == ("make",)  # a file in a folder
    assert found["report"].ups == ("train@1-no", "train@1-0.001", "train@2-no", "train@2-0.001")  # folders in a folder


def test_the_default_benchmark_is_what_dvc_itself_finds():
    from dvc.dvcfile import load_file
    from dvc.repo import Repo
    from dvc.repo.index import Index

    found = stages.load(ROOT / "dvc.yaml")
    with Repo(str(ROOT)) as repo:  # of this file alone, as the index of all takes its time
        index = Index(repo, stages=list(load_file(repo, str(ROOT / "dvc.yaml")).stages.values()))
        truth = {stage.name: stage for stage in index.stages}
        above = {stage.name: {one.name for one in index.graph.successors(stage)} for stage in index.stages}
    assert set(found) == set(truth)
    seen: set[str] = set()
    for name, stage in found.items():
        assert set(stage.ups) == above[name] and seen.issuperset(stage.ups), name
        assert stage.cmd == truth[name].cmd
        assert {*stage.deps, *stage.params} == {d.def_path for d in truth[name].deps}
        assert [out.path for out in stage.outs] == [out.def_path for out in truth[name].outs]
        seen.add(name)


def test_a_pipeline_is_read_from_its_own_folder(monkeypatch):
    monkeypatch.chdir(ROOT / "pipelines")
    found = stages.load(Path("sst5/dvc.yaml"))
    cells = found["cells"]
    assert cells.wdir == "." and cells.outs[0].path == "pipelines/sst5/runs/cells.json"
    assert {"components/cells.py", "pipelines/sst5/params.yaml"} <= {*cells.deps} and cells.params == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("${item.size}", "${item.none}", r"dvc.yaml: failed to parse 'stages.train@1-no.cmd': .*item.none"),
        ("cmd: make", "comd: make", r"dvc.yaml: stages.make.(comd: extra keys not allowed|cmd: required key)"),
        ("[out/made]", "[../made]", r"stage make: outs: found ../made\nexpected a path in the checkout"),
        ('["s3://bucket/data"]', "[page]", r"stages depend on each other in a circle\n.*make <- "),
        ("image: gpu", "images: gpu", r"stage train@1-no: meta.images: unknown key\nexpected one of: image"),
        ("stages:", "stages: [", r"dvc.yaml"),
    ],
)
def test_a_wrong_file_is_refused_in_words(old, new, said, project):
    project.write_text(project.read_text().replace(old, new))
    with pytest.raises(InputError, match=said) as caught:
        stages.load(project)
    assert len(str(caught.value).splitlines()) <= 3


def test_no_file_and_no_project(project):
    with pytest.raises(InputError, match=r"other.yaml: no such file"):
        stages.load(project.with_name("other.yaml"))
    (project.parent / ".dvc").rmdir()
    with pytest.raises(InputError, match="lies in no DVC project"):
        stages.load(project)


def test_pods_need_neither_kubeflow_nor_an_index(project):
    program = (
        "import sys, pathlib; from gradworks.pod import environment\n"
        "from gradworks.store import stages\n"
        f"stages.load(pathlib.Path({str(project)!r}))\n"
        "print([m for m in ('kfp', 'kubernetes', 'boto3', 'dvc.repo', 'torch') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=True)
    assert done.stdout == "[]\n"


def test_the_tag_of_an_image_is_the_digest_that_git_gives(tmp_path):
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="images/Dockerfile: no such file"):
        environment.digest(tmp_path, "gpu")
    (tmp_path / "images/Dockerfile").write_text("FROM ü\n")
    shell = "(echo $0; cat constraints.txt images/Dockerfile) | git hash-object --stdin | cut -c 1-12"
    for kind in ("cpu", "gpu"):
        done = subprocess.run(["sh", "-c", shell, kind], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert environment.digest(tmp_path, kind) == done.stdout.strip()
    assert environment.digest(tmp_path, "cpu") != environment.digest(tmp_path, "gpu")
