"""Check that a registry has an image, over its HTTP API; needs no Docker."""

from __future__ import annotations

import re
from typing import Any

_KINDS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1", "oci.image.manifest.v1", "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)  # fmt: skip
_PATIENCE = (10, 30)  # seconds to connect, to answer
_LOCAL = ("localhost", "127.")


def has(image: str) -> tuple[bool | None, str]:
    """Whether an image exists, and details; None where the registry does not tell.

    Args:
        image: REGISTRY/REPOSITORY:TAG, or with @DIGEST.
    """
    import requests

    host, repository, reference = parts(image)
    base = f"{'http' if host.startswith(_LOCAL) else 'https'}://{host}"  # Docker uses no TLS here either
    url, headers = f"{base}/v2/{repository}/manifests/{reference}", {"Accept": _KINDS}
    try:
        with requests.Session() as session:
            session.headers.update(headers)
            answer = session.head(url, timeout=_PATIENCE, allow_redirects=True)
            if answer.status_code == 401:
                answer = _with_token(session, answer, repository) or answer
                if answer.status_code in (401, 403):
                    return None, f"{host} wants a login"
    except requests.RequestException as error:
        return None, f"{host} did not answer ({type(error).__name__})"
    if answer.status_code == 200:
        return True, answer.headers.get("Docker-Content-Digest", "")[:19]
    if answer.status_code == 404:
        return False, f"{host} does not have it"
    return None, f"{host} answered {answer.status_code}"


def parts(image: str) -> tuple[str, str, str]:
    """Host, repository and tag or digest of an image, by Docker's rules."""
    name, at, digest = image.partition("@")
    head, _, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    name = f"{head}/{last}" if head else last
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        host, repository = "registry-1.docker.io", name if slash else f"library/{name}"
    else:
        host, repository = first, rest
    return host, repository, digest if at else tag or "latest"


def _with_token(session: Any, refused: Any, repository: str) -> Any:
    """Retry with an anonymous token, where the registry offers one."""
    challenge = refused.headers.get("WWW-Authenticate", "")
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if not challenge.lower().startswith("bearer ") or "realm" not in asked:
        return None
    scope = {"service": asked.get("service", ""), "scope": asked.get("scope", f"repository:{repository}:pull")}
    given = session.get(asked["realm"], params=scope, timeout=_PATIENCE)
    if given.status_code != 200:
        return None
    answer = given.json()
    session.headers["Authorization"] = f"Bearer {answer.get('token') or answer.get('access_token')}"
    return session.head(refused.url, timeout=_PATIENCE, allow_redirects=True)
