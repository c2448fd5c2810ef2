"""The lists of Kubernetes' own API over real HTTP, for the real client: pods and events of a namespace, nodes."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

NOW = "2026-11-26T10:00:00Z"


class Kubernetes:
    """`with Kubernetes() as cluster:` serves while the block runs.

    Attributes:
        pods, events, nodes: as the API has them; a test sets them. groups: of its API.
        status: answers every request where it is not 200; asked: paths with their queries.
    """

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.nodes: list[dict[str, Any]] = []
        self.groups: list[str] = []
        self.status, self.asked = 200, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, told = outer.answer(self.path)
                body = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        self.asked.append(path)
        if self.status != 200:
            return self.status, {"kind": "Status", "code": self.status, "reason": "Forbidden", "message": "no"}
        parts = urlsplit(path)
        asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/apis/":
            version = {"groupVersion": "x/v1", "version": "v1"}
            return 200, {"kind": "APIGroupList", "groups": [{"name": n, "versions": [version]} for n in self.groups]}
        if parts.path == "/api/v1/nodes":
            return 200, {"kind": "NodeList", "items": self.nodes}
        _, _, _, _, space, what = parts.path.split("/")
        items = {"pods": self.pods, "events": self.events}[what]
        items = [one for one in items if one["metadata"]["namespace"] == space]
        name, _, value = asked.get("labelSelector", "").partition("=")
        items = [one for one in items if not name or one["metadata"]["labels"].get(name) == value]
        if asked.get("fieldSelector") == "type=Warning":
            items = [one for one in items if one["type"] == "Warning"]
        return 200, {"kind": "List", "items": items}

    def __enter__(self) -> Kubernetes:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def kubeconfig(self, file: Path, context: str = "here") -> Path:
        """Write one that leads there."""
        file.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": context,
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": "planted-kube-token"}}],
            "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        }))  # fmt: skip
        return file


def pod(name: str, run_id: str, stage: str | None, *, at: str = NOW, node: str = "", space: str = "team",
        phase: str = "Pending", **status: Any) -> dict[str, Any]:  # fmt: skip
    """A pod as Kubeflow's driver makes it for a stage; stage None: one of Kubeflow's own."""
    given = {"inputs": {"parameterValues": {"run": "r", "stage": stage}}, "outputs": {}}
    command = [
        "/kfp-launcher/launch",
        "--run_id",
        run_id,
        "--executor_input",
        json.dumps(given),
        "--component_spec",
        "{}",
    ]
    return {
        "metadata": {
            "name": name, "namespace": space, "creationTimestamp": at,
            "labels": {"pipeline/runid": run_id, "workflows.argoproj.io/workflow": "gradworks-x7k2m"},
            "annotations": {"workflows.argoproj.io/node-name": node},
        },
        "spec": {"containers": [{"name": "main", "command": command if stage else ["driver"], "args": ["{{$}}"]}]},
        "status": {"phase": phase, **status},
    }  # fmt: skip


def unplaced(message: str) -> dict[str, Any]:
    """Of a pod's status."""
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}


def pulling(reason: str, message: str) -> dict[str, Any]:
    """Of a pod's status."""
    waiting = {"name": "main", "image": "r.example/x:1", "imageID": "", "ready": False, "restartCount": 0,
               "state": {"waiting": {"reason": reason, "message": message}}}  # fmt: skip
    return {"conditions": [{"type": "PodScheduled", "status": "True"}], "containerStatuses": [waiting]}


def event(kind: str, name: str, reason: str, message: str, *, at: str = NOW, node: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": f"{name}.{reason}", "namespace": "team",
                     "annotations": {"workflows.argoproj.io/node-name": node} if node else {}},
        "type": "Warning", "reason": reason, "message": message, "lastTimestamp": at,
        "involvedObject": {"kind": kind, "name": name, "namespace": "team"},
    }  # fmt: skip


def node(name: str, labels: dict[str, str], allocatable: dict[str, str], taints: list[dict[str, str]] | None = None,
         unschedulable: bool = False) -> dict[str, Any]:  # fmt: skip
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints or [], "unschedulable": unschedulable},
        "status": {"allocatable": allocatable},
    }
