"""What is refused before anything is submitted: inputs that a pod would not get, outputs that it would lose."""

from __future__ import annotations

import pytest

from gradworks.base.errors import InputError
from gradworks.cluster import compile, profile
from tests.cluster.small_checkout import PIPELINE, checkout, grown


@pytest.mark.parametrize("section", ["metrics", "plots", "outs"])
def test_an_output_that_would_stay_in_the_pod_is_refused(section, tmp_path):
    asked = {"stages": {"s": {"cmd": "c", section: [{"m.json": {"cache": False}}]}}}
    said = (
        r"dvc.yaml: stage s: m.json: found cache: false\n.*\n"
        r"remove `cache: false` there, then: git rm -q --cached --ignore-unmatch m.json && dvc commit -f .*dvc.yaml:s$"
    )
    with pytest.raises(InputError, match=said):
        compile.text(checkout(tmp_path, asked))


def test_an_output_that_is_not_pushed_is_refused(tmp_path):
    asked = {"stages": {"s": {"cmd": "c", "outs": [{"o": {"push": False}}]}}}
    with pytest.raises(InputError, match=r"o: found push: false\n.*\nremove `push: false` there, then: dvc commit"):
        compile.text(checkout(tmp_path, asked))


@pytest.mark.parametrize(
    ("dep", "mend"),
    [
        ("new.csv", r"dvc add new.csv && git add new.csv.dvc \(data\), or git add new.csv \(code\)"),
        ("ignored.csv", r"fix: dvc add ignored.csv && git add ignored.csv.dvc$"),
        (
            "hidden/d.csv",
            r"git ignores hidden/d.csv.dvc, so: cp -RL hidden/d.csv d.csv && dvc add d.csv, and name d.csv",
        ),
        ("../out.csv", r"expected a path in the checkout: cp -RL ../out.csv . && dvc add out.csv"),
    ],
)
def test_an_input_that_a_pod_would_not_get_is_refused(dep, mend, tmp_path):
    asked = {"stages": {"s": {"cmd": "c", "deps": ["data/raw", "images", dep], "outs": ["o"]}}}
    (tmp_path / "here").mkdir()
    pipeline = checkout(tmp_path / "here", asked)
    (tmp_path / "here" / ".gitignore").write_text("/data\nignored.csv\n/hidden\n")
    with pytest.raises(InputError, match=rf"stage s: {dep}: no stage makes it and neither .*\n.*\n.*{mend}"):
        compile.text(pipeline)
    (tmp_path / "here" / "params.yaml").unlink()


def test_parameters_from_a_file_that_git_does_not_have_are_refused(tmp_path):
    asked = {"stages": {"s": {"cmd": "c", "params": [{"mine.yaml": ["a"]}], "outs": ["o"]}}}
    with pytest.raises(InputError, match=r"stage s: mine.yaml: no stage makes it"):
        compile.text(checkout(tmp_path, asked))


def test_a_folder_without_git_is_refused(tmp_path, monkeypatch):
    pipeline = checkout(tmp_path, PIPELINE)
    (tmp_path / ".git").rename(tmp_path / "git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(InputError, match=r"not a git repository.*\nexpected a git checkout"):
        compile.text(pipeline)


def test_a_gpu_that_the_cluster_does_not_have_is_refused(tmp_path):
    cluster = profile.Profile.model_validate(
        {"images": {"cpu": "c", "gpu": "g"}, "gpus": {"t4": {"resource": "a.b/c"}}}
    )
    said = r"dvc.yaml: stage train@small: meta.resources.gpu.kind: found 'a100'\n.*profile has: t4\nadd it there"
    with pytest.raises(InputError, match=said):
        compile.text(checkout(tmp_path, PIPELINE), cluster)


def test_an_image_is_demanded_where_a_stage_needs_it_and_nowhere_else(tmp_path):
    only = {kind: profile.Profile.model_validate({"images": {kind: "r.example/x"}}) for kind in ("cpu", "gpu")}
    on_cpu = {"stages": {"s": {"cmd": "c", "deps": ["code.py"], "outs": ["o"]}}}
    pipeline = checkout(tmp_path / "cpu", on_cpu)
    assert "r.example/x:" in compile.text(pipeline, only["cpu"])
    with pytest.raises(InputError, match=r"stage s: it runs in the cpu image, .* has no cpu\nadd it there"):
        compile.text(pipeline, only["gpu"])
    on_gpu = {"stages": {"s": on_cpu["stages"]["s"] | {"meta": {"image": "gpu"}}}}
    pipeline = checkout(tmp_path / "gpu", on_gpu)
    assert "r.example/x:" in compile.text(pipeline, only["gpu"])
    for made in (compile.text, lambda *args: compile.write_components(args[0], tmp_path / "parts", args[1])):
        with pytest.raises(InputError, match=r"has no gpu\nadd it there: where `make images KIND=gpu"):
            made(pipeline, only["cpu"])


def test_a_pipeline_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(compile, "SIZE", 20_000)
    with pytest.raises(
        InputError, match=r"dvc.yaml: 32 stages make a pipeline of \d+ bytes in 32 tasks\nexpected at most"
    ):
        compile.text(checkout(tmp_path, grown(15)))
