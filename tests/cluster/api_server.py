"""An API server of Kubeflow Pipelines over real HTTP: requests have to be as the swagger says, and so are its answers.

A run's pipeline is handed to a function as pods would see it (backend.py), which runs it in containers where a test
wants that. Told to, it refuses, sends to a login page, hangs, or answers as something else would that stands in front.
"""

from __future__ import annotations

import datetime
import json
import re
import ssl
import threading
import uuid
from collections.abc import Callable
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from jsonschema import Draft202012Validator

from tests.cluster import backend
from tests.cluster.swagger import derive

SWAGGER = json.loads(derive.FILE.read_text())
PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"  # by which Kubernetes' own API leads to it
CODES = {400: 3, 401: 16, 403: 7, 404: 5, 500: 13}  # of gRPC
LOGIN = b"<html><form action=/login><input type=password></form></html>"
PAGES = {  # what stands in front of it answers: status, headers, body
    "login redirect": (302, {"Location": "https://dex.example.org/auth?client_id=x&state=secret"}, b"Found"),
    "moved": (308, {"Location": "https://new.example.org/pipeline/apis/v2beta1/healthz"}, b""),
    "login page": (200, {"Content-Type": "text/html"}, LOGIN),
    "dashboard": (200, {"Content-Type": "text/html"}, b"<html>Kubeflow Central Dashboard</html>"),
    "no route": (404, {"Content-Type": "text/html"}, b"<html>default backend - 404</html>"),
    "gateway": (503, {"Content-Type": "text/plain"}, b"upstream connect error"),
    "mesh": (403, {"Content-Type": "text/plain"}, b"RBAC: access denied"),
}


class Refusal(Exception):
    """status, message"""


class Api:
    """`with Api(run) as api:` serves at `api.url` while the block runs.

    Args:
        run: gets a run's pipeline (YAML, one or two documents) and parameters; whether it went well.
        tls: certificate and key, for https.

    Attributes:
        wrong: requests and answers that are not as the swagger says; a test looks that it is empty.
        asked: "GET /runs/{run_id}", ... in order.
        runs, schedules (recurring runs), pipelines: by id, as the API shows them; versions: of pipelines.
        bodies: of POST requests.
        spaces: namespaces that the login may use; None = an installation for one user.
        token, cookie: that a request has to have.
        page: the name of one of PAGES, "hang" or "echo", which every request gets instead.
        tasks: shown as the details of a run's tasks.
    """

    def __init__(
        self, run: Callable[[str, dict[str, Any]], bool] = lambda *_: True, tls: tuple[str, str] | None = None
    ) -> None:
        self.run, self.wrong, self.asked, self.bodies = run, [], [], []
        self.runs: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: list[dict[str, Any]] = []
        self.tasks: list[dict[str, Any]] = []
        self.spaces: set[str] | None = None
        self.token = self.cookie = self.page = None
        self._closing, self._threads = threading.Event(), []
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Api:
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        for thread in (self._serving, *self._threads):
            thread.join()
        self._server.server_close()

    # operations
    def healthz_service_get_healthz(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"multi_user": self.spaces is not None, "pipeline_store": "database"}

    def experiment_service_list_experiments(self, given: dict[str, Any]) -> dict[str, Any]:
        self._allowed(given.get("namespace"))
        wanted = {p["stringValue"] for p in json.loads(given.get("filter") or "{}").get("predicates", [])}
        found = [
            one
            for one in self.experiments.values()
            if (not wanted or one["display_name"] in wanted) and one["namespace"] == (given.get("namespace") or "")
        ]
        return {"experiments": found, "total_size": len(found)} if found else {}

    def experiment_service_create_experiment(self, given: dict[str, Any]) -> dict[str, Any]:
        body = given["experiment"]
        self._allowed(body.get("namespace"))
        made = {"experiment_id": str(uuid.uuid4()), "created_at": _now(), "namespace": "", **body}
        self.experiments[made["experiment_id"]] = made
        return made

    def run_service_create_run(self, given: dict[str, Any]) -> dict[str, Any]:
        body = given["run"]
        if body.get("experiment_id") not in self.experiments:
            raise Refusal(400, f"no experiment {body.get('experiment_id')}")
        made = {**body, "run_id": str(uuid.uuid4()), "created_at": _now(), "state": "PENDING"}
        self.runs[made["run_id"]] = made
        self._threads.append(threading.Thread(target=self._execute, args=(made,)))
        self._threads[-1].start()
        return made

    def run_service_get_run(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["run_id"] not in self.runs:
            raise Refusal(404, f"run {given['run_id']} not found")
        return {**self.runs[given["run_id"]], "run_details": {"task_details": list(self.tasks)}}

    def recurring_run_service_create_recurring_run(self, given: dict[str, Any]) -> dict[str, Any]:
        body = given["recurring_run"]
        if body.get("experiment_id") not in self.experiments:
            raise Refusal(400, f"no experiment {body.get('experiment_id')}")
        made = {**body, "recurring_run_id": str(uuid.uuid4()), "created_at": _now(), "status": "ENABLED"}
        self.schedules[made["recurring_run_id"]] = made
        return made

    def recurring_run_service_delete_recurring_run(self, given: dict[str, Any]) -> dict[str, Any]:
        if self.schedules.pop(given["recurring_run_id"], None) is None:
            raise Refusal(404, f"recurring run {given['recurring_run_id']} not found")
        return {}

    def pipeline_service_list_pipelines(self, given: dict[str, Any]) -> dict[str, Any]:
        self._allowed(given.get("namespace"))
        (wanted,) = (p["stringValue"] for p in json.loads(given["filter"])["predicates"])
        found = [one for one in self.pipelines.values() if one["display_name"] == wanted]
        return {"pipelines": found, "total_size": len(found)} if found else {}

    def pipeline_service_create_pipeline(self, given: dict[str, Any]) -> dict[str, Any]:
        body = given["pipeline"]
        self._allowed(body.get("namespace"))
        made = {**body, "pipeline_id": str(uuid.uuid4()), "created_at": _now()}
        self.pipelines[made["pipeline_id"]] = made
        return made

    def pipeline_service_delete_pipeline(self, given: dict[str, Any]) -> dict[str, Any]:
        del self.pipelines[given["pipeline_id"]]
        return {}

    def pipeline_service_list_pipeline_versions(self, given: dict[str, Any]) -> dict[str, Any]:
        found = [one for one in self.versions if one["pipeline_id"] == given["pipeline_id"]]
        return {"pipeline_versions": found[:1], **({"next_page_token": "2"} if len(found) > 1 else {})} | (
            {"pipeline_versions": found[1:], "next_page_token": ""} if given.get("page_token") else {}
        )

    def upload_pipeline_version(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["pipelineid"] not in self.pipelines:
            raise Refusal(404, f"pipeline {given['pipelineid']} not found")
        spec, platform = [*yaml.safe_load_all(given["uploadfile"]), None][:2]
        made = {
            "pipeline_id": given["pipelineid"], "pipeline_version_id": str(uuid.uuid4()), "created_at": _now(),
            "display_name": given["name"], "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform},
        }  # fmt: skip
        self.versions.append(made)
        return made

    def _allowed(self, space: str | None) -> None:
        if self.spaces is not None and not space:
            raise Refusal(400, "Namespace is empty. Please specify a valid namespace")
        if self.spaces is not None and space not in self.spaces:
            raise Refusal(403, f"User 'ann' is not authorized with reason: no list in namespace {space}")

    def _execute(self, run: dict[str, Any]) -> None:
        run["state"], spec = "RUNNING", run["pipeline_spec"]
        whole = "platform_spec" in spec
        documents = [backend.seen(spec["pipeline_spec"] if whole else spec), *([spec["platform_spec"]] * whole)]
        try:
            well = self.run(yaml.safe_dump_all(documents, sort_keys=False), run["runtime_config"]["parameters"])
        except Exception as error:
            self.wrong.append(f"the run ended with {error!r}")
            well = False
        if run["state"] == "RUNNING":
            run |= {"state": "SUCCEEDED" if well else "FAILED", "finished_at": _now()}

    def answer(self, method: str, url: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.page == "hang":
            self._closing.wait(5)
            raise ConnectionAbortedError
        if self.page == "echo":
            said = f"bad login: {headers.get('Authorization')} {headers.get('Cookie')}"
            return 401, {}, said.encode()
        if self.page:
            return PAGES[self.page]
        try:
            if self.token and headers.get("Authorization") != f"Bearer {self.token}":
                raise Refusal(401, "Request header error: there is no user identity header.")
            if self.cookie and headers.get("Cookie") != self.cookie:
                raise Refusal(401, "Request header error: there is no user identity header.")
            operation, given = self._checked(method, url, body, headers.get("Content-Type"))
            status, told = 200, getattr(self, operation["operationId"])(given)
            schema = operation["responses"]["200"]["schema"]
        except Refusal as refusal:
            status, message = refusal.args
            told, schema = {"code": CODES[status], "message": message}, {"$ref": "#/definitions/GoogleRpcStatus"}
        self.wrong += [f"answer to {method} {url}: {said}" for said in _violations(told, schema)]
        return status, {"Content-Type": "application/json"}, json.dumps(told).encode()

    def _checked(
        self, method: str, url: str, body: bytes, kind: str | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The operation that a request means, and its parameters; refused where the swagger does not have it so."""
        parts = urlsplit(url)
        path = re.sub("/+", "/", parts.path).removeprefix(PROXY)
        for template, operations in SWAGGER["paths"].items():
            fits = re.fullmatch(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(template)), path)
            if fits and method.lower() in operations:
                break
        else:
            raise self._wrong(f"{method} {path}: no such operation", 404)
        self.asked.append(f"{method} {template.removeprefix('/apis/v2beta1')}")
        operation = operations[method.lower()]
        given: dict[str, Any] = dict(fits.groupdict())
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        known = {one["name"]: one for one in operation["parameters"]}
        for name, value in query.items():
            if known.get(name, {}).get("in") != "query":
                raise self._wrong(f"{method} {path}: unknown parameter {name}")
            if known[name]["type"] == "integer" and not re.fullmatch(r"-?\d+", value):
                raise self._wrong(f"{method} {path}: {name}: {value!r} is no integer")
        for one in known.values():
            if one["in"] == "formData":
                form = message_from_bytes(f"Content-Type: {kind}\n\n".encode() + body)
                sent = {part.get_param("name", header="content-disposition"): part for part in form.walk()}
                if one["name"] not in sent:
                    raise self._wrong(f"{method} {path}: no file {one['name']} in the form")
                given[one["name"]] = sent[one["name"]].get_payload(decode=True).decode()
            if one["in"] == "body":
                given[one["name"]] = json.loads(body or b"null")
                for said in _violations(given[one["name"]], one["schema"]):
                    raise self._wrong(f"{method} {path}: {said}")
                self.bodies.append(given[one["name"]])
        return operation, given | query

    def _wrong(self, said: str, status: int = 400) -> Refusal:
        self.wrong.append(said)
        return Refusal(status, said)


def _violations(value: Any, schema: dict[str, Any]) -> list[str]:
    validator = Draft202012Validator({**schema, "definitions": SWAGGER["definitions"]})
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(value)]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


class _Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, told = self.api.answer(self.command, self.path, self.headers, body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    do_GET = do_POST = do_DELETE = do_HEAD = _any

    def log_message(self, *_: Any) -> None:
        pass
