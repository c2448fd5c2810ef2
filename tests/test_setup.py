"""setup.sh, with Pythons and a uv that only note what they were asked; .ci/run and the workflow run it for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ["sh", "dirname", "cat", "cksum", "grep", "tr", "rm", "mv", "cp", "mkdir", "chmod"]
# the version check itself is run by a real Python, told that it is another one
PYTHON = """#!/bin/sh
case "$*" in
  *version_info\\[:2\\]\\ \\<=*) exec {real} -c "import platform, sys
sys.version_info = ({version}); sys.platform = '${{PLATFORM:-linux}}'; platform.machine = lambda: '${{MACHINE:-x86_64}}'
$2" ;;
  *%d.%d*) echo {version} | tr , . ;;
  *_base_executable*) echo {path} ;;
  *base_prefix*) echo {path} ;;
  *ensurepip*) exit ${{NO_VENV:-0}} ;;
  "-m venv --clear "*)
    rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo "$4" >"$4/bin/activate" ;;
  "-m pip install "*) cp {uv} "$(dirname "$0")/uv" ;;
  "-m pip config get global.index-url") [ -n "${{PIP_CONF:-}}" ] && echo "$PIP_CONF" ;;
  *urlopen*) exit ${{UNREACHABLE:-0}} ;;
esac
"""
UV = """#!/bin/sh
echo "$* links=${UV_FIND_LINKS:-} index=${UV_DEFAULT_INDEX:-} certs=$UV_SYSTEM_CERTS" >>"$LOG"
exit ${UV_FAILS:-0}
"""


class Checkout:
    """A copy of what setup.sh reads, on a PATH that has no real Python."""

    def __init__(self, folder: Path):
        self.folder, self.bin = folder / "check out", folder / "bin"
        for path in (self.folder, self.bin):
            path.mkdir()
        for name in ("setup.sh", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.uv = self.tool("uv-stub", UV)
        self.system("Linux", "x86_64")

    def tool(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def python(self, name: str, version: str) -> None:
        path = self.bin / name
        self.tool(name, PYTHON.format(real=sys.executable, version=version.replace(".", ","), path=path, uv=self.uv))

    def system(self, name: str, machine: str, macos: str = "") -> None:
        self.tool("uname", f'#!/bin/sh\n[ "$1" = -s ] && echo {name} || echo {machine}\n')
        if macos:
            self.tool("sw_vers", f"#!/bin/sh\necho {macos}\n")

    def setup(self, **environment: str) -> tuple[int, str, list[str]]:
        """Exit code, what was said, and the calls of uv."""
        log = self.folder.parent / "log"
        log.write_text("")
        run = subprocess.run(
            ["sh", "setup.sh"],
            cwd=self.folder,
            env={"PATH": str(self.bin), "LOG": str(log), **environment},
            capture_output=True,
            text=True,
        )
        return run.returncode, run.stdout + run.stderr, log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    checkout = Checkout(tmp_path)
    checkout.python("python3", "3.12")
    return checkout


def test_installs_once(checkout: Checkout):
    code, said, calls = checkout.setup()
    assert code == 0, said
    assert len(calls) == 1
    assert "-e .[all,dev] -c constraints.txt --compile-bytecode --torch-backend auto links= index= certs=1" in calls[0]
    assert checkout.setup() == (0, "", [])


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_changed_input_installs_again(checkout: Checkout, changed: str):
    checkout.setup()
    with (checkout.folder / changed).open("a") as file:
        file.write("# changed\n")
    assert len(checkout.setup()[2]) == 1


def test_a_failed_install_is_tried_again(checkout: Checkout):
    code, _, calls = checkout.setup(UV_FAILS="1")
    assert (code != 0, len(calls)) == (True, 1)
    assert len(checkout.setup()[2]) == 1


def test_a_moved_checkout_gets_a_new_environment(checkout: Checkout):
    checkout.setup()
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("moved"))
    assert "-> .venv" in checkout.setup()[1]
    assert str(checkout.folder) in (checkout.folder / ".venv/bin/activate").read_text()


def test_too_old_says_what_to_try(checkout: Checkout):
    checkout.python("python3", "3.10")
    code, said, calls = checkout.setup()
    assert (code, calls) == (1, [])
    assert "Python 3.11 to 3.14 is needed; python3 is 3.10" in said
    assert "make setup PYTHON=" in said
    assert len(said.splitlines()) <= 3


@pytest.mark.parametrize(("version", "fits"), [("3.10", False), ("3.11", True), ("3.14", True), ("3.15", False)])
def test_versions(checkout: Checkout, version: str, fits: bool):
    checkout.python("other", version)
    code, said, _ = checkout.setup(PYTHON="other")
    assert (code == 0) is fits, said
    assert fits or version in said


def test_a_newer_python_beside_an_old_default(checkout: Checkout):
    checkout.python("python3", "3.9")
    checkout.python("python3.13", "3.13")
    code, said, _ = checkout.setup()
    assert code == 0, said
    assert "python3.13 3.13 -> .venv" in said


def test_another_python_makes_the_environment_anew(checkout: Checkout):
    checkout.setup()
    checkout.python("python3.11", "3.11")
    assert "python3.11 3.11 -> .venv" in checkout.setup(PYTHON="python3.11")[1]
    assert checkout.setup(PYTHON="python3.11") == (0, "", [])
    assert checkout.setup() == (0, "", []), "without PYTHON the environment that is there is kept"


def test_missing_venv_module(checkout: Checkout):
    checkout.tool("apt-get", "#!/bin/sh\n")
    code, said, _ = checkout.setup(NO_VENV="1")
    assert code == 1
    assert "sudo apt-get install python3.12-venv" in said
    assert not (checkout.folder / ".venv").exists()


@pytest.mark.parametrize(
    ("machine", "macos", "expected"), [("x86_64", "15.1", "Intel"), ("arm64", "13.6.1", "macOS 13.6.1")]
)
def test_refused_macs(checkout: Checkout, machine: str, macos: str, expected: str):
    checkout.system("Darwin", machine, macos)
    code, said, calls = checkout.setup()
    assert (code, calls, len(said.splitlines())) == (1, [], 1)
    assert expected in said


def test_a_mac_takes_the_one_build_there_is(checkout: Checkout):
    checkout.system("Darwin", "arm64", "14.0")
    code, said, calls = checkout.setup(PLATFORM="darwin", MACHINE="arm64", UNREACHABLE="1")
    assert code == 0, said
    assert "torch-backend" not in calls[0]
    assert "Install one (brew" in checkout.setup(PLATFORM="darwin", MACHINE="x86_64", PYTHON="")[1]


def test_local_wheels_and_mirrors_are_handed_on(checkout: Checkout):
    _, said, calls = checkout.setup(PIP_FIND_LINKS="a b", UNREACHABLE="1")
    assert "links=a,b index= " in calls[0]
    assert "torch-backend" not in calls[0]
    assert "reached" not in said


@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "PIP_CONF"])
def test_a_mirror_is_handed_on(checkout: Checkout, variable: str):
    calls = checkout.setup(**{variable: "https://mirror.example/simple", "UNREACHABLE": "1"})[2]
    assert "index=https://mirror.example/simple " in calls[0]
    assert "torch-backend" not in calls[0]


def test_unreachable_torch_index(checkout: Checkout):
    code, said, calls = checkout.setup(UNREACHABLE="1")
    assert (code, len(calls)) == (0, 1)
    assert "2.7 GB" in said
    assert "torch-backend" not in calls[0]
    code, said, calls = checkout.setup(UNREACHABLE="1", TORCH="cu130")
    assert (code, calls) == (1, [])
    assert "TORCH=cu130 needs" in said


def test_another_build_of_torch_replaces_it_and_stays_chosen(checkout: Checkout):
    assert "--reinstall-package" not in checkout.setup(TORCH="cpu")[2][0]
    assert checkout.setup() == (0, "", []), "without TORCH the last choice holds"
    assert "--torch-backend cu130 --reinstall-package torch" in checkout.setup(TORCH="cu130")[2][0]
    with (checkout.folder / "constraints.txt").open("a") as file:
        file.write("\n")
    call = checkout.setup()[2][0]
    assert "--torch-backend cu130" in call
    assert "--reinstall-package" not in call


def test_the_package_indexs_own_build(checkout: Checkout):
    call = checkout.setup(TORCH="pypi", PIP_FIND_LINKS="a")[2][0]
    assert "torch-backend" not in call
    assert "links= " in call


def test_unknown_build(checkout: Checkout):
    code, said, _ = checkout.setup(TORCH="gpu")
    assert code == 1
    assert "expected auto, cpu, cu130 or pypi" in said


def test_help_names_every_verb():
    said = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    ).stdout
    verbs = {line.split()[0] for line in said.splitlines()[1:]}
    assert verbs >= {"setup", "demo", "test", "check", "readme", "images", "pins", "clean", "help"}
