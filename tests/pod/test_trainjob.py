"""A stage of several nodes as a TrainJob, against an API that checks every request: refusals leave nothing behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gradworks.base.errors import InputError
from gradworks.pod import trainjob
from gradworks.pod.kubernetes import Api
from tests.cluster.test_trainjob import VALUES, asked
from tests.cluster.trainer import server
from tests.cluster.trainer.server import Trainer

DENIED = (
    'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: spec.runtimeRef: Invalid value'
)
SECURITY = 'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest": seccompProfile'


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    with Trainer(tmp_path) as serving:
        for name, value in serving.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(trainjob, "_LOOK", 0.01)
        yield serving


def job(request, failed="", stopped=lambda: False):
    left = iter(range(2000))  # a test that would hang fails
    return trainjob.Job(Api.here(), request, lambda: failed, lambda: stopped() or next(left) < 0)


def allowed():
    """What the example's Role of the pods lets them ask."""
    documents = yaml.safe_load_all((Path(__file__).parents[2] / "pipelines/rbac.example.yaml").read_text())
    (rules,) = [one["rules"] for one in documents if one["metadata"]["name"] == "gradworks-pods" and "rules" in one]
    methods = {"get": "GET", "list": "GET", "create": "POST", "delete": "DELETE"}
    return {f"{methods.get(verb)} {kind}" for rule in rules for kind in rule["resources"] for verb in rule["verbs"]}


def refused(request, **more):
    with pytest.raises(InputError) as raised:
        job(request, **more).run()
    said = str(raised.value)
    assert len(said.splitlines()) <= 2 and "planted" not in said
    return said


def test_a_trainjob_is_made_followed_and_removed(monkeypatch, cluster, capsys):
    made = asked(monkeypatch)
    cluster.status = {"conditions": [cluster.condition("Complete", "JobsCompleted")]}
    assert job(made).run() is True
    assert cluster.jobs == {} and cluster.wrong == []
    assert set(cluster.asked) <= allowed()
    assert [one for one in cluster.asked if one.startswith(("POST", "DELETE"))] == [
        "DELETE trainjobs", "POST trainjobs", "DELETE trainjobs",
    ]  # fmt: skip
    # one of an earlier try, whose pod was killed, goes first
    cluster.jobs[made["metadata"]["name"]] = {"metadata": {"uid": "left"}}
    assert job(made).run() is True and cluster.jobs == {}
    # asked to stop while its queue holds it
    cluster.status = {"conditions": [cluster.condition("Suspended", "Suspended")]}
    assert job(made, stopped=lambda: "GET events" in cluster.asked).run() is False
    assert cluster.jobs == {} and "waits: suspended" in capsys.readouterr().out


def _expired(cluster):
    cluster.token = "the next one"


def _elsewhere(cluster):
    (cluster.account / "namespace").write_text("other")


def _answers(status, message, *methods):
    return lambda cluster: cluster.refuses.update(
        {(one, "trainjobs"): (status, message) for one in methods or ["POST"]}
    )


NONE = b"404 page not found"
FORBIDDEN = r'cannot delete resource "trainjobs".* in the namespace "other" \(403\)\n.*rbac.example'
REFUSED = {
    "namespace": (_elsewhere, FORBIDDEN),
    "token": (_expired, r"^Kubernetes refuses the pod's token \(401\): Unauthorized\n"),
    "queue": (
        lambda cluster: cluster.queues.clear(),
        "^queue: found 'team-queue', which namespace team does not have\n",
    ),
    "kueue": (
        lambda cluster: setattr(cluster, "kueue", ""),
        "^queue: found 'team-queue', and no Kueue in the cluster\n",
    ),
    "crd": (
        _answers(404, NONE, "POST", "DELETE", "GET"),
        r"no TrainJobs in namespace team \(404\).*\n.*Kubeflow Trainer",
    ),
    "webhook": (_answers(403, DENIED), r"^Kubernetes refuses the TrainJob \(403\): admission webhook"),
    "invalid": (_answers(422, "TrainJob is invalid: x"), r"^Kubernetes refuses the TrainJob \(422\): TrainJob is inv"),
    "busy": (_answers(503, "no endpoints"), r"^Kubernetes refuses the TrainJob \(503\): no endpoints$"),
    "late": (
        lambda cluster: setattr(cluster, "late", True),
        r"^Kubernetes refuses the TrainJob \(504\): context deadline",
    ),
}


def listing(cluster):
    """The TrainJobs that the API lists for one who may see them."""
    (cluster.account / "namespace").write_text(server.SPACE)
    (cluster.account / "token").write_text(cluster.token)
    cluster.refuses.clear()
    return Api.here().ask("GET", f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{server.SPACE}/trainjobs")["items"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_a_line_and_leaves_nothing(monkeypatch, cluster, name):
    made = asked(monkeypatch)
    change, said = REFUSED[name]
    change(cluster)
    assert re.search(said, refused(made))
    assert listing(cluster) == []


def test_what_goes_wrong_while_it_runs_is_a_line_and_leaves_nothing(monkeypatch, cluster, capsys):
    made = asked(monkeypatch)
    name = made["metadata"]["name"]
    assert refused(made, failed="train@x: out of memory on the host") == "train@x: out of memory on the host"
    assert listing(cluster) == []
    terminated = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    labels = {"batch.kubernetes.io/job-completion-index": "1"}
    cluster.pods = [{"metadata": {"labels": labels}, "status": {"containerStatuses": [{"lastState": terminated}]}}]
    killed = f"TrainJob {name}: node 1 was killed: OOMKilled"
    assert refused(made, failed="train@x: closed by peer") == f"{killed}\ntrain@x: closed by peer"
    cluster.pods = []
    event = {"reason": "FailedCreate", "message": SECURITY, "involvedObject": {"name": f"{name}-node-0"}}
    event["lastTimestamp"] = server.NOW
    # one of an hour ago is of an earlier try of the same name
    cluster.events = [{**event, "message": "forbidden: long ago", "lastTimestamp": "2026-11-26T09:00:00Z"}, event]
    assert f"TrainJob {name}: its pods are refused: {SECURITY}" == refused(made)
    assert listing(cluster) == []
    cluster.events, before = [{**event, "message": 'pods "x" is forbidden: exceeded quota: gpus'}], len(cluster.asked)

    def later():  # a full quota is waited for
        if cluster.asked[before:].count("GET events") == 3:
            cluster.jobs[name]["status"] = {"conditions": [cluster.condition("Failed", "DeadlineExceeded", "too long")]}
        return False

    assert refused(made, stopped=later) == f"TrainJob {name} failed: DeadlineExceeded: too long"
    assert 'waits: pods "x" is forbidden: exceeded quota: gpus\n' in capsys.readouterr().out
    assert listing(cluster) == []
    monkeypatch.setattr(trainjob, "_PATIENCE", 0.05)
    cluster.status = {}
    cluster.refuses["GET", "trainjobs"] = 500, "etcdserver: leader changed"
    found = refused(made)
    assert "etcdserver: leader changed" in found and f"left: kubectl delete trainjob {name} -n team" in found


def test_a_second_pod_of_the_stage_takes_over_and_keeps_its_own(monkeypatch, cluster):
    made = asked(monkeypatch)
    name = made["metadata"]["name"]

    def replaced():
        if "GET events" in cluster.asked:
            cluster.jobs[name] = {"metadata": {"uid": "of the second"}, "status": {}}
        return False

    assert refused(made, stopped=replaced) == f"TrainJob {name}: another pod of this stage has replaced it"
    assert cluster.jobs[name]["metadata"]["uid"] == "of the second"
    del cluster.jobs[name]


def test_a_defect_leaves_nothing_either(monkeypatch, cluster):
    def broken():
        assert "GET events" not in cluster.asked
        return False

    with pytest.raises(AssertionError):
        job(asked(monkeypatch), stopped=broken).run()
    assert listing(cluster) == []


def test_a_token_that_is_replaced_while_it_runs_is_read_again(monkeypatch, cluster):
    made = asked(monkeypatch)

    def replaced():
        if cluster.token == server.TOKEN:
            cluster.token = "planted-next"
        elif cluster.asked.count("GET trainjobs") > 6:
            (cluster.account / "token").write_text("planted-next")
            (found,) = cluster.jobs.values()
            found["status"] = {"conditions": [cluster.condition("Complete")]}
        return False

    assert job(made, stopped=replaced).run() is True and listing(cluster) == []


def test_without_a_cluster_it_is_refused(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InputError, match=r"several nodes: found no KUBERNETES_SERVICE_HOST\n"):
        Api.here()
    monkeypatch.delenv(trainjob.REQUEST, raising=False)
    with pytest.raises(InputError, match=r"^train: meta.resources.nodes: found 2, and a pod without"):
        trainjob.request(VALUES, "train", 2)
