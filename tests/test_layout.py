"""The promises that the tree itself makes: true DVC dependencies, one-way imports, one name per stage, short files."""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gradworks.base import cells

ROOT = Path(__file__).parent.parent
STAGES = [p.stem for p in sorted((ROOT / "components").glob("*.py")) if p.stem != "__init__"]
OPTIONAL = {
    "label",
    "slice",
    "soup",
}  # stages that the top-level dvc.yaml lacks: only a params.yaml with their section has them
# imported where a mixture has slices, and a dependency then: see OPTIONS below
WITH_SLICES = {"gradworks/data/members.py"}
SLOTS = ("objectives", "weightings", "updates")
KINDS = [f"gradworks/tasks/kinds/{p.name}" for p in sorted((ROOT / "gradworks/tasks/kinds").glob("[!_]*.py"))]
SCORE = (
    "train",
    "measure",
    "evaluate",
    "ensemble",
    "soup",
    "report",
)  # the others read labels by a kind, and score nothing
# Files that DVC need not watch: they pass names on, or hold nothing.
NO_RESULT = {
    f"{name}/__init__.py" for name in ("gradworks", "gradworks/telemetry", "gradworks/cost", "components", "benchmarks")
}
# Nor these: they tell Prometheus of a stage while it runs, and nothing that a stage writes comes from them.
LIVE = {"gradworks/telemetry/live.py", "gradworks/telemetry/push.py"}
# Nor this: it refuses a params file, and reads what it refuses by of every stage's own code.
CHECK = {"gradworks/parameters.py", "gradworks/named_files.py"}

# A layer may import those below it, and files of its own folder; layers of one line do not import each other.
LAYERS = [
    ["benchmarks"],
    ["tests"],  # the toy pipeline, the engine
    ["gradworks/cli", "gradworks/run"],
    ["gradworks/new", "gradworks/engine", "gradworks/jobs", "gradworks/submission"],
    ["components"],
    ["gradworks/parameters", "gradworks/done"],
    ["gradworks/named_files"],
    ["gradworks/cluster", "gradworks/report"],
    ["gradworks/pod"],
    ["gradworks/store"],
    ["gradworks/cost", "gradworks/telemetry"],
    ["gradworks/dvc_compat", "gradworks/dvc_keys"],
    ["gradworks/dvc_text"],
    ["gradworks/cell", "gradworks/pretraining", "gradworks/combining"],
    ["gradworks/loop", "gradworks/cell_model"],
    ["gradworks/distributed", "gradworks/predict", "gradworks/trace", "gradworks/data/mixture",
     "gradworks/data/tables", "gradworks/selection", "gradworks/calibration"],
    ["gradworks/tasks"],  # a kind scores and reads labels
    ["gradworks/methods", "gradworks/schedules", "gradworks/ensembles", "gradworks/models", "gradworks/data",
     "gradworks/metrics", "gradworks/simultaneous", "gradworks/statistics",
     "gradworks/learning_rate", "gradworks/glue", "gradworks/soups", "gradworks/superglue"],
    ["gradworks/spec"],
    ["gradworks/base"],
]  # fmt: skip
TORCH_ONLY = ("gradworks/spec", "gradworks/methods")


def tracked():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


PYTHON = [
    name for name in tracked() if name.endswith(".py") and name.startswith(("gradworks/", "components/", "benchmarks/"))
]


def module_file(module):
    path = module.replace(".", "/")
    for name in (f"{path}.py", f"{path}/__init__.py"):
        if (ROOT / name).is_file():
            return name
    return None


def type_only(tree):
    """Imports under `if TYPE_CHECKING`, which do not run."""
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    return {id(n) for block in blocks for n in ast.walk(block)}


@functools.cache
def imports(name, types=False):
    """Files of the project that a file imports when it runs, inside functions too; with `types`, or names in types."""
    tree = ast.parse((ROOT / name).read_text())
    skip, found = set() if types else type_only(tree), set()
    package = Path(name).parent.as_posix().replace("/", ".")
    for node in ast.walk(tree):
        if id(node) in skip:
            continue
        if isinstance(node, ast.Import):
            found |= {module_file(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import; imports are written one way, from the root"
            found |= {module_file(node.module)}
            found |= {module_file(f"{node.module}.{alias.name}") for alias in node.names}
            assert package  # every file lies in a package
    return frozenset(found - {None})


def closure(*names):
    seen, todo = set(), list(names)
    while todo:
        name = todo.pop()
        if name not in seen | NO_RESULT | LIVE | CHECK:
            seen.add(name)
            todo += imports(name)
    return seen


def layer(name):
    """The most particular entry of LAYERS that a file belongs to: (its line, the entry)."""
    fits = [(len(e), n, e) for n, line in enumerate(LAYERS) for e in line if name.startswith((e + "/", e + ".py"))]
    return max(fits)[1:] if fits else None


def test_imports_point_one_way():
    wrong = []
    for name in [n for n in PYTHON if n not in NO_RESULT]:
        assert layer(name), f"{name} is in no layer of DESIGN: add it to LAYERS"
        for other in imports(name) - NO_RESULT:
            (mine, entry), (its, other_entry) = layer(name), layer(other)
            same = entry == other_entry or {entry, other_entry} == {"gradworks/cli", "gradworks/run"}
            if not (same or mine < its):
                wrong.append(f"{name} imports {other}: {entry} must not know {other_entry}")
    assert wrong == []


def longest(edges):
    """The longest path of a graph {node: nodes}; fails where it has a circle."""
    order = list(graphlib.TopologicalSorter(edges).static_order())  # what is imported comes first
    chains = {}
    for node in order:
        chains[node] = max(([node, *chains[one]] for one in edges.get(node, ())), key=len, default=[node])
    return max(chains.values(), key=len)


HOPS = 6
# the class of what is explained, in the types of what explains it
BACK = {("gradworks/methods/_shared/cause.py", "gradworks/methods/_shared/replay.py")}
FOLDERS = sorted({e for line in LAYERS for e in line if (ROOT / e).is_dir() and e not in ("benchmarks", "tests")})


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_chain_of_imports_in_a_folder_is_longer_than_six(folder):
    """Types count too: a reader follows them."""
    files = {n for n in PYTHON if (layer(n) or (0, ""))[1] == folder and not n.endswith("__init__.py")}
    chain = longest({n: {m for m in imports(n, types=True) & files - {n} if (n, m) not in BACK} for n in files})
    assert len(chain) - 1 <= HOPS, " -> ".join(chain)


def test_no_chain_of_layers_is_longer_than_six():
    edges = {}
    for name in PYTHON:
        mine = layer(name)
        for its in map(layer, imports(name) - NO_RESULT) if mine else ():
            if its and its != mine and {its[1], mine[1]} != {"gradworks/cli", "gradworks/run"}:
                edges.setdefault(mine[1], set()).add(its[1])
    chain = longest(edges)
    assert len(chain) - 1 <= HOPS, " -> ".join(chain)


def beyond_torch(name):
    """Lines of a file that import something else than torch, the standard library and the library itself."""
    tree = ast.parse((ROOT / name).read_text())
    skip = type_only(tree)
    for node in ast.walk(tree):
        if id(node) in skip or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for module in [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]:
            own = module.startswith(("gradworks.spec", "gradworks.methods"))
            if not own and module.split(".")[0] not in {"torch", "__future__"} | sys.stdlib_module_names:
                yield f"{name}:{node.lineno} imports {module}"


def test_the_library_alone_needs_torch_only():
    assert [line for name in PYTHON if name.startswith(TORCH_ONLY) for line in beyond_torch(name)] == []


def foreign(name, *packages):
    """Lines of a file that import one of these packages or something in it."""
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) else []
        if any(module.split(".")[0] in packages for module in modules):
            yield f"{name}:{node.lineno}"


def test_two_files_know_dvc_and_one_folder_kfp():
    shipped = [name for name in PYTHON if name.startswith(("gradworks/", "components/"))]
    dvc = [line for name in shipped for line in foreign(name, "dvc", "dvc_data", "dvc_objects")]
    assert dvc and all(line.startswith(("gradworks/dvc_compat.py:", "gradworks/dvc_keys.py:")) for line in dvc), dvc
    kfp = [line for name in shipped for line in foreign(name, "kfp", "kubernetes", "kfp_server_api")]
    assert kfp and all(line.startswith("gradworks/cluster/") for line in kfp), kfp


@functools.cache
def resolved():
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        # the stages of the top-level dvc.yaml; the others are made from the same template
        return [s for s in repo.index.stages if s.path_in_repo == "dvc.yaml"]


def dynamic(stage, items):
    """Files that a stage loads by name: the entries of its method and its model."""
    kind, _, key = stage.name.partition("@")
    item = items.get("train" if kind == "evaluate" else kind, {}).get(key, {})
    files = [f"gradworks/models/{item['model']}.py"] if "model" in item else []
    if kind in ("train", "measure"):
        files += [f"gradworks/methods/{slot}/{item[slot[:-1]]}.py" for slot in SLOTS]
        files.append(f"gradworks/schedules/{item.get('mixture_schedule', 'single')}.py")
    return files


def slots_and_models(name):
    """Loaded by name: a dependency of the cells that use it, not of everything that could."""
    parent, _, file = name.rpartition("/")
    return (
        parent in ("gradworks/models", "gradworks/schedules", *(f"gradworks/methods/{s}" for s in SLOTS))
        and file[:1] != "_"
    )


def test_dvc_knows_every_file_that_a_stage_imports():
    items = yaml.safe_load((ROOT / "cells.yaml").read_text())["each"]
    wrong, used, listed = set(), {}, {}
    for stage in resolved():
        kind = stage.name.partition("@")[0]
        needed = closure(f"components/{kind}.py", *dynamic(stage, items), *(KINDS if kind in SCORE else ()))
        needed -= WITH_SLICES
        deps = {Path(d.def_path) for d in stage.deps}
        for name in sorted(needed):
            if not any(d == Path(name) or d in Path(name).parents for d in deps):
                wrong.add(f"stage {kind}: add to its deps\n        - {name}")
        used.setdefault(kind, set()).update(needed)
        listed.setdefault(kind, set()).update(d.as_posix() for d in deps if d.suffix == ".py")
    # what a source is read by stands in cells.yaml; a file that some cells of a stage use is a dependency of them all
    readers = {source["dep"] for source in items["fetch"].values()}
    for kind, names in listed.items():
        for name in names - used[kind] - readers:
            wrong.add(f"stage {kind}: remove from its deps (not imported): {name}")
    assert not wrong, "\n".join(sorted(wrong))


OPTIONS = {
    "label": {"weak": {"file": "labelling.py", "from": "synthetic/train"}},
    "slice": {"use": ["who"], "file": "slices.py"},
    "mixtures": {"all": {"parts": ["nli"], "slices": ["who"]}},
}
SOUP = {"soup": [{"condition": "clean", "method": "erm", "encoders": ["uncased"]}]}  # of cells without such heads


def test_dvc_knows_every_file_that_an_optional_stage_imports():
    values, stages = yaml.safe_load((ROOT / "params.yaml").read_text()), {}
    for more in (SOUP, OPTIONS):
        stages |= yaml.safe_load(cells.definition(ROOT / "params.yaml", values | more))["stages"]
    wrong = []
    for kind in [*sorted(OPTIONAL), "train", "measure", "evaluate"]:
        deps = {d for d in stages[kind]["do"]["deps"] if d.startswith(("gradworks", "components"))}
        needed = closure(f"components/{kind}.py", *(KINDS if kind in SCORE else ()))
        wrong += [f"stage {kind}: add to its deps\n        - {name}" for name in sorted(needed) if not any(
            d == name or name.startswith(f"{d}/") for d in deps)]  # fmt: skip
        wrong += [f"stage {kind}: remove {d}" for d in deps if d.endswith(".py") and "{" not in d and d not in needed]
    assert not wrong, "\n".join(wrong)
    assert "slices.py" in stages["slice"]["do"]["deps"]


def test_an_entry_is_a_dependency_of_its_cells_only():
    items = yaml.safe_load((ROOT / "cells.yaml").read_text())["each"]
    for stage in resolved():
        kind = stage.name.partition("@")[0]
        if kind in ("train", "measure"):
            named = {d.def_path for d in stage.deps if slots_and_models(d.def_path)}
            named -= {"gradworks/models/__init__.py", "gradworks/schedules/__init__.py"}
            assert named == set(dynamic(stage, items)), stage.name


def test_one_name_per_stage():
    dvc = set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    params = set(yaml.safe_load((ROOT / "params.yaml").read_text()))
    tests = {p.stem.removeprefix("test_") for p in (ROOT / "tests/components").glob("test_*.py")}
    assert dvc == set(STAGES) - OPTIONAL == {s for s in STAGES if s in params}
    assert set(STAGES) == {s for s in STAGES if s in tests}
    for stage in resolved():
        assert f"-m components.{stage.name.partition('@')[0]} " in stage.cmd


def test_a_pipeline_has_its_files():
    shipped = [Path(name) for name in tracked() if name.startswith("pipelines/") and name.count("/") == 2]
    for folder in {path.parent for path in shipped}:
        there = {path.name for path in shipped if path.parent == folder}
        if there == {"README.md"}:  # of benchmarks in its folders
            continue
        assert {"params.yaml", "cells.yaml", "dvc.yaml", "README.md"} <= there, folder
        # DVC reads no link at a revision (dvc gc --all-commits, dvc metrics diff)
        assert not (ROOT / folder / "dvc.yaml").is_symlink(), folder


def test_files_are_short():
    code = [name for name in tracked() if name.endswith((".py", ".sh")) or name.startswith(".ci/")]
    assert [name for name in code if len((ROOT / name).read_text().splitlines()) > 350] == []


def test_every_module_has_its_test():
    there = {p.name for p in (ROOT / "tests").rglob("test_*.py")}
    for name in PYTHON:
        stem = Path(name).stem
        if name.startswith("gradworks/") and name.count("/") == 1 and stem not in ("__init__", "errors"):
            assert f"test_{stem}.py" in there, f"{name}: no tests/test_{stem}.py"
