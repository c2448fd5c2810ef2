"""README.md tells what dvc.lock and report/results.json hold."""

import re
from pathlib import Path

import pytest
import yaml

from gradworks.report import readme

ROOT = Path(__file__).parent.parent
LINE = "run: make readme"


def locked_md5():
    """Of report/results.json in dvc.lock; None before the default benchmark was committed."""
    lock = ROOT / "dvc.lock"
    stages = yaml.safe_load(lock.read_text())["stages"] if lock.exists() else {}
    outs = stages.get("report", {}).get("outs", [])
    return next((out["md5"] for out in outs if out["path"] == readme.RESULTS.as_posix()), None)


def test_the_results_are_those_of_dvc_lock():
    part = readme.between((ROOT / "README.md").read_text(), "results")
    found = re.findall(r"md5 `([0-9a-f]{32})`", part)
    assert found == ([locked_md5()] if locked_md5() else []), LINE


def test_the_results_are_those_of_the_report():
    """Where the benchmark was run, and its results are those of dvc.lock, the whole text is compared."""
    file = ROOT / readme.RESULTS
    if file.exists() and readme.md5(file) == locked_md5():
        part = readme.between((ROOT / "README.md").read_text(), "results")
        assert part == readme.results(ROOT).strip(), LINE


def test_the_map_of_entries_is_complete():
    part = readme.between((ROOT / readme.METHODS).read_text(), "entries")
    assert part == readme.entries(ROOT).strip(), LINE


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_map_names_every_page():
    text = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES[1:] if f"](docs/{page.name})" not in text] == []
