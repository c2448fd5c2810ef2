"""The run cache's key without the inputs' files is the one that DVC makes with them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gradworks import dvc_compat, dvc_keys

YAML = """
stages:
  one: {cmd: c, deps: [code, z.txt, made/list], params: [b.x, a], outs: [out/m, out/a.json]}
  free: {cmd: c, outs: [x]}
"""


def opened(root: Path) -> dvc_keys.Keys:
    return dvc_keys.Keys(root, Path("dvc.yaml"), dvc_compat.resolved(root / "dvc.yaml", root))


def test_the_key_of_a_stage_whose_inputs_are_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = {"dvc.yaml": YAML, "params.yaml": "a: 1\nb: {x: [1, 0.5]}\n", "code/b/c.py": "1", "code/a.py": "2",
             "z.txt": "z", ".dvc/config": "[core]\nno_scm = true\n", "made/list/p": "p",
             "made/list/q/r": "r"}  # fmt: skip
    for name, text in texts.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    with dvc_compat.Project(tmp_path) as project:
        whole = project.run_cache_key(Path("dvc.yaml"), "one")
    md5 = [(name, hashlib.md5(name[-1].encode(), usedforsecurity=False).hexdigest()) for name in ("q/r", "p")]
    given = {"made/list": dvc_keys.folder_hash([{"relpath": name, "md5": digest} for name, digest in md5])}
    for name in ("made/list/p", "made/list/q/r"):
        Path(name).unlink()
    with opened(tmp_path) as keys:
        assert keys.key("one", given) == whole and len(whole) == 64
        assert keys.key("one", given | {"made/list": "0" * 32}) != whole
        assert [one["relpath"] for one in keys.listing("code")] == ["a.py", "b/c.py"] and keys.listing("none") == []
        with pytest.raises(dvc_keys.Unknown, match="no such stage"):
            keys.key("free", {})
        Path("z.txt").unlink()
    with opened(tmp_path) as keys, pytest.raises(dvc_keys.Unknown, match=r"z\.txt"):
        keys.key("one", given)


def test_values_are_written_as_the_project_says_and_no_lock_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("params.yaml", "a: {deep: true, n: [1, 2]}\n"), ("code", "1"), ("more", "2")):
        Path(name).write_text(text)
    Path(".dvc").mkdir()
    Path("dvc.yaml").write_text(
        "stages:\n  one: {cmd: 'c ${a}', deps: [code], outs: [x]}\n  two: {cmd: c, deps: [more, code], outs: [y]}\n"
        "  three: {cmd: c, wdir: '${w}', deps: [code, ../more], outs: [z]}\nvars: [{w: in}]\n"
    )
    Path("in").mkdir()
    Path("in/code").write_text("3")
    keys = []
    for settings in ("", "[parsing]\nbool = boolean_optional\nlist = append\n"):
        Path(".dvc/config").write_text(f"[core]\nno_scm = true\n{settings}")
        with dvc_compat.Project(tmp_path) as project:
            whole = {name: project.run_cache_key(Path("dvc.yaml"), name) for name in ("one", "two", "three")}
        Path("dvc.lock").write_text("no lock")
        with opened(tmp_path) as found:
            assert {name: found.key(name, {}) for name in whole} == whole
        Path("dvc.lock").unlink()
        keys.append(whole)
    assert keys[0]["one"] != keys[1]["one"] and keys[0]["two"] == keys[1]["two"]


PARAMS = "a: 1\nb: {x: [1, {y: 0.5}], z*: 3}\nd: {1: one, e: null}\n"


NAMES = ("[a, b]", "[b.x.1.y, a]", "['b.*', d.e]", "['b.z?']", "[{other.yaml: }]", "[{other.yaml: [q]}, d.1]")


@pytest.mark.parametrize("names", NAMES)
def test_parameters_are_found_as_dvc_finds_them(tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    for name, text in (("params.yaml", PARAMS), ("other.yaml", "q: {r: 1e-3}\ns: no\n"), ("code", "1")):
        Path(name).write_text(text)
    Path(".dvc/config").write_text("[core]\nno_scm = true\n")
    Path("dvc.yaml").write_text(f"stages:\n  one: {{cmd: c, deps: [code], params: {names}, outs: [out]}}\n")
    with dvc_compat.Project(tmp_path) as project:
        try:
            whole = project.run_cache_key(Path("dvc.yaml"), "one")
        except Exception:  # DVC takes names as patterns, and two matches for a mistake
            whole = None
    with opened(tmp_path) as keys:
        if whole is None:
            with pytest.raises(dvc_keys.Unknown):
                keys.key("one", {})
        else:
            assert keys.key("one", {}) == whole
