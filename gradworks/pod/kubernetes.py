"""Kubernetes' API as a pod asks it: with the token of its service account, by the standard library alone."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError

FOLDER = "GRADWORKS_SERVICE_ACCOUNT"  # where a cluster mounts token, ca.crt and namespace elsewhere
_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_TIMEOUT = 15.0  # seconds


class Refused(Exception):
    """The API answered, with another status than one of success.

    Attributes:
        status: of HTTP; message: Kubernetes' own.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class Away(Exception):
    """The API did not answer; the text says why."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would take the token along."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Api:
    """The API of the cluster that this pod runs in.

    Args:
        url: of it.
        folder: of the service account: token, ca.crt, namespace.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self.namespace = (folder / "namespace").read_text().strip()
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        # no proxy: HTTPS_PROXY of a pod is for what lies outside the cluster
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _Stay()
        ).open

    @classmethod
    def here(cls) -> Api:
        """That of this pod. Raises InputError where it is none, or has no service account."""
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        folder = Path(os.environ.get(FOLDER) or _MOUNT)
        if not host:
            raise InputError("several nodes: found no KUBERNETES_SERVICE_HOST\nexpected a pod: submit it to a cluster")
        try:
            return cls(f"https://{f'[{host}]' if ':' in host else host}:{port or 443}", folder)
        except OSError as error:
            said = f"{folder}: {error.strerror or error}"
            raise InputError(f"several nodes: {said}\nexpected the pod's service account, mounted there") from None

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            Refused: with a status from 400.
            Away: no answer, or none of Kubernetes'.
        """
        try:
            token = (self._folder / "token").read_text().strip()  # each time: the kubelet replaces it before it expires
            request = urllib.request.Request(  # noqa: S310
                self._url + path, method=method, data=None if body is None else json.dumps(body).encode(),
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            )  # fmt: skip
            with self._open(request, timeout=_TIMEOUT) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(error.code, _message(error)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Away(" ".join(str(getattr(error, "reason", None) or error).split())[:150]) from None
        return found if isinstance(found, dict) else {}


def _message(error: urllib.error.HTTPError) -> str:
    """What Kubernetes' `Status` says, on one line."""
    try:
        said = json.loads(error.read())["message"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        said = error.reason
    return " ".join(str(said).split())[:400]
