"""The generated parts of a README: between markers, from results.json and the entries' docstrings."""

import hashlib

import pytest

from gradworks import report
from gradworks.base.errors import InputError
from gradworks.report import readme
from tests import runs_tree

TEXT = """# Title
<!-- results:begin -->
old
<!-- results:end -->
last
"""
METHODS = "# Methods\n<!-- entries:begin --><!-- entries:end -->\nlast\n"


@pytest.fixture
def project(tmp_path):
    params, cells, runs = runs_tree.write(tmp_path, seeds=(0,))
    report.build(params, cells, runs, tmp_path / "report")
    for slot, name, doc in (("updates", "erm", '"""Plain | training.\n\nMore."""'), ("updates", "_x", "")):
        file = tmp_path / "gradworks/methods" / slot / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(doc)
    (tmp_path / "README.md").write_text(TEXT)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/methods.md").write_text(METHODS)
    return tmp_path


def test_written_between_the_markers_and_again_the_same(project):
    files = [project / "README.md", project / "docs/methods.md"]
    readme.write(project)
    text, methods = (file.read_text() for file in files)
    assert text.startswith("# Title\n<!-- results:begin -->\n") and text.endswith("\nlast\n")
    assert "old" not in text and "| reweight | 1 |" in text
    assert hashlib.md5((project / "report/results.json").read_bytes()).hexdigest() in text  # noqa: S324
    row = "| update | [`erm`](../gradworks/methods/updates/erm.py) | Plain \\| training. |"
    assert row in methods and "_x" not in methods and methods.endswith("\nlast\n")
    readme.write(project)
    assert [file.read_text() for file in files] == [text, methods]


def test_a_missing_marker_changes_nothing(project):
    file = project / "docs/methods.md"
    file.write_text(METHODS.replace("<!-- entries:end -->", ""))
    with pytest.raises(InputError, match="no part 'entries'"):
        readme.write(project)
    assert "old" in (project / "README.md").read_text()


def test_a_missing_file_is_named(project):
    (project / "docs/methods.md").unlink()
    with pytest.raises(InputError, match=r"methods\.md: no such file"):
        readme.write(project)
    assert "old" in (project / "README.md").read_text()


def test_without_results(project):
    (project / "report/results.json").unlink()
    with pytest.raises(InputError, match=r"results\.json: no such file"):
        readme.write(project)
