"""Which kinds of GPU the nodes of a cluster offer, as `gradworks doctor` says it, by the real client over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradworks.cluster import doctor
from gradworks.cluster.profile import Profile
from tests.cluster.kubernetes_server import Kubernetes, node
from tests.cluster.small_checkout import checkout

A100 = {"nvidia.com/gpu.product": "A100"}
TAINT = {"key": "nvidia.com/gpu", "value": "", "effect": "NoSchedule"}
TOLERATES = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def told(pipeline: Path, capsys, gpus: dict, **more: object) -> tuple[bool, str]:
    """Whether all is well, and the line with those that belong to it."""
    lines = doctor._Lines()
    doctor._gpus(lines, Profile.model_validate({"images": {"cpu": "c"}, "gpus": gpus, **more}), pipeline)
    word, _, said = capsys.readouterr().out.partition("gpu a100:")
    return not lines.failed, f"{word.strip()}: {said.strip()}"


def project(folder: Path, count: int = 0) -> Path:
    meta = {"resources": {"gpu": {"kind": "a100", "count": count}}}
    return checkout(folder, {"stages": {"s": {"cmd": "c", "deps": ["code.py"], "outs": ["o"], "meta": meta}}})


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    with Kubernetes() as serving:
        monkeypatch.setenv("KUBECONFIG", str(serving.kubeconfig(tmp_path / "kubeconfig")))
        yield serving


@pytest.mark.parametrize(
    ("nodes", "more", "there"),
    [
        ([node("a", A100, {"nvidia.com/gpu": "8"}), node("b", A100, {"nvidia.com/gpu": "4"})], {}, 8),
        ([node("a", A100, {"cpu": "8"}), node("b", {}, {"nvidia.com/gpu": "8"})], {}, 0),  # not on one node
        ([node("a", A100, {"nvidia.com/gpu": "0"})], {}, 0),
        ([node("a", A100, {"nvidia.com/gpu": "8"}, unschedulable=True)], {}, 0),
        ([node("a", A100, {"nvidia.com/gpu": "8"}, [TAINT])], {}, 0),
        ([node("a", A100, {"nvidia.com/gpu": "8"}, [{**TAINT, "effect": "PreferNoSchedule"}])], {}, 8),
        ([node("a", A100, {"nvidia.com/gpu": "8"}, [TAINT])], {"tolerations": [TOLERATES]}, 8),
        ([node("a", A100, {"nvidia.com/gpu": "8"}, [TAINT])], {"tolerations": [{"operator": "Exists"}]}, 8),
        ([node("a", A100, {"nvidia.com/gpu": "8"}, [{**TAINT, "effect": "NoExecute"}])],
         {"tolerations": [TOLERATES]}, 0),
        ([node("a", A100, {"nvidia.com/gpu": "8"}, [{**TAINT, "value": "x"}])],
         {"tolerations": [{"key": "nvidia.com/gpu", "value": "y"}]}, 0),
        ([node("a", A100, {"nvidia.com/gpu": "8"})], {"nodeSelector": {"zone": "b"}}, 0),
        ([node("a", {**A100, "n": "7"}, {"nvidia.com/gpu": "8"})],
         {"affinity": [{"matchExpressions": [{"key": "n", "operator": "Gt", "values": ["7"]}]}]}, 0),
        ([node("a", {**A100, "n": "7"}, {"nvidia.com/gpu": "8"})],
         {"affinity": [{"matchExpressions": [{"key": "n", "operator": "Gt", "values": ["7"]}]},
                       {"matchExpressions": [{"key": "n", "operator": "In", "values": ["7"]},
                                             {"key": "m", "operator": "NotIn", "values": ["7"]},
                                             {"key": "m", "operator": "DoesNotExist"}]}]}, 8),
        ([node("a", A100, {"nvidia.com/gpu": "8"})],
         {"affinity": [{"weight": 1, "matchExpressions": [{"key": "n", "operator": "Exists"}]}]}, 8),
        ([], {}, 0),
    ],
)  # fmt: skip
def test_which_kinds_of_gpu_a_node_offers(nodes, more, there, cluster, tmp_path, capsys):
    gpus, cluster.nodes = {"a100": {"resource": "nvidia.com/gpu", "nodeSelector": A100}}, nodes
    good, said = told(project(tmp_path / "here"), capsys, gpus, **more)
    expected = f"ok: up to {there} nvidia.com/gpu on a node" if there else "absent: no node for it offers nvidia.com"
    assert good and said.startswith(expected)


def test_a_kind_that_a_stage_asks_for_and_no_node_offers_fails(cluster, tmp_path, capsys, monkeypatch):
    gpus, pipeline = {"a100": {"resource": "nvidia.com/gpu"}}, project(tmp_path / "here", 2)
    for there, good, said in (("1", False, "failed: at most 1 nvidia.com/gpu"), ("2", True, "ok: up to 2")):
        cluster.nodes = [node("a", {}, {"nvidia.com/gpu": there})]
        found = told(pipeline, capsys, gpus)
        assert found[0] is good and found[1].startswith(said)
    cluster.status = 403
    assert told(pipeline, capsys, gpus) == (True, "not checked: Kubernetes: this login may not list nodes (403)")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert told(pipeline, capsys, gpus) == (True, "not checked: Kubernetes alone knows: no kubeconfig here")
