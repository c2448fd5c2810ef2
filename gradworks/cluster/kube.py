"""The Kubernetes API, through this machine's kubeconfig: why a pod waits, and what nodes offer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError

_TIMEOUT = (3.0, 15.0)  # seconds to connect, to read


class Kube:
    """Read-only queries to Kubernetes.

    Args:
        core: a kubernetes.client.CoreV1Api; namespace: of the runs.
    """

    def __init__(self, core: Any, namespace: str) -> None:
        self._core, self.namespace = core, namespace

    def pods(self, run_id: str) -> list[Any]:
        """The pods of a run, by Kubeflow's label, oldest first. Raises InputError."""
        with _in_words("pods"):
            found = self._core.list_namespaced_pod(
                self.namespace, label_selector=f"pipeline/runid={run_id}", _request_timeout=_TIMEOUT
            )
        return sorted(found.items, key=lambda pod: pod.metadata.creation_timestamp)

    def warnings(self) -> list[Any]:
        """Warning events of the namespace, oldest first. Raises InputError."""
        with _in_words("events"):
            found = self._core.list_namespaced_event(
                self.namespace, field_selector="type=Warning", _request_timeout=_TIMEOUT
            )
        return sorted(found.items, key=lambda event: str(event.last_timestamp or event.event_time or ""))

    def groups(self) -> set[str]:
        """The groups of its API: which extensions are installed. Raises InputError."""
        from kubernetes import client

        with _in_words("groups of the API"):
            found = client.ApisApi(self._core.api_client).get_api_versions(_request_timeout=_TIMEOUT)
        return {one.name for one in found.groups}

    def nodes(self) -> list[Any]:
        """The nodes. Raises InputError."""
        with _in_words("nodes"):
            return self._core.list_node(_request_timeout=_TIMEOUT).items


def connect(context: str | None, namespace: str | None) -> Kube | None:
    """Connect by the kubeconfig; None where this machine has none. Makes no request yet.

    Args:
        context: of the kubeconfig; none = its current one.
        namespace: none = Kubeflow's own, which holds the runs of a single-user installation.

    Raises:
        InputError: the kubeconfig is not valid, or has no such context.
    """
    if not any(Path(one).expanduser().is_file() for one in _files()):
        return None
    from kubernetes import client, config

    settings = type.__call__(client.Configuration)
    settings.retries = 0
    try:
        files = os.pathsep.join(_files())  # the library reads the variable at import only
        config.load_kube_config(files, context, client_configuration=settings, persist_config=False)
    except Exception as error:  # any content is possible, and the library has no common error class
        said = " ".join(str(error).split())[:150]
        raise InputError(f"kubeconfig: {said}\nexpected a context that works: kubectl config get-contexts") from None
    return Kube(client.CoreV1Api(client.ApiClient(settings)), namespace or "kubeflow")


def _files() -> list[str]:
    return [one for one in os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep) if one]


@contextlib.contextmanager
def _in_words(what: str) -> Iterator[None]:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        if error.status in (401, 403):
            raise InputError(f"Kubernetes: this login may not list {what} ({error.status})") from None
        raise InputError(f"Kubernetes: list of {what}: {error.status} {error.reason}") from None
    except (HTTPError, OSError, ValueError) as error:
        said = " ".join(str(getattr(error, "reason", None) or error).split()).rpartition("] ")[2]
        raise InputError(f"Kubernetes does not answer: {said[:150]}") from None
