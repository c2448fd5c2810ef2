"""What every test shares: quiet, offline, one thread; the real data where it is there; and no silent skips in CI."""

from __future__ import annotations

import logging
import os
import signal
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


@pytest.fixture(autouse=True)
def _no_handler_of_another_test():
    """kfp's runner has logging write to the output of the test that calls it, which is closed behind it."""
    for handler in [h for h in logging.root.handlers if type(h) is logging.StreamHandler]:  # not pytest's own kinds
        logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets: GRADWORKS_DATA, else data/ in the checkout."""
    folder = Path(os.environ["GRADWORKS_DATA"])
    if not (folder / "mnli" / "train.tsv").exists():
        pytest.skip("no real data")
    return folder


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
    found = _forbidden_skips(terminalreporter.config)
    if found:
        terminalreporter.section("skips that CI does not allow", red=True)
        for line in found:
            terminalreporter.line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _forbidden_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
