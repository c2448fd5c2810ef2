"""Why a stage does not begin: what Kubernetes says reaches people, by the real client from a server over HTTP."""

from __future__ import annotations

import re

import pytest

from gradworks.base.errors import InputError
from gradworks.cluster import follow, history, kube, waiting
from gradworks.store.places import Places
from tests.cluster import toy
from tests.cluster.api_server import Api
from tests.cluster.kubernetes_server import Kubernetes, event, pod, pulling, unplaced
from tests.cluster.test_submit import TOKEN, followed, pods, profile, well

TASKS = {"make": ["make"], "double": ["double@a", "double@b"], "join": ["join"]}
NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available"
REFUSED = (
    'pods "gradworks-x7k2m-1" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true '
    '(pod or container "wait" must set securityContext.runAsNonRoot=true)'
)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    with Kubernetes() as serving:
        monkeypatch.setenv("KUBECONFIG", str(serving.kubeconfig(tmp_path / "kubeconfig")))
        yield serving


def look(run_id: str = "id", begun: float = 0.0) -> waiting.Found:
    return waiting.look(kube.connect(None, "team"), run_id, TASKS, begun)


@pytest.mark.parametrize(
    ("made", "events", "expected"),
    [
        ([pod("p", "id", "make", **unplaced(NO_GPU))], [], {"make": f"Unschedulable: {NO_GPU}"}),
        ([pod("p", "id", "make", **pulling("ImagePullBackOff", "Back-off pulling image"))], [],
         {"make": "ImagePullBackOff: Back-off pulling image"}),
        ([pod("p", "id", "make", **pulling("InvalidImageName", ""))], [], {"make": "InvalidImageName: r.example/x:1"}),
        ([pod("p", "id", "make", **pulling("CreateContainerConfigError", 'secret "s3" not found'))], [],
         {"make": 'CreateContainerConfigError: secret "s3" not found'}),
        ([pod("p", "id", "make", **pulling("ContainerCreating", ""))],
         [event("Pod", "p", "FailedMount", 'configmap "ca" not found')],
         {"make": 'FailedMount: configmap "ca" not found'}),
        # of an earlier moment: it has found its node since
        ([pod("p", "id", "make", **pulling("ContainerCreating", ""))],
         [event("Pod", "p", "FailedScheduling", NO_GPU)], {}),
        ([pod("p", "id", "make", **pulling("PodInitializing", ""))], [], {}),
        ([pod("p", "id", "make", phase="Running")], [], {}),
        ([pod("p", "id", "make", phase="Failed", reason="Evicted", message="low on memory")], [],
         {"make": "Evicted: low on memory"}),
        ([pod("p", "id", "make", phase="Failed", containerStatuses=[
            {"name": "main", "image": "", "imageID": "", "ready": False, "restartCount": 0,
             "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}])], [], {"make": "OOMKilled"}),
        ([pod("p", "id", "make", phase="Failed", containerStatuses=[
            {"name": "main", "image": "", "imageID": "", "ready": False, "restartCount": 0,
             "state": {"terminated": {"reason": "Error", "exitCode": 2}}}])], [], {}),  # its record says why
        ([pod("p", "other", "make", **unplaced(NO_GPU))], [], {}),
        ([pod("p", "id", "make", space="theirs", **unplaced(NO_GPU))], [], {}),
        # of several stages, one after the other
        ([pod("p", "id", "make -> double@a", **unplaced("x"))], [],
         {"make": "Unschedulable: x", "double@a": "Unschedulable: x"}),
        # a pod of Kubeflow's own, of one stage and of a loop
        ([pod("p", "id", None, node="gradworks-x7k2m.root.make-driver", **unplaced("x"))], [],
         {"make": "Unschedulable: x"}),
        ([pod("p", "id", None, node="gradworks-x7k2m.root.double-driver(0)", **unplaced("x"))], [],
         {"double@a": "Unschedulable: x", "double@b": "Unschedulable: x"}),
        ([pod("p", "id", None, node="gradworks-x7k2m.root-driver", **unplaced("x"))], [],
         {"pod p": "Unschedulable: x"}),
        # refused by admission, so that there is no pod
        ([pod("p", "id", None, phase="Succeeded")],
         [event("Workflow", "gradworks-x7k2m", "WorkflowNodeError", f"Error node gradworks-x7k2m.root: {REFUSED}",
                node="gradworks-x7k2m.root.make.executor")], {"make": f"refused: {REFUSED}"}),
        ([pod("p", "id", None, phase="Succeeded")],
         [event("Workflow", "gradworks-x7k2m", "WorkflowNodeError", f"Error node wf.root.make(0): {REFUSED}")],
         {"make": f"refused: {REFUSED}"}),
        ([pod("p", "id", None, phase="Succeeded")], [event("Workflow", "another", "WorkflowNodeError", REFUSED)], {}),
        ([], [event("Workflow", "gradworks-x7k2m", "WorkflowNodeError", REFUSED)], {"the run": f"refused: {REFUSED}"}),
        ([pod("p", "id", None, phase="Succeeded")], [event("Workflow", "gradworks-x7k2m", "WorkflowNodeFailed",
          "Failed node gradworks-x7k2m.root.make: Error (exit code 2)")], {}),
        # a later try holds
        ([pod("p2", "id", "make", at="2026-11-26T11:00:00Z", phase="Running"),
          pod("p", "id", "make", **unplaced(NO_GPU))], [], {}),
    ],
)  # fmt: skip
def test_what_kubernetes_says(cluster, made, events, expected):
    cluster.pods, cluster.events = made, events
    assert look().reasons == expected


def test_stages_of_one_pod_wait_for_each_other(cluster):
    record, states = {"ups": {"join": ["make"]}}, {"make": {"state": "waiting"}, "join": {"state": "waiting"}}
    reasons = dict.fromkeys(states, "Unschedulable: x")
    assert waiting.explained(record, states, reasons) == {"make": "Unschedulable: x", "join": "after make"}
    states["make"]["state"] = "succeeded"
    assert waiting.explained(record, states, reasons)["join"] == "Unschedulable: x"


def test_whether_anything_moves(cluster):
    stuck = pod("p", "id", "make", **unplaced(NO_GPU))
    for made, moving in (
        ([stuck], False),
        ([stuck, pod("q", "id", "join", phase="Running")], True),
        ([stuck, pod("q", "id", "join", **pulling("ContainerCreating", ""))], True),
        ([stuck, pod("q", "id", "join", phase="Succeeded")], False),
    ):
        cluster.pods = made
        assert look().moving is moving


def test_a_run_before_this_one_is_not_spoken_of(cluster):
    cluster.events = [event("Workflow", "gradworks-x7k2m", "WorkflowNodeError", REFUSED)]
    assert look(begun=4e9).reasons == {}


def test_what_the_kubeconfig_and_the_server_lack_is_said(cluster, tmp_path, monkeypatch):
    cluster.status = 403
    with pytest.raises(InputError, match=r"this login may not list pods \(403\)$"):
        look()
    cluster.status = 500
    with pytest.raises(InputError, match="Kubernetes: list of pods: 500"):
        look()
    with pytest.raises(InputError, match=r"kubeconfig: .*nowhere"):
        kube.connect("nowhere", None)
    (tmp_path / "kubeconfig").write_text("clusters: 3\n")
    with pytest.raises(InputError, match="kubeconfig: "):
        kube.connect(None, None)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert kube.connect(None, None) is None


def test_a_server_that_is_gone(tmp_path, monkeypatch):
    with Kubernetes() as gone:
        monkeypatch.setenv("KUBECONFIG", str(gone.kubeconfig(tmp_path / "kubeconfig")))
        made = kube.connect(None, "team")
    with pytest.raises(InputError, match="Kubernetes does not answer: Connection refused"):
        made.pods("id")


@pytest.mark.parametrize(
    ("states", "reasons", "expected"),
    [
        ({}, {"make": "x"}, {"make": "x", "double@a": "after make", "double@b": "after make",
                             "join": "after double@a and 1 more"}),
        ({"make": "failed"}, {},
         dict.fromkeys(["double@a", "double@b", "join"], "make failed, whose outputs it needs")),
        ({"make": "succeeded", "double@a": "running"}, {"double@a": "OOMKilled", "double@b": "y"},
         {"double@a": "OOMKilled", "double@b": "y", "join": "after double@a and 1 more"}),
        ({"make": "succeeded", "double@a": "retrying", "double@b": "succeeded"}, {},  {"join": "after double@a"}),
        ({"make": "succeeded"}, {}, {"double@a": "its pod has not started; see: kubectl get events -n team",
                                     "double@b": "its pod has not started; see: kubectl get events -n team",
                                     "join": "after double@a and 1 more"}),
    ],
)  # fmt: skip
def test_every_stage_that_has_not_begun_has_a_reason(states, reasons, expected):
    ups = {"make": [], "double@a": ["make"], "double@b": ["make"], "join": ["double@a", "double@b"]}
    fared = {name: {"state": states.get(name, "waiting")} for name in ups}
    assert waiting.explained({"ups": ups, "namespace": "team"}, fared, reasons) == expected


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("waiting")
    with toy.served(folder) as (_, patch):
        root = toy.checkout(folder / "checkout")
        patch.chdir(root)
        yield root


@pytest.fixture
def api():
    with Api() as serving:
        serving.token = TOKEN
        yield serving
        assert serving.wrong == []


def stuck(cluster: Kubernetes, api: Api, ended: bool = False):
    """What stands for a run whose first stage no node takes."""

    def run(*_: object) -> bool:
        (run_id,) = api.runs
        cluster.pods = [pod("p", run_id, "make", space="kubeflow", **unplaced(NO_GPU))]
        return not ended and api._closing.wait(30)

    return run


def test_a_run_that_cannot_go_on_is_left_with_the_reason(world, api, cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(follow, "_ASK", 0.0)
    api.run = stuck(cluster, api)
    with pytest.raises(InputError) as caught:
        followed(api, tmp_path, monkeypatch, capsys, patience=0.3)
    said = str(caught.value).splitlines()
    run = re.match(rf"run (\S+): make cannot start: Unschedulable: {re.escape(NO_GPU)}$", said[0]).group(1)
    assert len(said) == 3 and "(--patience)" in said[1] and said[2].endswith(f"gradworks runs show {run}")
    printed = capsys.readouterr().out
    assert printed.count(f"make: waits: Unschedulable: {NO_GPU}   [0 of 4]") == 1
    # `runs show` asks itself, and says what was last seen where it cannot
    places = Places(toy.REMOTE)
    for asked in (lambda told: history.ask(told, None, None), lambda _: {}):
        shown = history.shown(places, run, asked=asked)
        assert re.search(rf"^make +waiting +Unschedulable: {re.escape(NO_GPU)}$", shown, re.MULTILINE)
        assert re.search(r"^join +waiting +after double@a and 1 more$", shown, re.MULTILINE)
        with pytest.raises(InputError, match=rf"no log of make: Unschedulable: {re.escape(NO_GPU)}\n"):
            history.log(places, run, "make", asked)
        assert f"why: Unschedulable: {NO_GPU}" in history.shown(places, run, "make", asked)


@pytest.mark.slow("waits")
def test_a_run_that_goes_on_is_not_left(world, api, cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(follow, "_ASK", 0.0)

    def run(ir: str, parameters: dict) -> bool:
        (run_id,) = api.runs
        cluster.pods = [pod("p", run_id, "make", space="kubeflow", **unplaced(NO_GPU)),
                        pod("q", run_id, "join", space="kubeflow", phase="Running")]  # fmt: skip
        api._closing.wait(1)
        return pods({name: well() for name in ("make", "double@a", "double@b", "join")})(ir, parameters)

    api.run = run
    assert "succeeded: 4 stages" in followed(api, tmp_path, monkeypatch, capsys, patience=0.2)[-2]


def test_a_stage_that_never_began_has_kubernetes_reason_at_the_end(world, api, cluster, tmp_path, monkeypatch, capsys):
    api.run = stuck(cluster, api, ended=True)
    api.tasks = [{"display_name": "make", "state": "FAILED", "error": {"code": 13, "message": "No more retries left"}}]
    with pytest.raises(InputError, match=rf"failed: make: Unschedulable: {re.escape(NO_GPU)}\nstatus: "):
        followed(api, tmp_path, monkeypatch, capsys)


def test_kubeflows_own_word_stays_where_there_is_no_kubeconfig(world, api, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    api.run = lambda *_: False
    api.tasks = [
        {
            "display_name": "make -> double@a",
            "state": "FAILED",
            "error": {"code": 13, "message": "No more retries left"},
        }
    ]
    with pytest.raises(InputError, match="failed: make: No more retries left\n") as caught:
        followed(api, tmp_path, monkeypatch, capsys)
    run = str(caught.value).split()[1]
    assert re.search(r"^make +waiting +No more retries left$", history.shown(Places(toy.REMOTE), run), re.MULTILINE)


def test_a_kubeconfig_that_may_not_ask_is_said_once(world, api, cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(follow, "_ASK", 0.0)
    cluster.status = 403

    def run(ir: str, parameters: dict) -> bool:
        api._closing.wait(0.5)
        return pods({name: well() for name in ("make", "double@a", "double@b", "join")})(ir, parameters)

    api.run = run
    lines = followed(api, tmp_path, monkeypatch, capsys)
    assert [line for line in lines if "not known" in line] == [
        "why a stage waits is not known: Kubernetes: this login may not list pods (403)"
    ]


def test_the_profile_names_the_context(world, cluster, tmp_path, api, monkeypatch):
    cluster.kubeconfig(tmp_path / "kubeconfig", "team")
    read = profile(tmp_path, api, auth={"kubeContext": "nowhere", "tokenFile": str(tmp_path / "token")})
    from gradworks.cluster.profile import read as load

    api.runs["id"] = {"run_id": "id", "display_name": "r", "state": "RUNNING"}
    with pytest.raises(InputError, match=r"kubeconfig: .*nowhere"):
        history.ask({"run_id": "id"}, load(read), read)
