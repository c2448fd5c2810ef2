"""A stage of several nodes: its pod creates a TrainJob of Kubeflow Trainer, follows it and removes it.

The TrainJob's pods run the same program as any pod, on the stage and code of this run. The first node pushes what the
stage made, and this pod restores it from the run cache. Rendezvous, scheduling and queueing are Trainer's and Kueue's;
the request but for names is made when the pipeline is compiled (cluster/trainjob.py). After a refusal or a failure no
TrainJob is left, and one whose pod was lost goes with it, or with the next try.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gradworks.base.errors import InputError
from gradworks.pod.kubernetes import Api, Away, Refused

REQUEST = "GRADWORKS_TRAINJOB"  # the TrainJob, JSON
FIELDS = {  # of this pod
    "GRADWORKS_POD": "metadata.name", "GRADWORKS_POD_UID": "metadata.uid",
    "GRADWORKS_ACCOUNT": "spec.serviceAccountName", "GRADWORKS_RUN_ID": "metadata.labels['pipeline/runid']",
}  # fmt: skip
NODE = "node"  # name of Trainer's replicated job and of its container
QUEUE = "kueue.x-k8s.io/queue-name"
_GROUP, _KUEUE = "/apis/trainer.kubeflow.org/v1alpha1", "/apis/kueue.x-k8s.io"
_LOOK = 5.0  # seconds between two questions
_PATIENCE = 300.0  # seconds without an answer
_GONE, _EARLIER = 20.0, 120.0  # seconds for its pods to end: this one has 30 itself, where it was asked to stop
_PASSING = (401, 408, 429)  # while it is followed: a token is replaced, a server is busy


def request(values: dict[str, Any], stage: str, count: int) -> dict[str, Any]:
    """The TrainJob of a stage.

    Args:
        values: the parameters of the stage's pod, which those of the nodes get.
        stage: its name; count: of nodes.

    Raises:
        InputError: the pipeline was compiled without one.
    """
    if not os.environ.get(REQUEST) or not values.get("code"):
        raise InputError(
            f"{stage}: meta.resources.nodes: found {count}, and a pod without {REQUEST}\n"
            "several nodes are a TrainJob of Kubeflow Trainer: gradworks submit --cluster"
        )
    made = json.loads(os.environ[REQUEST])
    key = hashlib.sha256(json.dumps([values["run"], values["pipeline"], stage]).encode()).hexdigest()[:10]
    part = re.sub(r"[^a-z0-9]+", "-", stage.lower())[:24].strip("-")
    labels = {"gradworks.org/stage": key, "pipeline/runid": os.environ.get("GRADWORKS_RUN_ID")}
    labels = {name: value for name, value in labels.items() if value}
    made["metadata"] = {
        "name": f"gw-{part}-{key}",
        "labels": {**made.get("metadata", {}).get("labels", {}), **labels},
        "annotations": {"gradworks.org/run": values["run"], "gradworks.org/stage": stage},
    }
    owner = {"name": os.environ.get("GRADWORKS_POD"), "uid": os.environ.get("GRADWORKS_POD_UID")}
    if all(owner.values()):
        made["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", **owner}]
    boot = Path(__file__).with_name("boot.py").read_text()
    own = {"inputs": {"parameterValues": {**values, NODE: "true"}}}
    made["spec"]["trainer"] |= {"command": ["python3", "-c", boot], "args": [json.dumps(own)]}
    pod = made["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    pod = pod["template"]["spec"]["template"]
    pod["metadata"] = {"labels": labels}
    if os.environ.get("GRADWORKS_ACCOUNT"):
        pod["spec"]["serviceAccountName"] = os.environ["GRADWORKS_ACCOUNT"]
    return made


class Job:
    """A TrainJob, from before it is made until it is gone.

    Args:
        api: of the cluster; request: see `request`.
        failed: what a node said before it failed, "" if none has.
        stopped: whether this pod was asked to stop.
    """

    def __init__(
        self, api: Api, request: dict[str, Any], failed: Callable[[], str], stopped: Callable[[], bool]
    ) -> None:  # fmt: skip
        self._api, self._request, self._failed, self._stopped = api, request, failed, stopped
        self.name = request["metadata"]["name"]
        self._all = f"{_GROUP}/namespaces/{quote(api.namespace)}/trainjobs"
        self._own, self._said = f"{self._all}/{self.name}", ""
        self._made: dict[str, Any] = {}  # uid and creationTimestamp of the one that this pod made

    def run(self) -> bool:
        """Create it, follow it to its end, remove it; False where this pod was asked to stop.

        Raises:
            InputError: it was refused, a node failed, it was lost sight of; says so in a line.
        """
        self._queue()
        try:
            self._remove(_EARLIER)  # of an earlier try, whose pod was killed
            self._made = self._api.ask("POST", self._all, self._request).get("metadata", {})
        except Refused as error:
            if error.status == 409:
                raise InputError(f"TrainJob {self.name}: another pod has made one\nexpected one pod a stage") from None
            if error.status >= 500:  # it may have been made
                self._leave(self._words(error))
            raise InputError(self._words(error)) from None
        except Away as error:
            self._leave(f"Kubernetes does not answer: {error}")
        try:
            done = self._follow()
        except BaseException as error:
            self._leave(str(error) if isinstance(error, InputError) else "")
            raise
        self._leave("")
        return done

    def _queue(self) -> None:
        """Raises InputError where there is no such queue: the TrainJob would wait for ever."""
        name = self._request["metadata"]["labels"].get(QUEUE)
        if not name:
            return
        space, said = self._api.namespace, "and no Kueue in the cluster\nexpected Kueue, or no queue in the profile"
        try:
            version = self._api.ask("GET", _KUEUE)["preferredVersion"]["version"]
            said = f"which namespace {space} does not have\nexpected one of: kubectl get localqueues -n {space}"
            self._api.ask("GET", f"{_KUEUE}/{version}/namespaces/{quote(space)}/localqueues/{quote(name)}")
        except Refused as error:
            if error.status == 404:
                raise InputError(f"queue: found {name!r}, {said}") from None
            if error.status == 401:
                raise InputError(self._words(error)) from None
        except (Away, KeyError):
            pass  # what follows says so

    def _follow(self) -> bool:
        since = None
        while not self._stopped():
            try:
                if self._ended(self._api.ask("GET", self._own)):
                    return True
                self._refused_pods()
                since = None
            except (Refused, Away) as error:
                if isinstance(error, Refused) and error.status < 500 and error.status not in _PASSING:
                    raise InputError(self._words(error)) from None
                since = since or time.monotonic()
                if time.monotonic() - since > _PATIENCE:
                    words = self._words(error) if isinstance(error, Refused) else f"Kubernetes does not answer: {error}"
                    raise InputError(words) from None
            until = time.monotonic() + _LOOK
            while time.monotonic() < until and not self._stopped():
                time.sleep(min(0.2, _LOOK))
        return False

    def _ended(self, found: dict[str, Any]) -> bool:
        """Whether it is complete. Raises InputError where it, or a node, has failed."""
        if found.get("metadata", {}).get("uid") != self._made.get("uid"):
            raise InputError(f"TrainJob {self.name}: another pod of this stage has replaced it")
        conditions = {one["type"]: one for one in found.get("status", {}).get("conditions", [])}
        true = {kind: one for kind, one in conditions.items() if one.get("status") == "True"}
        if "Complete" in true:
            return True
        if said := self._failed():
            raise InputError(f"{self._killed()}{said}")
        if "Failed" in true:
            said = " ".join(f"{true['Failed'].get('reason')}: {true['Failed'].get('message')}".split())
            raise InputError(f"{self._killed()}TrainJob {self.name} failed: {said[:300]}")
        jobs = {one.get("name"): one for one in found.get("status", {}).get("jobsStatus", [])}
        waits = "Suspended" in true or found.get("spec", {}).get("suspend")
        running = "runs" if jobs.get(NODE, {}).get("ready") else "starts"
        self._say("waits: suspended, as by its queue" if waits else running)
        return False

    def _killed(self) -> str:
        """A line on the node that Kubernetes says was killed: the others saw no more than a lost connection; or ""."""
        query = quote(f"jobset.sigs.k8s.io/jobset-name={self.name}")
        path = f"/api/v1/namespaces/{quote(self._api.namespace)}/pods?labelSelector={query}"
        try:
            pods = self._api.ask("GET", path).get("items", [])
        except (Refused, Away):
            return ""
        for pod in pods:
            node = pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-completion-index", "?")
            for container in pod.get("status", {}).get("containerStatuses", []):
                for state in (container.get("state", {}), container.get("lastState", {})):
                    why = (state.get("terminated") or {}).get("reason")
                    if why not in (None, "Completed", "Error"):
                        return f"TrainJob {self.name}: node {node} was killed: {why}\n"
        return ""

    def _refused_pods(self) -> None:
        """Raises InputError where Kubernetes refuses the nodes' pods, which the TrainJob does not say."""
        where = f"involvedObject.name={self.name}-{NODE}-0,type=Warning"
        path = f"/api/v1/namespaces/{quote(self._api.namespace)}/events?fieldSelector={quote(where)}"
        try:
            events = self._api.ask("GET", path).get("items", [])
        except Refused:
            return  # may not list events: then nothing says so
        for event in events:
            said = " ".join(str(event.get("message")).split())[:300]
            at = str(event.get("lastTimestamp") or event.get("eventTime") or "")
            if event.get("reason") != "FailedCreate" or "forbidden" not in said:
                continue
            if at < str(self._made.get("creationTimestamp", "")):  # of an earlier try, whose name is the same
                continue
            if "exceeded quota" not in said:  # a quota gets free
                raise InputError(f"TrainJob {self.name}: its pods are refused: {said}")
            self._say(f"waits: {said}")

    def _say(self, said: str) -> None:
        if said != self._said:
            print(f"TrainJob {self.name} {said}", flush=True)
        self._said = said

    def _remove(self, longest: float = _GONE) -> None:
        """Remove it with its pods, and wait until they are gone: none but its own, once it is made.

        Raises:
            Refused, Away: it may be there still.
        """
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
        if self._made.get("uid"):
            body["preconditions"] = {"uid": self._made["uid"]}
        try:
            self._api.ask("DELETE", self._own, body)
            until = time.monotonic() + longest
            while time.monotonic() < until:
                self._api.ask("GET", self._own)
                time.sleep(0.2)
        except Refused as error:
            if error.status not in (404, 409):  # 409: another has its name
                raise

    def _leave(self, said: str) -> None:
        """Remove it; raises InputError with what was `said`, or that it could not be removed."""
        try:
            self._remove()
        except (Refused, Away) as error:
            left = f"left: kubectl delete trainjob {self.name} -n {self._api.namespace} ({error})"
            if not said:
                print(f"TrainJob {self.name}: {left}", flush=True)
            said = f"{said.splitlines()[0]}\n{left}" if said else ""
        if said:
            raise InputError(said) from None

    def _words(self, error: Refused) -> str:
        space, said = self._api.namespace, error.message
        if error.status == 401:
            return f"Kubernetes refuses the pod's token (401): {said}\nexpected one of a service account of {space}"
        if error.status == 403 and "cannot" in said and "admission webhook" not in said:
            return f"Kubernetes: {said} (403)\nexpected a Role for it in namespace {space}: pipelines/rbac.example.yaml"
        if error.status == 404 and self.name not in said:
            return (
                f"Kubernetes: no TrainJobs in namespace {space} (404): {said}\nexpected Kubeflow Trainer, 2.2 or newer"
            )
        if error.status == 404:
            return f"TrainJob {self.name}: was deleted while it ran"
        return f"Kubernetes refuses the TrainJob ({error.status}): {said}"
