"""Kubernetes' API with Kubeflow Trainer over real HTTPS: TrainJobs are checked against the CRD, and can be run here.

A TrainJob's nodes are processes of this machine with the variables that Trainer sets. As a Job would start a failed one
again, one that fails does not end the TrainJob. Told to, the server refuses, in the words of a real one.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jsonschema import Draft202012Validator

from tests.cluster.test_client import certificate
from tests.cluster.trainer import derive
from tests.telemetry.servers import free_port

SPACE, TOKEN = "team", "planted-account-token"
NOW = "2026-11-26T10:00:00Z"
_GROUP = "trainer.kubeflow.org"
RESERVED = {f"PET_{name}" for name in ("NNODES", "NPROC_PER_NODE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")}
Answer = tuple[int, Any]


def _closed(node: Any) -> Any:
    """A schema that refuses unknown fields, as the API does where it is asked to be strict."""
    if isinstance(node, list):
        return [_closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {key: _closed(value) for key, value in node.items()}
    if node.get("type") == "object" and isinstance(node.get("properties"), dict):
        made.setdefault("additionalProperties", False)
    return made


SCHEMA = _closed(json.loads(derive.FILE.read_text())["schema"])
SCHEMA["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own


def violations(job: dict[str, Any]) -> list[str]:
    """What the CRD and Trainer's webhook have against a TrainJob."""
    said = [f"{one.json_path}: {one.message[:200]}" for one in Draft202012Validator(SCHEMA).iter_errors(job)]
    name = job.get("metadata", {}).get("name", "")
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > 63:
        said.append(f"metadata.name: {name!r} is no label of DNS")
    for key, value in job.get("metadata", {}).get("labels", {}).items():
        if not re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value):
            said.append(f"metadata.labels.{key}: {value!r} is no value of a label")
    env = [one["name"] for one in job.get("spec", {}).get("trainer", {}).get("env", [])]
    said += [f"spec.trainer.env: must not have reserved envs: {name}" for name in RESERVED & set(env)]
    return said + [f"spec.trainer.env: {name}: twice" for name in set(env) if env.count(name) > 1]


class Trainer:
    """`with Trainer(folder) as cluster:` serves while the block runs; `folder` gets the files of a service account.

    Attributes:
        jobs: TrainJobs by name, as the API shows them; asked: "POST trainjobs", ... in order; wrong: of requests.
        refuses: (method, kind) -> status and message, in the place of an answer; token: that a request has to have.
        kueue: its version, "" = it is not there; queues: of it; events, pods: of the namespace.
        status: of a new TrainJob; late: it answers that it did not make in time what it has made.
        runs: environment of the nodes, None = they are not run; secrets: (name, key) -> value, for them.
        progress: that they reported; printed: what they printed, once they are gone.
    """

    def __init__(self, folder: Path) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self.refuses: dict[tuple[str, str], Answer] = {}
        self.queues, self.events, self.pods, self.token = {"team-queue"}, [], [], TOKEN
        self.progress: list[dict[str, Any]] = []
        self.secrets: dict[tuple[str, str], str] = {}
        self.runs: dict[str, str] | None = None
        self.status: dict[str, Any] = {}
        self.late, self.kueue = False, "v1beta2"
        self.printed: list[str] = []
        self._folder, self._nodes, self._lock = folder, {}, threading.RLock()
        self.account = folder / "account"
        self.account.mkdir(parents=True)
        authority = certificate(folder, "authority")
        certificate(folder, "server", authority)
        for name, text in (("token", TOKEN), ("namespace", SPACE), ("ca.crt", (folder / "authority.crt").read_text())):
            (self.account / name).write_text(text)
        handler = type("Handler", (_Handler,), {"cluster": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(folder / "server.crt"), str(folder / "server.key"))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]

    @property
    def environment(self) -> dict[str, str]:
        """Of a pod."""
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port),
                "GRADWORKS_SERVICE_ACCOUNT": str(self.account)}  # fmt: skip

    def __enter__(self) -> Trainer:
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.jobs):
            self._end(name)
        self._server.shutdown()
        self._serving.join()
        self._server.server_close()

    def condition(self, kind: str, reason: str = "", message: str = "") -> dict[str, Any]:
        return {"type": kind, "status": "True", "reason": reason or kind, "message": message,
                "lastTransitionTime": NOW}  # fmt: skip

    def answer(self, method: str, url: str, token: str, body: bytes) -> Answer:
        parts = urlsplit(url)
        kind, _, name = parts.path.partition(f"/namespaces/{SPACE}/")[2].partition("/")
        found = re.fullmatch(r"(.*)/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?(/status)?", parts.path)
        if parts.path == "/apis/kueue.x-k8s.io" and self.kueue:
            return 200, {"preferredVersion": {"version": self.kueue}}
        if not found:
            return 404, b"404 page not found"
        group, space, kind, name, status = found.groups()
        if status:
            return self._progress(name, token, json.loads(body))
        self.asked.append(f"{method} {kind}")
        if token != f"Bearer {self.token}":
            return 401, "Unauthorized"
        if (method, kind) in self.refuses:
            return self.refuses[method, kind]
        if space != SPACE:
            verb = {"POST": "create", "DELETE": "delete"}.get(method, "get")
            return 403, (f'{kind}.{_GROUP} is forbidden: User "system:serviceaccount:{SPACE}:gradworks" cannot {verb} '
                         f'resource "{kind}" in API group "{_GROUP}" in the namespace "{space}"')  # fmt: skip
        if kind == "localqueues" and group == f"/apis/kueue.x-k8s.io/{self.kueue}":
            return (200, {}) if name in self.queues else (404, f'localqueues.kueue.x-k8s.io "{name}" not found')
        if kind == "events":
            wanted = dict(one.split("=") for one in parse_qs(parts.query)["fieldSelector"][0].split(","))
            about = wanted["involvedObject.name"]
            return 200, {"items": [one for one in self.events if one["involvedObject"]["name"] == about]}
        if kind == "pods":
            assert parse_qs(parts.query)["labelSelector"][0].startswith("jobset.sigs.k8s.io/jobset-name=gw-")
            return 200, {"items": self.pods}
        if group != f"/apis/{_GROUP}/v1alpha1" or kind != "trainjobs":
            return 404, b"404 page not found"
        with self._lock:
            return self._trainjobs(method, name, json.loads(body or b"null"))

    def _trainjobs(self, method: str, name: str | None, body: Any) -> Answer:
        missing = 404, f'trainjobs.{_GROUP} "{name}" not found'
        if method == "POST":
            name = body["metadata"]["name"]
            if said := violations(body):
                self.wrong += said
                return 422, f'TrainJob.{_GROUP} "{name}" is invalid: {said[0]}'
            if name in self.jobs:
                return 409, f'trainjobs.{_GROUP} "{name}" already exists'
            own = {"uid": f"uid-{len(self.asked)}", "creationTimestamp": NOW}
            self.jobs[name] = {**body, "metadata": {**body["metadata"], **own}, "status": dict(self.status)}
            if self.runs is not None:
                self._begin(name)
            return (504, "context deadline exceeded") if self.late else (201, self.jobs[name])
        if name is None:
            return 200, {"items": list(self.jobs.values())}
        if name not in self.jobs:
            return missing
        if method == "DELETE":
            asked = body.get("preconditions", {}).get("uid")
            if asked and asked != self.jobs[name]["metadata"]["uid"]:
                return 409, f"Operation cannot be fulfilled: Precondition failed: UID in precondition: {asked}"
            self._end(name)
            return 200, {}
        self._look(name)
        return 200, self.jobs[name]

    def _progress(self, name: str, token: str, body: Any) -> Answer:
        """What Trainer's own server does with a report of a node."""
        if token != f"Bearer {TOKEN}-of-{name}":
            return 403, "Forbidden"
        status = body["trainerStatus"]
        job = {"metadata": {"name": name}, "spec": {"runtimeRef": {"name": "x"}}, "status": {"trainerStatus": status}}
        self.wrong += violations(job)
        self.progress.append(status)
        return 200, body

    def _begin(self, name: str) -> None:
        """Start its nodes, as Trainer, JobSet and Job do."""
        trainer, port = self.jobs[name]["spec"]["trainer"], free_port()
        own = {}
        for one in trainer["env"]:
            secret = one.get("valueFrom", {}).get("secretKeyRef")
            own[one["name"]] = self.secrets[secret["name"], secret["key"]] if secret else one["value"]
        nodes = []
        for rank in range(trainer["numNodes"]):
            given = {"PET_NNODES": trainer["numNodes"], "PET_NPROC_PER_NODE": trainer["numProcPerNode"],
                     "PET_NODE_RANK": rank, "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}  # fmt: skip
            work = self._folder / name / str(rank)
            work.mkdir(parents=True, exist_ok=True)
            (work / "token").write_text(f"{TOKEN}-of-{name}")
            url = f"https://127.0.0.1:{self.port}/apis/{_GROUP}/v1alpha1/namespaces/{SPACE}/trainjobs/{name}/status"
            for key, value in (("URL", url), ("CA_CERT", self.account / "ca.crt"), ("TOKEN", work / "token")):
                given[f"KUBEFLOW_TRAINER_SERVER_{key}"] = value
            environment = {**self.runs, **own, **{key: str(value) for key, value in given.items()}}
            nodes.append(subprocess.Popen(
                [sys.executable, *trainer["command"][1:], *trainer["args"]], cwd=work, start_new_session=True,
                env={**environment, "GRADWORKS_WORK": str(work / "code")}, stdout=(work / "out").open("w"),
                stderr=subprocess.STDOUT, text=True,
            ))  # fmt: skip
        self._nodes[name] = nodes

    def _look(self, name: str) -> None:
        """Its status by its nodes."""
        nodes = self._nodes.get(name)
        if nodes:
            codes = [one.poll() for one in nodes]
            count = {"name": "node", "ready": 1, "succeeded": 0, "failed": 0, "active": 1, "suspended": 0}
            self.jobs[name]["status"] = {"jobsStatus": [count]}
            if codes == [0] * len(nodes):
                self.jobs[name]["status"]["conditions"] = [self.condition("Complete", "JobsCompleted")]
        if status := self.jobs[name]["status"]:
            self.wrong += violations({"metadata": {"name": name}, "spec": self.jobs[name]["spec"], "status": status})

    def _end(self, name: str) -> None:
        """Remove it and its nodes: SIGTERM, and SIGKILL for those that do not end."""
        nodes = self._nodes.pop(name, [])
        for one in nodes:
            one.terminate()
        until = time.monotonic() + 20
        for one in nodes:
            try:
                one.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(one.pid, 9)
        self.printed += [(self._folder / name / str(rank) / "out").read_text() for rank in range(len(nodes))]
        del self.jobs[name]


class _Handler(BaseHTTPRequestHandler):
    cluster: Trainer
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, told = self.cluster.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
        if isinstance(told, str):
            told = {"kind": "Status", "status": "Failure", "code": status, "message": told}
        sent = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_DELETE = _any

    def log_message(self, *_: object) -> None:
        pass
