"""Sizes of splits are parameters of their own, as DVC's run cache does not see them inside another."""

from pathlib import Path

import pytest
import yaml

from gradworks import dvc_compat, parameters
from gradworks.base import cells, run_cache
from gradworks.base.errors import InputError

ROOT = Path(__file__).parents[2]
YAML = "stages:\n  one: {{cmd: c, deps: [code], params: [{names}], outs: [out]}}\n"


def values() -> dict:
    return yaml.safe_load((ROOT / "pipelines/smart/params.yaml").read_text())


def key(folder: Path, names: str, size: int) -> str:
    """DVC's key of a stage whose parameters hold the size of a split."""
    (folder / ".dvc").mkdir(exist_ok=True)
    (folder / ".dvc/config").write_text("[core]\nno_scm = true\n")
    (folder / "code").write_text("1")
    (folder / "params.yaml").write_text(yaml.safe_dump({"corrupt": {"splits": {"test": {"size": size}}}}))
    (folder / "dvc.yaml").write_text(YAML.format(names=names))
    with dvc_compat.Project(folder) as project:
        return project.run_cache_key(Path("dvc.yaml"), "one")


def test_a_size_is_seen_where_it_is_a_parameter_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole, own = "corrupt.splits", "corrupt.splits, corrupt.splits.test.size"
    assert key(tmp_path, whole, 24) == key(tmp_path, whole, 60)  # DVC's fault, which is why
    assert key(tmp_path, own, 24) != key(tmp_path, own, 60)


def test_every_stage_that_reads_the_splits_has_their_sizes(tmp_path):
    made = values()
    given = run_cache.sizes(made["corrupt"])
    assert "corrupt.splits.selection.size" in given and any(path.startswith("corrupt.parts.") for path in given)
    stages = yaml.safe_load(cells.definition(ROOT / "pipelines/smart/params.yaml", made))["stages"]
    for name, stage in stages.items():
        asked = stage.get("do", stage).get("params") or []
        names = [path for one in asked for listed in one.values() for path in listed]
        if "corrupt.splits" in names:
            assert set(given) <= set(names), name
    read = [name for name, stage in stages.items() if "corrupt.splits.selection.size" in str(stage)]
    assert read == ["corrupt", "pretrain"]
    assert "${here}params.yaml" in stages["cells"]["deps"]  # so that a size which is new is noticed


def test_other_parameters_may_not_be_called_so():
    path, made = ROOT / "pipelines/smart/params.yaml", values()
    made["corrupt"]["conditions"]["clean"] = {"flip": [{"size": 3}]}
    with pytest.raises(InputError, match=r"corrupt\.conditions\.clean\.flip\.0\.size: found the name 'size'\nexpected"):
        run_cache.refuse(path, made)
    with pytest.raises(InputError, match=r"corrupt\.conditions\.clean\.flip\.0\.size"):
        parameters.check(path, made)
    run_cache.refuse(path, values() | {"x-mine": {"size": 1}})
