"""A dvc.yaml as a Kubeflow pipeline: what is in it, and what is not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gradworks.cluster import compile, profile
from gradworks.pod import environment
from gradworks.store import stages
from tests.cluster import backend
from tests.cluster.small_checkout import EXAMPLE, PIPELINE, ROOT, checkout, git, grown, parsed


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return checkout(tmp_path, PIPELINE)


def test_a_task_for_each_stage(project):
    spec, kubernetes = parsed(compile.text(project))
    tasks = spec["root"]["dag"]["tasks"]
    assert spec["pipelineInfo"]["name"] == "gradworks"
    assert {name: task["taskInfo"]["name"] for name, task in tasks.items()} == {
        "prepare": "prepare", "train-small": "train@small", "train-big-er": "train@big+er", "report": "report",
    }  # fmt: skip
    assert tasks["train-big-er"]["dependentTasks"] == ["prepare"] and "dependentTasks" not in tasks["prepare"]
    assert tasks["report"]["dependentTasks"] == ["train-big-er", "train-small"]
    inputs = tasks["train-big-er"]["inputs"]["parameters"]
    assert {name: inputs[name]["componentInputParameter"] for name in ("run", "code", "remote")} == {
        "run": "run", "code": "code", "remote": "remote",
    }  # fmt: skip
    assert {name: inputs[name]["runtimeValue"]["constant"] for name in ("pipeline", "stage")} == {
        "pipeline": "dvc.yaml", "stage": "train@big+er",
    }  # fmt: skip
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == {"run", "code", "remote"}
    assert all(task["cachingOptions"] == {} for task in tasks.values())  # Kubeflow's own cache is off
    artifacts = {
        name.removeprefix("comp-"): {
            key: value["artifactType"]["schemaTitle"]
            for key, value in component["outputDefinitions"]["artifacts"].items()
        }
        for name, component in spec["components"].items()
    }
    assert artifacts["train-small"] == {
        "model": "system.Model", "dataset": "system.Dataset", "metrics": "system.Metrics",
    }  # fmt: skip
    assert artifacts["report"] == {"html": "system.HTML", "markdown": "system.Markdown"}
    assert list(spec["components"]["comp-report"]["outputDefinitions"]["parameters"]) == ["lock"]
    # a timeout and a security context are Kubernetes' own
    assert set(kubernetes) == set(spec["deploymentSpec"]["executors"])
    assert {name for name, one in kubernetes.items() if "activeDeadlineSeconds" in one} == {
        "exec-train-small", "exec-train-big-er",
    }  # fmt: skip


def outputs(spec) -> dict[str, set[str]]:
    """Of each component whose container is one: what its pods are asked for."""
    return {
        name: set(one["outputDefinitions"]["artifacts"])
        for name, one in spec["components"].items()
        if "executorLabel" in one
    }


@pytest.mark.parametrize("count", [0, 60])
def test_a_backend_that_merges_equal_containers_leaves_each_stage_its_own(count, project, tmp_path):
    pipeline = checkout(tmp_path / "many", grown(count)) if count else project
    spec, _ = parsed(compile.text(pipeline))
    whole, seen = outputs(spec), backend.seen(spec)
    assert outputs(backend.seen(spec, publish_logs=False)) == whole and len(whole) >= 4
    assert outputs(seen) == {name: some | {backend.LOGS} for name, some in whole.items()}
    for name, one in seen["components"].items():  # defaults as well
        assert one.get("inputDefinitions") == spec["components"][name].get("inputDefinitions")


def test_components_of_two_pipelines_in_one_do_not_merge(project, tmp_path):
    mine = tmp_path / "pipelines/mine"
    mine.mkdir(parents=True)
    (mine / "dvc.yaml").write_text((tmp_path / "dvc.yaml").read_text().replace("data/raw", "../../data/raw"))
    (mine / "code.py").write_text("")
    git(tmp_path, "add", ".")
    both = [yaml.safe_load(compile.write_components(one, tmp_path / "parts")[0].read_text())
            for one in (project, mine / "dvc.yaml")]  # fmt: skip
    containers = [next(iter(one["deploymentSpec"]["executors"].values()))["container"] for one in both]
    assert containers[0]["image"] == containers[1]["image"] and containers[0] != containers[1]


def test_the_stand_in_merges_as_the_backend_does(project):
    spec, _ = parsed(compile.text(project))
    for one in spec["deploymentSpec"]["executors"].values():
        one["container"] = {"image": "x", "args": ["{{$}}"]}
    assert len(set(map(frozenset, outputs(backend.seen(spec)).values()))) == 1


ALLOWED = {  # fields of the IR that make no pod which "restricted" refuses: kubernetes.io/docs, Pod Security Standards
    "activeDeadlineSeconds", "nodeSelector", "tolerations", "nodeAffinity", "podMetadata", "imagePullSecret",
    "secretAsEnv", "configMapAsEnv", "imagePullPolicy", "securityContext",
    "configMapAsVolume", "secretAsVolume", "emptyDirMounts", "pvcMount", "genericEphemeralVolume",  # kinds of volume
}  # fmt: skip


@pytest.mark.slow("compiles whole benchmarks")
@pytest.mark.parametrize("cluster", [None, EXAMPLE])
@pytest.mark.parametrize("count", [0, 60])
def test_pod_security_restricted_takes_every_pod(cluster, count, project, tmp_path):
    """What the IR says of it; the backend itself drops capabilities, forbids escalation, sets the seccomp profile."""
    pipeline = checkout(tmp_path / "many", grown(count)) if count else project
    spec, kubernetes = parsed(compile.text(pipeline, cluster and profile.read(cluster)))
    executors = spec["deploymentSpec"]["executors"]
    assert set(kubernetes) == set(executors) and len(executors) >= 4
    for name, one in kubernetes.items():
        assert one["securityContext"]["runAsNonRoot"] is True
        assert one["securityContext"].get("runAsUser", "1") != "0"
        assert set(one) <= ALLOWED, name
        assert not any("windows" in key.lower() or "host" in key.lower() for key in one)
        labels = one.get("podMetadata", {}).get("annotations", {})
        assert not any("apparmor" in key or "seccomp" in key for key in labels)


def test_an_image_says_its_user_as_a_number_other_than_root():
    """A kubelet cannot tell that a user of a name is not root, and does not start the container."""
    (user,) = re.findall(r"^USER (\S+)$", (ROOT / "images/Dockerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(r"[1-9][0-9]*(:[0-9]+)?", user)


def test_what_runs_in_the_pod(project):
    spec, _ = parsed(compile.text(project))
    container = spec["deploymentSpec"]["executors"]["exec-train-small"]["container"]
    boot = (ROOT / "gradworks/pod/boot.py").read_text()
    assert container["command"] == ["python3", "-c", boot]
    assert container["args"] == ["{{$}}", "dvc.yaml:train-small"]
    assert container["image"] == f"gradworks-gpu:{environment.digest(project.parent, 'gpu')}"
    resources = container["resources"]
    assert resources["resourceCpuRequest"] == resources["resourceCpuLimit"] == "500m"
    assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"] == "8Gi"
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert spec["root"]["dag"]["tasks"]["train-small"]["retryPolicy"]["maxRetryCount"] == 2
    other = spec["deploymentSpec"]["executors"]["exec-report"]["container"]
    assert other["image"].startswith("gradworks-cpu:") and "resources" not in other


@pytest.mark.slow("compiles whole benchmarks")
def test_a_gpu_stage_on_a_cluster(project):
    spec, kubernetes = parsed(compile.text(project, profile.read(EXAMPLE)))
    container = spec["deploymentSpec"]["executors"]["exec-train-small"]["container"]
    tag = environment.digest(project.parent, "gpu")
    assert container["image"] == f"registry.example.org/gradworks/gpu:{tag}"
    accelerator = container["resources"]["accelerator"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "2")
    assert {one["name"]: one["value"] for one in container["env"]} == profile.read(EXAMPLE).s3.environment
    here = kubernetes["exec-train-small"]
    assert here["activeDeadlineSeconds"] == "5400"
    assert here["nodeSelector"]["labels"] == {
        "kubernetes.io/os": "linux", "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
    }  # fmt: skip
    assert here["tolerations"] == [
        {"key": "team", "operator": "Equal", "value": "research", "effect": "NoSchedule"},
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    ]
    assert here["nodeAffinity"] == [
        {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]},
        {"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}], "weight": 10},
    ]
    assert here["emptyDirMounts"] == [
        {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "2Gi"}
    ]
    assert here["podMetadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team-queue"}
    assert [one["secretName"] for one in here["imagePullSecret"]] == ["registry"]
    assert [one["secretName"] for one in here["secretAsEnv"]] == ["s3", "s3"]
    assert [one["keyToEnv"] for one in here["secretAsEnv"]] == [
        [{"envVar": "AWS_ACCESS_KEY_ID", "secretKey": "access-key"}],
        [{"envVar": "AWS_SECRET_ACCESS_KEY", "secretKey": "secret-key"}],
    ]
    assert here["configMapAsEnv"][0]["configMapName"] == "network"
    assert here["configMapAsVolume"][0]["configMapName"] == "ca"
    assert here["configMapAsVolume"][0]["mountPath"] == profile.CA_FOLDER
    plain = kubernetes["exec-report"]
    assert plain["nodeSelector"]["labels"] == {"kubernetes.io/os": "linux"} and len(plain["tolerations"]) == 1
    assert "resources" not in spec["deploymentSpec"]["executors"]["exec-report"]["container"]


def test_a_slice_and_an_image_with_a_tag_of_its_own(tmp_path):
    asked = json.loads(json.dumps(PIPELINE).replace('"a100", "count": 2', '"slice", "count": 1'))
    images = {"cpu": "r.example:5000/team/cpu", "gpu": "r.example:5000/team/gpu:mine"}
    cluster = {"images": images, "gpus": {"slice": {"resource": "nvidia.com/mig-1g.10gb"}}}
    pipeline = checkout(tmp_path, asked)
    spec, _ = parsed(compile.text(pipeline, profile.Profile.model_validate(cluster)))
    executors = spec["deploymentSpec"]["executors"]
    container = executors["exec-train-small"]["container"]
    assert container["resources"]["accelerator"]["resourceType"] == "nvidia.com/mig-1g.10gb"
    assert container["image"] == images["gpu"]
    assert executors["exec-report"]["container"]["image"] == f"{images['cpu']}:{environment.digest(tmp_path, 'cpu')}"


def order(spec) -> list[list[str]]:
    """The stages of each task in an order that Kubeflow may run them in, as slow to come as dependencies allow."""
    tasks, done, found = spec["root"]["dag"]["tasks"], set(), []
    while len(done) < len(tasks):
        ready = [n for n, t in tasks.items() if n not in done and done.issuperset(t.get("dependentTasks", []))]
        for name in ready:
            task = tasks[name]
            if "parameterIterator" in task:
                found.append(json.loads(task["parameterIterator"]["items"]["raw"]))
            else:
                found.append([task["inputs"]["parameters"]["stage"]["runtimeValue"]["constant"]])
        done.update(ready)
    return found


def test_many_stages_are_folded_into_loops_that_keep_the_order(tmp_path):
    pipeline = checkout(tmp_path, grown(100))
    text = compile.text(pipeline)
    spec, _ = parsed(text)
    assert len(text) < 50_000
    known, seen = stages.load(pipeline), set()
    for some in order(spec):
        for name in some:
            assert seen.issuperset(known[name].ups), name
        seen.update(some)
    assert seen == set(known)
    assert [len(some) for some in order(spec)] == [1, 100, 100, 1]
    loop = next(t for t in spec["root"]["dag"]["tasks"].values() if t["taskInfo"]["name"] == "again")
    inner = spec["components"][loop["componentRef"]["name"]]["dag"]["tasks"]["again"]
    assert inner["inputs"]["parameters"]["stage"] == {"componentInputParameter": loop["parameterIterator"]["itemInput"]}
    assert inner["cachingOptions"] == {} and "dependentTasks" not in inner


def test_stages_of_a_loop_are_alike(tmp_path):
    asked = grown(50)
    asked["stages"]["train"]["foreach"] = list(range(50))
    asked["stages"]["train"]["do"]["meta"] = {"resources": {"gpu": {"kind": "a", "count": "${item}"}}}
    found = compile.plan(stages.load(checkout(tmp_path, asked)))
    assert len({task.name for task in found}) == len(found) == 1 + 50 + 1 + 1
    for task in found:
        assert len({(stage.meta, stage.group) for stage in task.stages}) == 1


def test_stages_of_different_depth_are_not_in_one_loop(tmp_path):
    made = {name: f"made/{name}" for name in (f"first-{n}" for n in range(40))}
    chain = {name: {"from": "code.py", "to": path} for name, path in made.items()}
    chain |= {f"then-{name}": {"from": path, "to": f"then/{name}"} for name, path in made.items()}
    one = {"cmd": "c", "deps": ["${item.from}"], "outs": ["${item.to}"], "meta": {"pod": "own"}}
    each = {"foreach": chain, "do": one}
    spec, _ = parsed(compile.text(checkout(tmp_path, {"stages": {"train": each}})))
    assert [len(some) for some in order(spec)] == [40, 40]
    assert {name.removeprefix("comp-") for name in spec["components"]} >= {"train", "train-2"}


def test_no_parameter_is_longer_than_kubeflow_takes(tmp_path):
    spec, _ = parsed(compile.text(checkout(tmp_path, grown(100, "x" * 240))))
    tasks = spec["root"]["dag"]["tasks"].values()
    raw = [task["parameterIterator"]["items"]["raw"] for task in tasks if "parameterIterator" in task]
    assert len(raw) > 4 and max(map(len, raw)) <= 10_000
    known = {name for some in order(spec) for name in some}
    assert len(known) == 202


def test_names_that_kubernetes_takes(tmp_path):
    names = ["A/b", "a b", "a_b", "x" * 100 + "1", "x" * 100 + "2"]
    asked = {"stages": {"s": {"foreach": names, "do": {"cmd": "c", "deps": ["code.py"], "outs": ["${item}.txt"]}}}}
    pipeline = checkout(tmp_path, asked)
    spec, _ = parsed(compile.text(pipeline))
    made = list(spec["root"]["dag"]["tasks"])
    assert {file.parent.name for file in compile.write_components(pipeline, tmp_path / "parts")} == set(made)
    assert {"s-a-b", "s-a-b-2", "s-a-b-3"} < set(made) and len(made) == 5 and max(map(len, made)) < 60
    assert {stage for some in order(spec) for stage in some} == {f"s@{name}" for name in names}


@pytest.mark.slow("processes that import kfp")
def test_the_same_bytes_in_every_process(tmp_path):
    pipeline = checkout(tmp_path, grown(30))
    program = (
        "import sys; from pathlib import Path; from gradworks.cluster import compile, profile\n"
        f"print(compile.text(Path({str(pipeline)!r}), profile.read(Path({str(EXAMPLE)!r}))))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "AWS_SECRET_ACCESS_KEY": "hush-hush",
                 "AWS_ACCESS_KEY_ID": "hush-hush", "HF_TOKEN": "hush-hush"},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1] and len(found[0]) > 10_000
    assert "hush" not in found[0] and "HF_TOKEN" not in found[0]
    assert str(tmp_path) not in found[0]  # nor where the checkout lies


def test_each_stage_as_a_component(project, tmp_path):
    from kfp import components

    files = compile.write_components(project, tmp_path / "parts", profile.read(EXAMPLE))
    assert [file.parent.name for file in files] == ["prepare", "train-small", "train-big-er", "report"]
    one = components.load_component_from_file(str(files[2]))
    assert one.name == "train-big-er" and one.component_spec.description == "train@big+er of dvc.yaml"
    given = one.component_spec.inputs
    assert {name: spec.default for name, spec in given.items()} == {
        "run": None, "code": None, "remote": None, "pipeline": "dvc.yaml", "stage": "train@big+er",
    }  # fmt: skip
    assert {name: spec.type for name, spec in one.component_spec.outputs.items()} == {
        "lock": "String", "model": "system.Model@0.0.1", "dataset": "system.Dataset@0.0.1",
        "metrics": "system.Metrics@0.0.1",
    }  # fmt: skip
    text = files[2].read_text()
    assert f"registry.example.org/gradworks/gpu:{environment.digest(project.parent, 'gpu')}" in text


@pytest.mark.slow("compiles the whole benchmark")
def test_the_default_benchmark(tmp_path):
    out = tmp_path / "pipeline.yaml"
    compile.write(ROOT / "dvc.yaml", out, profile.read(EXAMPLE))
    spec, _ = parsed(out.read_text())
    assert spec["pipelineInfo"]["name"] == "gradworks" and len(spec["root"]["dag"]["tasks"]) <= compile.TASKS
    types = spec["components"]["comp-train-evaluate"]["outputDefinitions"]["artifacts"]
    assert types["model"]["artifactType"]["schemaTitle"] == "system.Model"


def test_a_linked_pipeline_has_its_own_name_and_path(tmp_path, monkeypatch):
    asked = {"stages": {"s": {"wdir": "${root}", "cmd": "c", "deps": ["code.py"], "outs": ["${here}o"]}}}
    checkout(tmp_path, asked, track=False)
    mine = tmp_path / "pipelines" / "mine"
    mine.mkdir(parents=True)
    (mine / "dvc.yaml").symlink_to("../../dvc.yaml")
    (mine / "params.yaml").write_text("root: ../..\nhere: pipelines/mine/\n")
    git(tmp_path, "add", ".")
    monkeypatch.chdir(tmp_path / "pipelines")
    spec, _ = parsed(compile.text(Path("mine/dvc.yaml")))
    assert spec["pipelineInfo"]["name"] == "gradworks-mine"
    given = spec["root"]["dag"]["tasks"]["s"]["inputs"]["parameters"]["pipeline"]
    assert given == {"runtimeValue": {"constant": "pipelines/mine/dvc.yaml"}}


@pytest.mark.parametrize(
    "name", ["My_Bench", "my bench", "gr\u00f6\u00dfe", "2024", "x.y", "\u65e5\u672c", "-", "a" * 200]
)
def test_the_name_of_a_pipeline_is_one_of_kubernetes(name):
    made = compile.title(Path("pipelines", name, "dvc.yaml"))
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", made) and made.startswith("gradworks")
