"""`python -m gradworks.dvc_compat` writes what `dvc` writes, without its slow parser and only what changed."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from gradworks import dvc_compat

ROOT = Path(__file__).parent.parent

PIPELINE = """\
# a comment
vars:
  - key: {a: 1, "b: c": 2}
stages:
  each:
    foreach: ${key}
    do:
      cmd: python -c "open('${key}.txt', 'w').write('${item}')"
      outs:
        - ${key}.txt
  all:
    cmd: python -c "import pathlib; [path.read_text() for path in pathlib.Path('.').glob('*.txt')]; print('a rather long command, which the lock file folds over lines')"
    deps:
      - a.txt
    params: &anchors
      - p.yaml: [one, two]
  more:
    cmd: python -c "pass"
    params: *anchors
"""  # noqa: E501
# runs DVC and prints which parsers read a dvc.lock
RECORD = """
import sys, runpy
from dvc.utils.serialize import _yaml
plain, seen = _yaml.parse_yaml, set()
def recorded(text, path, typ="safe"):
    if str(path).endswith("dvc.lock"):
        seen.add(typ)
    return plain(text, path, typ)
_yaml.parse_yaml = recorded
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
except SystemExit as ended:
    print("parsers", *sorted(seen))
    raise
"""


@pytest.fixture
def repro(tmp_path):
    def run(module: str) -> tuple[set[str], bytes]:
        folder = tmp_path / module
        folder.mkdir()

        def call(*command: str) -> str:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        (folder / "p.yaml").write_text("one: &one {a: 1}\ntwo: {x: *one, y: *one}\n")  # the same in dvc.lock
        call("git", "init", "-q")
        call(sys.executable, "-m", "dvc", "init", "-q")
        for value, stages in ((1, ["each@a", "all", "each@b: c"]), (3, ["each@a", "more"])):
            made = PIPELINE.replace("a: 1", f"a: {value}")
            (folder / "dvc.yaml").write_text(made)
            said = call(sys.executable, "-c", RECORD, module, "repro", "-s", *stages)
            assert (folder / "dvc.yaml").read_text() == made
        parsers = set(said.splitlines()[-1].split()[1:])
        return parsers, (folder / "dvc.lock").read_bytes()

    return run


@pytest.mark.slow("whole runs of DVC")
def test_the_same_lock_file_without_the_slow_parser(repro):
    (slow, plain), (fast, ours) = repro("dvc"), repro("gradworks.dvc_compat")
    assert ours == plain
    assert b"&id002" in plain and b"&id003" not in plain
    assert slow == {"rt"} and fast == {"safe"}


def test_dvc_and_kfp_are_bounded_to_what_was_tried():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = dict(line.split(" ;")[0].split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    for line in (*extras["stage"], *extras["kubeflow"]):
        if name := re.match(r"(dvc|kfp|kfp-kubernetes)>=([\d.]+),<([\d.]+)$", line):
            pin, low, high = ([int(n) for n in version.split(".")] for version in (pins[name[1]], name[2], name[3]))
            assert low <= pin < high and high[:2] <= [pin[0], pin[1] + 1], line
            extras.setdefault("bounded", []).append(name[1])
    assert extras["bounded"] == ["dvc", "kfp", "kfp-kubernetes"]
    assert metadata.version("dvc").startswith(tuple(f"{release}." for release in dvc_compat.TRIED))
    assert f"dvc>={dvc_compat.TRIED[0]},<" in "".join(extras["stage"])
