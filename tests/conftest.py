"""What every test shares: quiet, offline, one thread; the real data where it is there; and no silent skips in CI."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# set before anything imports torch (one thread, as bit equality is promised at a set count) or a hub
# client; subprocesses inherit them
os.environ.update(
    OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DVC_NO_ANALYTICS="1",
    DO_NOT_TRACK="1",
    TOKENIZERS_PARALLELISM="false",
)

# a suite that runs in the background inherits an ignored SIGINT, and so would the programs whose Ctrl-C is tested
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
# may be given relative to the checkout; tests and what they start run in other folders too
os.environ["GRADWORKS_DATA"] = str((ROOT / os.environ.get("GRADWORKS_DATA", "data")).resolve())
# with CI=true a test may be skipped for these reasons alone ("no GPU: ..." counts as "no GPU")
ALLOWED_SKIPS = ("no GPU", "no real data")
CPU = pytest.StashKey[float]()  # CPU time of this process and its children when a test began


@pytest.fixture(autouse=True)
def _logging_as_at_the_start():
    """kfp's runner has logging write to the output of the test that calls it, closed behind it, from INFO on."""
    logging.root.setLevel(logging.WARNING)
    for handler in [h for h in logging.root.handlers if type(h) is logging.StreamHandler]:  # not pytest's own kinds
        logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets: GRADWORKS_DATA, else data/ in the checkout."""
    folder = Path(os.environ["GRADWORKS_DATA"])
    if not (folder / "mnli" / "train.tsv").exists():
        pytest.skip("no real data")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu", action="store_true", help="list the tests that take most CPU time, children included")


@pytest.hookimpl(tryfirst=True)  # before pytest applies -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow each case of a cross product whose every value is already in an earlier case of its test.

    Thins stacked parametrize and tuples of names, such as (objective, weighting, update); rows of one table stay.
    """
    seen: dict[str, set[tuple[object, ...]]] = {}
    for item in items:
        case = getattr(item, "callspec", None)
        if case is None:
            continue
        values = set(_values(item, case.params))
        known = seen.setdefault(item.nodeid.partition("[")[0], set())
        if values <= known:
            item.add_marker(pytest.mark.slow("every value is in another case"))
        known |= values
    items.sort(key=_fast)  # long files first, so that the workers end together


def _fast(item: pytest.Item) -> bool:
    """Whether an item's file is not slow as a whole."""
    marks = getattr(item.module, "pytestmark", []) if isinstance(item, pytest.Function) else []
    return not any(mark.name == "slow" for mark in (marks if isinstance(marks, list) else [marks]))


def _values(item: pytest.Item, params: dict[str, object]) -> Iterator[tuple[object, ...]]:
    """One key for each row of each parametrize, or for each part of a tuple of names.

    A row is known by its objects: the indices of pytest >= 9.1 count cases, not the values of one parametrize.
    """
    marks = [mark.args[0] for mark in item.iter_markers("parametrize")]
    rows = [[name.strip() for name in m.split(",")] if isinstance(m, str) else list(m) for m in marks]
    rows += [[name] for name in params if not any(name in row for row in rows)]  # of fixtures
    for row in rows:
        value = params[row[0]]
        if len(row) == 1 and isinstance(value, tuple) and all(isinstance(part, str) for part in value):
            yield from ((row[0], place, part) for place, part in enumerate(value))
        else:
            yield (row[0], *(id(params[name]) for name in row))


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    item.stash[CPU] = _cpu()
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    item.user_properties.append(("cpu", _cpu() - item.stash[CPU]))


def _costliest(terminal: pytest.TerminalReporter, count: int = 60) -> None:
    reports = [report for found in terminal.stats.values() for report in found if isinstance(report, pytest.TestReport)]
    spent = {report.nodeid: dict(report.user_properties)["cpu"] for report in reports if report.when == "teardown"}
    terminal.section(f"CPU time: {sum(spent.values()):.0f} s in tests, imports aside")
    for name in sorted(spent, key=spent.__getitem__, reverse=True)[:count]:
        terminal.line(f"{spent[name]:7.2f} s  {name}")


def _forbidden_skips(config: pytest.Config) -> list[str]:
    if os.environ.get("CI") != "true" or hasattr(config, "workerinput"):
        return []
    found = []
    for report in config.pluginmanager.get_plugin("terminalreporter").stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not any(reason == allowed or reason.startswith(f"{allowed}:") for allowed in ALLOWED_SKIPS):
            found.append(f"{report.nodeid}: {reason}")
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if terminalreporter.config.getoption("--cpu"):
        _costliest(terminalreporter)
    found = _forbidden_skips(terminalreporter.config)
    if found:
        terminalreporter.section("skips that CI does not allow", red=True)
        for line in found:
            terminalreporter.line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _forbidden_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
