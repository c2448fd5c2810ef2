"""The part of the v2beta1 API that gradworks uses, as swagger: `python -m tests.cluster.swagger.derive` writes it.

kfp-server-api is generated from the swagger that its release publishes, and keeps of it every path, parameter, field
and value; this reads them back out of the installed one. See README.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("v2beta1.json")
OPERATIONS = (
    ("HealthzServiceApi", "healthz_service_get_healthz"),
    ("ExperimentServiceApi", "experiment_service_list_experiments"),
    ("ExperimentServiceApi", "experiment_service_create_experiment"),
    ("RunServiceApi", "run_service_create_run"),
    ("RunServiceApi", "run_service_get_run"),
    ("RecurringRunServiceApi", "recurring_run_service_create_recurring_run"),
    ("RecurringRunServiceApi", "recurring_run_service_delete_recurring_run"),
    ("PipelineServiceApi", "pipeline_service_list_pipelines"),
    ("PipelineServiceApi", "pipeline_service_create_pipeline"),
    ("PipelineServiceApi", "pipeline_service_delete_pipeline"),
    ("PipelineServiceApi", "pipeline_service_list_pipeline_versions"),
    ("PipelineUploadServiceApi", "upload_pipeline_version"),
)
_PLAIN = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "datetime": {"type": "string", "format": "date-time"},
    "object": {"type": "object"},
    "file": {"type": "file"},
}


class _Seen:
    """Stands for an ApiClient and keeps what would be asked."""

    client_side_validation = True

    def select_header_accept(self, accepts: list[str]) -> str:
        return accepts[0]

    select_header_content_type = select_header_accept

    def call_api(self, path: str, method: str, path_params: dict, query_params: list, *_: Any, **more: Any) -> None:
        self.path, self.method, self.answer = path, method.lower(), more["response_type"]
        self.places = {**dict.fromkeys(path_params, "path"), **{name: "query" for name, _ in query_params}}
        self.places |= dict.fromkeys(more.get("files") or {}, "formData")


def swagger() -> dict[str, Any]:
    """The document."""
    import kfp_server_api

    definitions: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for service, name in OPERATIONS:
        seen = _Seen()
        operation = getattr(getattr(kfp_server_api, service)(seen), name)
        taken = operation.__doc__.partition(":param async_req")[0]
        types = dict(re.findall(r":type (\w+): (.+)", taken))
        required = set(re.findall(r":param (\w+):.*\(required\)", taken))
        operation(**dict.fromkeys(types, "x"))
        parameters = []
        for parameter, kind in types.items():
            place = seen.places.get(parameter, "body")
            shape = _schema(kind, definitions)
            parameters.append(
                {"name": parameter, "in": place, "required": parameter in required}
                | ({"schema": shape} if place == "body" else shape)
            )
        answers = {"200": _schema(seen.answer, definitions), "default": _schema("GoogleRpcStatus", definitions)}
        paths.setdefault(seen.path, {})[seen.method] = {
            "operationId": name,
            "parameters": parameters,
            "responses": {code: {"schema": schema} for code, schema in answers.items()},
        }
    return {
        "swagger": "2.0",
        "info": {"title": "Kubeflow Pipelines API", "version": kfp_server_api.__version__},
        "paths": paths,
        "definitions": dict(sorted(definitions.items())),
    }


def _schema(kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type as kfp-server-api names it; a model's goes into `definitions`."""
    import kfp_server_api

    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if kind.startswith("list["):
        return {"type": "array", "items": _schema(kind[5:-1], definitions)}
    if kind.startswith("dict("):
        inner = kind[5:-1].partition(", ")[2]
        # a protobuf Value: any JSON
        return {"type": "object", "additionalProperties": True if inner == "object" else _schema(inner, definitions)}
    model = getattr(kfp_server_api, kind)
    if kind not in definitions:
        definitions[kind] = {}  # a model may hold itself
        values = getattr(model, "allowable_values", None)
        fields = {key: _schema(model.openapi_types[name], definitions) for name, key in model.attribute_map.items()}
        definitions[kind] = (
            {"type": "string", "enum": list(values)}
            if values
            else {"type": "object", "properties": fields, "additionalProperties": kind == "ProtobufAny"}
        )
    return {"$ref": f"#/definitions/{kind}"}


if __name__ == "__main__":
    FILE.write_text(json.dumps(swagger(), indent=1) + "\n")
