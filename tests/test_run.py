"""What `gradworks run` shows: a line a cell when piped, a table drawn over itself on a terminal."""

import copy
import graphlib
import io
from pathlib import Path

import pytest
import yaml

from gradworks import base, run
from gradworks.base import cells
from gradworks.base.errors import InputError
from gradworks.dvc_compat import resolved
from tests.small import SMALL

ROOT = Path(__file__).parent.parent
PIPELINES = sorted(str(one.relative_to(ROOT)) for one in ROOT.glob("pipelines/*/params.yaml"))


@pytest.mark.parametrize("live", [True, False])
def test_screen(monkeypatch, live):
    out = io.StringIO()
    out.isatty = lambda: live
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: (20, 10))
    screen = run._Screen()
    screen.show("a\nb", "1 of 2 cells", ["cell one"])
    screen.show("a\nb\nc", "2 of 2 cells", ["cell two"])
    screen.clear()
    text = out.getvalue()
    if not live:
        assert text == "cell one\ncell two\n"
        return
    first, second, third = text.split("\x1b[J")[:3]
    assert "1 of 2 cells" in first
    assert second.startswith("\x1b[4A")  # back over two rows, an empty line and the status
    assert third == "\x1b[5A"
    assert "\r" not in text
    assert max(len(line.replace("\x1b[2K", "")) for line in text.split("\n")) <= 20


def test_a_long_table_keeps_its_end(monkeypatch):
    out = io.StringIO()
    out.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: (80, 5))
    run._Screen().show("\n".join(f"row {i}" for i in range(50)), "status", [])
    assert out.getvalue().count("\n") == 4  # what would scroll away could not be drawn over
    assert "status" in out.getvalue()


def test_results_are_shown_before_a_push_that_fails(monkeypatch, tmp_path, capsys):
    class Watch:
        screen = run._Screen()

        def __init__(self, params):
            pass

        def collect(self):
            return {}

    def refuse(targets):
        raise InputError(f"storage: dvc push of {targets} failed")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run.parameters, "check", lambda params, data: None)
    monkeypatch.setattr(run, "_expect_git", lambda params: None)
    monkeypatch.setattr(run.cells, "write", lambda params: None)
    monkeypatch.setattr(run, "_Watch", Watch)
    monkeypatch.setattr(run, "_repro", lambda *args: None)
    monkeypatch.setattr(run.report, "table", lambda results: "the table")
    monkeypatch.setattr(run.report, "answer", lambda results: "the answer")
    monkeypatch.setattr(run.storage, "push", refuse)
    with pytest.raises(InputError, match=r"push of \['pipelines/mine/dvc.yaml'\]"):
        run.run(run.Path("pipelines/mine/params.yaml"), 1)
    assert capsys.readouterr().out.startswith("the table\n\nthe answer")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no .dvc in it"),
        ({".dvc/config": "[core]\n    analytics = false\n"}, "no git repository, as in a zip download"),
        ({".dvc/config": "", ".git/HEAD": ""}, None),
        ({".dvc/config": "", ".dvc/config.local": "[core]\n    no_scm = true\n"}, None),
    ],
)
def test_a_download_without_git_is_said(tmp_path, files, said):
    (tmp_path / "params.yaml").write_text("a: 1\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    if said is None:
        run._expect_git(tmp_path / "params.yaml")
        return
    with pytest.raises(InputError, match=said):
        run._expect_git(tmp_path / "params.yaml")


def long(values):
    """With a method that trains as long as another, and one that starts from it: costs before cells before costs."""
    values["methods"] |= {"long": {"as_long_as": "dotprod"}, "head": {"from": "long", "trainable": "head"}}
    values["cells"]["grid"][0]["method"] = ["head", "long", "erm", "dotprod"]


def optional(values):
    """With the stages that only some benchmarks have."""
    values["label"] = {"weak": {"file": "labelling.py", "from": "synthetic/train"}}
    values["slice"] = {"file": "slices.py", "use": ["who"]}
    values["mixtures"] = {"plain": {"parts": ["nli"]}, "sliced": {"parts": ["nli"], "slices": ["who"]}}
    values["cells"]["grid"][0]["mixture"] = ["plain", "sliced"]


@pytest.mark.parametrize("given", ["params.yaml", *PIPELINES, long, optional])
def test_every_stage_runs_after_what_it_reads(tmp_path, given):
    """By DVC's own dependencies and outputs."""
    values = copy.deepcopy(SMALL) if callable(given) else base.fresh_yaml(ROOT / given)
    here = "" if callable(given) else str(Path(given).parent / "_")[:-1]
    if callable(given):
        given(values)
    folder = tmp_path / here
    folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / ".dvc").mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    cells.write(folder / "params.yaml")
    stages = resolved(folder / "dvc.yaml", tmp_path)
    units = run._units(base.fresh_yaml(folder / "cells.yaml")["each"], "dvc.yaml")
    of = {address.partition(":")[2]: unit.name for unit in units for address in unit.args[1:]}
    assert len(of) == sum(len(unit.args) - 1 for unit in units)
    assert set(stages) - of.keys() == {name for name in stages if name.partition("@")[0] in ("ensemble", "report")}
    outs = {
        out if isinstance(out, str) else next(iter(out)): name for name, one in stages.items() for out in one["outs"]
    }
    needs = {unit.name: unit.needs & {one.name for one in units} for unit in units}
    order = list(graphlib.TopologicalSorter(needs).static_order())  # no circle
    assert len(order) == len(units)
    for name, one in stages.items():
        made = {
            maker
            for dep in one.get("deps", ())
            for out, maker in outs.items()
            if f"{out}/".startswith(f"{dep}/") or f"{dep}/".startswith(f"{out}/")
        }
        for maker in made - {name} if name in of else ():
            above, todo = set(), [of[name]]
            while todo:
                above.add(unit := todo.pop())
                todo += needs[unit]
            assert of[maker] in above, f"{name} reads what {maker} writes"


def test_the_first_cell_waits_for_nothing_else():
    units = run._units(base.fresh_yaml(ROOT / "cells.yaml")["each"], "dvc.yaml")
    assert [one.name for one in units[:5]] == [
        "cells", "fetch@synthetic", "pretrain@gru", "corrupt@noise-0", "train@noise-erm-gru-0"
    ]  # fmt: skip
