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
