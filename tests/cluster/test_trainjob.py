"""The TrainJob of a stage that asks for several nodes: as the published CRD and the cluster's profile say."""

from __future__ import annotations

import json

import pytest
import yaml

from gradworks.base.errors import InputError
from gradworks.cluster import compile, doctor, profile
from gradworks.cluster import trainjob as compiled
from gradworks.pod import trainjob
from gradworks.store import meta
from tests.cluster.kubernetes_server import Kubernetes
from tests.cluster.small_checkout import EXAMPLE, PIPELINE, checkout, parsed
from tests.cluster.trainer import server

VALUES = {"run": "20261126-1000-abcdef", "stage": "train@noise-erm-gru+cased-0", "pipeline": "dvc.yaml",
          "remote": "s3://b/x", "code": "s3://b/x/gradworks/code/c-1.tar.gz"}  # fmt: skip
ASKED = {
    "resources": {"cpu": "500m", "memory": "8Gi", "gpu": {"kind": "a100", "count": 4}, "nodes": 2},
    "timeout": "2h",
}


def asked(monkeypatch, given=ASKED, cluster=EXAMPLE):
    """The TrainJob of a stage's pod."""
    read = profile.read(cluster) if cluster else None
    made = compiled.request(meta.read(given, "x"), "registry.example.org/gradworks/gpu:1", read)
    monkeypatch.setenv(trainjob.REQUEST, json.dumps(made))
    own = ("train-x7k2m", "0a1b", "gradworks", "5c6d")
    for name, value in zip(trainjob.FIELDS, own, strict=True):
        monkeypatch.setenv(name, value)
    return trainjob.request(VALUES, VALUES["stage"], 2)


@pytest.mark.parametrize("cluster", [EXAMPLE, None])
@pytest.mark.parametrize("given", [ASKED, {"resources": {"nodes": 3}}, {"resources": {"nodes": 2, "cpu": 4}}])
def test_the_request_is_as_the_published_crd_says(monkeypatch, given, cluster):
    made = asked(monkeypatch, given, cluster)
    assert server.violations(made) == []
    values = json.loads(made["spec"]["trainer"]["args"][0])["inputs"]["parameterValues"]
    assert values == {**VALUES, "node": "true"}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "train-x7k2m", "uid": "0a1b"}
    assert made["metadata"]["ownerReferences"] == [owner]
    names = {
        trainjob.request({**VALUES, key: value}, stage, 2)["metadata"]["name"]
        for key, value in (("run", "r2"), ("pipeline", "pipelines/x/dvc.yaml"), ("code", "c2"))
        for stage in (VALUES["stage"], VALUES["stage"].replace("gru+", "gru-"))
    }
    assert len(names) == 6 and made["metadata"]["name"] in names  # one for each run, pipeline and stage


def test_the_request_has_what_the_profile_says(monkeypatch):
    made = asked(monkeypatch)
    trainer, labels = made["spec"]["trainer"], made["metadata"]["labels"]
    resources = {"cpu": "500m", "memory": "8Gi", "nvidia.com/gpu": "4"}
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["resourcesPerNode"] == {"requests": resources, "limits": resources}
    assert labels["kueue.x-k8s.io/queue-name"] == "team-queue" and made["spec"]["activeDeadlineSeconds"] == 7200
    env = {one["name"]: one for one in trainer["env"]}
    key = {"secretKeyRef": {"name": "s3", "key": "secret-key"}}
    assert env["AWS_SECRET_ACCESS_KEY"]["valueFrom"] == key and env["AWS_CA_BUNDLE"]["value"] == "/etc/gradworks/ca.crt"
    template = made["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    pod = template["template"]["spec"]["template"]
    assert pod["metadata"]["labels"]["pipeline/runid"] == "5c6d"  # `runs show` says why it waits
    spec = pod["spec"]
    assert spec["nodeSelector"] == {
        "kubernetes.io/os": "linux", "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
    }  # fmt: skip
    assert spec["serviceAccountName"] == "gradworks" and spec["imagePullSecrets"] == [{"name": "registry"}]
    assert [one["key"] for one in spec["tolerations"]] == ["team", "nvidia.com/gpu"]
    must = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert must[0]["matchExpressions"][0]["key"] == "kubernetes.io/arch"
    mounts = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
    assert (
        mounts
        == {"shm": "/dev/shm", "ca": "/etc/gradworks"}
        == {one["name"]: mounts[one["name"]] for one in spec["volumes"]}
    )


def test_the_checker_sees_what_the_crd_does_not_have(monkeypatch):
    for change, said in (
        (lambda j: j["spec"].update(podTemplateOverrides=[]), "podTemplateOverrides"),  # of Trainer 2.1
        (lambda j: j["spec"]["trainer"].update(numNodes="2"), "numNodes"),
        (lambda j: j["spec"]["runtimeRef"].clear(), "name"),
        (lambda j: j["metadata"].update(name="Train@x"), "no label of DNS"),
        (lambda j: j["spec"]["trainer"]["env"].append({"name": "PET_NNODES", "value": "3"}), "reserved"),
    ):
        made = asked(monkeypatch)
        change(made)
        assert said in " ".join(server.violations(made)), said


def several(folder, nodes, **more):
    """A checkout whose stages of training ask for nodes."""
    made = json.loads(json.dumps(PIPELINE))
    made["stages"]["train"]["meta"]["resources"]["nodes"] = nodes
    made["stages"]["train"] |= more
    return checkout(folder, made)


def test_a_stage_of_several_nodes_has_a_small_pod_of_its_own_and_the_request_of_theirs(tmp_path):
    pipeline, executors = parsed(compile.text(several(tmp_path, 3), profile.read(EXAMPLE)))
    container = pipeline["deploymentSpec"]["executors"]["exec-train-small"]["container"]
    (request,) = [json.loads(one["value"]) for one in container["env"] if one["name"] == trainjob.REQUEST]
    trainer = request["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"], trainer["image"]) == (3, 2, container["image"])
    assert "accelerator" not in container["resources"]
    own = executors["exec-train-small"]
    assert own["nodeSelector"]["labels"] == {"kubernetes.io/os": "linux"} and own["activeDeadlineSeconds"] == "5400"
    assert {one["name"]: one["fieldPath"] for one in own["fieldPathAsEnv"]} == trainjob.FIELDS
    assert "fieldPathAsEnv" not in executors["exec-report"] and "value" in json.dumps(container["env"])


def test_what_is_of_one_node_is_refused_before_anything_runs(tmp_path):
    file = several(tmp_path, 2, deps=["out/data", "hardware.yaml"])
    with pytest.raises(
        InputError, match=r"stage train@small: meta.resources.nodes: found 2\nexpected 1: it reads hardw"
    ):
        compile.text(file)
    assert yaml.safe_load(file.read_text())["stages"]["train"]["deps"][1] == "hardware.yaml"


def test_doctor_says_what_a_stage_of_several_nodes_lacks(tmp_path, capsys, monkeypatch):
    file, alone = several(tmp_path / "several", 2), several(tmp_path / "alone", 1)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    told = profile.read(EXAMPLE)
    doctor._trainer(doctor._Lines(), told, alone)
    assert capsys.readouterr().out == ""
    doctor._trainer(doctor._Lines(), told, file)
    assert "not checked  several nodes:" in capsys.readouterr().out
    with Kubernetes() as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "config", "team")))
        for groups, failed, said in (
            (["apps"], 1, "found no trainer.kubeflow.org: Kubeflow Trainer is not installed"),
            (["trainer.kubeflow.org"], 1, "found no kueue.x-k8s.io: Kueue is not installed"),
            (["trainer.kubeflow.org", "kueue.x-k8s.io"], 0, "Kubeflow Trainer and Kueue installed"),
        ):
            cluster.groups, lines = groups, doctor._Lines()
            doctor._trainer(lines, told, file)
            assert lines.failed == failed and said in capsys.readouterr().out
        cluster.status = 403
        doctor._trainer(doctor._Lines(), told, file)
        assert "this login may not list groups of the API (403)" in capsys.readouterr().out
