"""What `gradworks run` shows: a line a cell when piped, a table drawn over itself on a terminal."""

import io

import pytest

from gradworks import run
from gradworks.base.errors import InputError


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


@pytest.mark.parametrize("n", [0, 1, 2, 7, 38])
def test_parts_hold_each_stage_once_and_shrink(n):
    parts = run._parts([[f"train@{i}", f"evaluate@{i}"] for i in range(n)], 2)
    assert [stage for part in parts for stage in part] == [f"{s}@{i}" for i in range(n) for s in ("train", "evaluate")]
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-3:] == [2] * min(n, 3)  # the last ones are one cell each
    assert len(parts) <= max(n, 2) / 2 + 4


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


DVC_SAYS = "ERROR: failed to reproduce 'train@a': failed to run: python -m components.train, exited with {}"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            ["Running stage 'train@a':", "> python", "error: p: a: found -1", "expected more", DVC_SAYS.format(2)],
            ["p: a: found -1", "expected more", "stage train@a: all that"],
        ),
        (
            ["Running stage 'pipelines/x/dvc.yaml:fetch@s':", "error: d.csv: line 3: bad", "", DVC_SAYS.format(2)],
            ["d.csv: line 3: bad", "stage fetch@s: all that"],
        ),
        (
            ["Running stage 'a':", "error: of a stage that was tried again", "Running stage 'b':", DVC_SAYS.format(-9)],
            ["it was killed: out of memory, as a rule", "stage b: all that"],
        ),
        (
            ["Running stage 'a':", "Traceback (most recent call last):", " F", "KeyError: 'x'", "", DVC_SAYS.format(1)],
            ["an error of the program, not of its parameters: KeyError: 'x'", "stage a: all that"],
        ),
        (["ERROR: 'data/mnli' does not exist", ""], ["'data/mnli' does not exist", "all that it printed"]),
        ([], ["dvc repro ended without a word", "all that it printed"]),
    ],
)  # fmt: skip
def test_what_a_failed_run_ends_with(said, expected):
    found = run.reason(said)
    assert len(found) == len(expected) <= 3
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True)), found
    assert found[-1].endswith(".gradworks/run.log; the same command goes on from here")


def test_a_long_word_of_dvc_is_cut(capsys):
    assert max(map(len, run.reason(["ERROR: " + "x" * 900]))) <= 400


def test_what_dvc_prints_goes_to_the_log_and_its_end_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "log").open("w") as log:
        dvc = run._Dvc(["no-such-stage"], log)
        dvc.process.wait()
        assert dvc.finish() != 0
    assert (tmp_path / "log").read_text().splitlines() == list(dvc.said) != []


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
