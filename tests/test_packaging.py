"""What a stranger gets: pins that hold on every machine, a library that needs torch only, no traces of this machine."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gradworks.base.artifacts import read_json

ROOT = Path(__file__).parent.parent
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SOURCE_ONLY = ("kfp-server-api", "antlr4-python3-runtime")  # pure Python, published without wheels


@cache
def pins() -> dict[str, Requirement]:
    return {r.name: r for r in map(Requirement, (ROOT / "constraints.txt").read_text().splitlines())}


def uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    """uv without what this machine adds of its own: wheels in a folder, a build of torch."""
    own = ("UV_FIND_LINKS", "UV_TORCH_BACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {"UV_SYSTEM_CERTS": "1", "UV_PYTHON_DOWNLOADS": "never", "MACOSX_DEPLOYMENT_TARGET": "14.0"}
    if "PIP_INDEX_URL" in environment:
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    program = Path(sys.executable).with_name("uv")
    return subprocess.run([program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def resolve(platform: str, python: str) -> subprocess.CompletedProcess[str]:
    """From uv's cache (0.5 s) where that is enough, else from the index (3 s)."""
    command = ["pip", "compile", "pyproject.toml", "--all-extras", "-c", "constraints.txt", "--quiet"]
    command += ["--no-annotate", "--no-header", "--only-binary", ":all:"]
    command += ["--python-platform", platform, "--python-version", python]
    for name in SOURCE_ONLY:
        command += ["--no-binary", name]
    run = uv(*command, "--offline")
    return run if run.returncode == 0 else uv(*command)


@pytest.fixture(scope="module")
def resolved() -> dict[tuple[str, str], subprocess.CompletedProcess[str]]:
    cells = [(platform, python) for platform in PLATFORMS for python in PYTHONS]
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda cell: resolve(*cell), cells))
    if all("Failed to fetch" in run.stderr for run in runs):
        pytest.skip("no package index")  # not a reason that CI allows
    return dict(zip(cells, runs, strict=True))


@pytest.mark.slow("resolves every platform")
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_constraints_hold_everywhere(resolved: dict, platform: str, python: str):
    run = resolved[platform, python]
    assert run.returncode == 0, run.stderr
    got = {r.name: r.specifier for r in map(Requirement, run.stdout.splitlines())}
    assert {"torch", "transformers", "dvc", "kfp", "pytest"} <= set(got)
    unpinned = sorted(name for name in got if name not in pins() or got[name] != pins()[name].specifier)
    assert not unpinned, f"not pinned for {platform}, Python {python}: {unpinned}; run `make pins`"


def test_constraints_name_no_machine():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[a-z0-9.]+( ; [\w' ().=<>!]+)?", line), line


def test_versions_are_those_of_the_constraints():
    versions = read_json(ROOT / "versions.json")
    assert versions == {name: str(pins()[name].specifier).removeprefix("==") for name in versions}
    assert set(versions) == {"torch", "transformers", "tokenizers"}


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    return subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, tracked: list[str]) -> zipfile.ZipFile:
    """Built from a copy, so that nothing stale in build/ gets in."""
    source = tmp_path_factory.mktemp("source")
    for name in tracked:
        if name.startswith("gradworks/") or name in ("pyproject.toml", "README.md", "LICENSE"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    run = uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", str(out), str(source))
    assert run.returncode == 0, run.stderr
    return zipfile.ZipFile(next(out.glob("*.whl")))


def requirements(wheel: zipfile.ZipFile, extra: str) -> set[str]:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    lines = email.message_from_bytes(wheel.read(name)).get_all("Requires-Dist")
    return {r.name for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate({"extra": extra})}


@pytest.mark.slow("builds a wheel")
def test_extras(wheel: zipfile.ZipFile):
    assert requirements(wheel, "") == {"torch"}
    stage, kubeflow = requirements(wheel, "stage"), requirements(wheel, "kubeflow")
    assert {"dvc", "dvc-s3", "transformers", "pyarrow"} <= stage
    assert not {name for name in stage if name.startswith("kfp") or name in ("pytest", "ruff", "docker")}
    assert {"kfp", "kfp-kubernetes"} <= kubeflow


@pytest.mark.slow("builds a wheel")
def test_the_wheel_holds_the_whole_library_and_nothing_else(wheel: zipfile.ZipFile, tracked: list[str]):
    library = {name for name in tracked if name.startswith("gradworks/")}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == library
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def closure(name: str) -> set[str]:
    """A distribution and all that it requires here."""
    found, todo = set(), [name]
    while todo:
        name = canonicalize_name(todo.pop())
        if name in found:
            continue
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        todo += [r.name for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


LIBRARY = ("gradworks", "gradworks.spec", "gradworks.methods")
BLOCKED = """
import importlib, pkgutil, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Blocker())
for name in LIBRARY:
    module = importlib.import_module(name)
    if name != "gradworks":
        for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
            importlib.import_module(found.name)
"""


def test_the_library_alone_needs_torch_only():
    allowed = closure("torch") | {"gradworks"}
    blocked = {
        module for module, names in packages_distributions().items() if not allowed & set(map(canonicalize_name, names))
    }
    assert {"transformers", "numpy", "pyarrow", "yaml", "pydantic"} <= blocked
    code = f"BLOCKED = {blocked!r}\nLIBRARY = {LIBRARY!r}\n{BLOCKED}"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# put together from parts, so that this file does not name what it looks for
MACHINE = "|".join(
    (
        r"(^|[^A-Za-z0-9_.$}/-])/(" + "|".join(("work", "farm", "root", "home", "opt", "Users")) + ")/",
        r"\.\./" + "shared",
        r"\+" + r"(cpu|cu[0-9]+)\b",
        "file:" + "///",
    )
)


def test_no_tracked_file_names_this_machine(tracked: list[str]):
    found = []
    for name in tracked:
        # an image has paths of its own
        if name.startswith(("images/", "tests/test_images")) or not (ROOT / name).is_file():
            continue
        try:
            lines = (ROOT / name).read_text().splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{number}: {line[:100]}" for number, line in enumerate(lines, 1) if re.search(MACHINE, line)]
    assert not found, "\n".join(found)
