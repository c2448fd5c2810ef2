"""Clear errors for answers that do not come from the Kubeflow Pipelines API.

Every request of the client passes through here, with timeouts and without redirects. A login page, a refusal or an
unknown certificate becomes an error that names the endpoint, what was found there, and the profile key to change. It
never shows a token or cookie.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from gradworks.base.errors import InputError
from gradworks.cluster.login import Login

_CONNECT, _READ = 10.0, 60.0  # seconds
_API = "/apis/v2beta1"


class ApiError(InputError):
    """The API gave no usable answer.

    Attributes:
        about: what is wrong: the endpoint, login, namespace, or the request itself.
        passing: whether asking again later may help.
    """

    def __init__(self, said: str, about: str, passing: bool = False) -> None:
        super().__init__(said)
        self.about, self.passing = about, passing


class Answers:
    """Wraps the `request` of a urllib3 pool; raises an ApiError where the answer is not from the API.

    Args:
        login: of the profile.
        host: the API's address.
        ask: the pool's own `request`.
    """

    def __init__(self, login: Login, host: str, ask: Callable[..., Any]) -> None:
        self._login, self._host, self._ask = login, _shown(host), ask

    def __call__(self, method: str, url: str, timeout: Any = None, **more: Any) -> Any:
        from urllib3 import Retry, Timeout
        from urllib3.exceptions import HTTPError

        timeout = timeout or Timeout(connect=_CONNECT, read=_READ)
        try:
            answer = self._ask(method, url, timeout=timeout, redirect=False, retries=Retry(0), **more)
        except HTTPError as error:
            said = self._nothing(getattr(error, "reason", None) or error)
            raise ApiError(f"{self._host}: {said}", "endpoint", passing=True) from None
        if 300 <= answer.status < 400:
            raise self._redirected(answer)
        try:
            body = json.loads(answer.data or b"{}")
        except ValueError:
            body = None
        if answer.status >= 400:
            raise self._refused(answer, body, f"{method} {urlsplit(url).path.rpartition(_API)[2]}")
        if body is None:
            raise self._page(answer)
        return answer

    def _page(self, answer: Any) -> ApiError:
        found, expected = f"{self._host}: found a ", "expected the Kubeflow Pipelines API"
        if b"password" in answer.data.lower():
            return ApiError(f"{found}login page, {expected}\n{self._login.advice()}", "login")
        advice = f"set endpoint in {self._login.file}: behind Kubeflow's dashboard it ends in /pipeline"
        return ApiError(f"{found}web page, {expected}\n{advice}", "endpoint")

    def _redirected(self, answer: Any) -> ApiError:
        ours, to = urlsplit(self._host), urlsplit(answer.headers.get("Location") or "")
        found = f"{self._host}: found a redirect to"
        if _API in to.path:  # the same request, elsewhere
            moved = f"{to.scheme or ours.scheme}://{to.netloc or ours.netloc}{to.path.partition(_API)[0]}"
            return ApiError(f"{found} {_shown(moved)}\nset endpoint in {self._login.file} to it", "endpoint")
        return ApiError(f"{found} a login page at {to.hostname or ours.hostname}\n{self._login.advice()}", "login")

    def _refused(self, answer: Any, body: Any, question: str) -> ApiError:
        file, space = self._login.file, self._login.profile.namespace
        status, said = answer.status, self._login.without_secrets(_message(answer, body))[:200]
        found = f"{self._host}: found {status}: {said}"
        if status == 401:
            return ApiError(f"{found}\n{self._login.advice()}", "login")
        if status == 403:
            may = f"namespace {space}" if space else "runs"
            return ApiError(
                f"{found}\nexpected a login that may use {may}: pipelines/rbac.example.yaml has what it needs\n"
                f"set namespace in {file}, or {self._login.advice()}",
                "namespace",
            )
        if status == 407:
            return ApiError(f"{found}\nset auth.proxy in {file}: http://USER:PASSWORD@HOST:PORT", "endpoint")
        if status == 404 and not (isinstance(body, dict) and "code" in body):
            return ApiError(f"{found}\nexpected the Kubeflow Pipelines API: set endpoint in {file}", "endpoint")
        if status == 429 or status >= 500:
            return ApiError(f"{found}, in answer to {question}", "endpoint", passing=True)
        return ApiError(f"{found}, in answer to {question}", "request")

    def _nothing(self, error: BaseException) -> str:
        from urllib3 import exceptions

        text, file = self._login.without_secrets(str(error)), self._login.file
        endpoint = f"set endpoint in {file}"
        if isinstance(error, exceptions.ProxyError):
            proxy = _shown(self._login.profile.auth.proxy or "")
            return f"the proxy {proxy} does not lead there\nset auth.proxy in {file}"
        if isinstance(error, exceptions.SSLError):
            if "mismatch" in text or "doesn't match" in text:
                return f"its certificate is for another name\n{endpoint} to the name that it is for"
            if "CERTIFICATE_VERIFY_FAILED" in text:
                said = text.partition("verify failed: ")[2].partition(" (_ssl")[0]
                return f"its certificate is not trusted: {said}\nset auth.ca in {file}: certificates (PEM) to trust"
            return f"no TLS there: {text[:120]}\n{endpoint}: http:// where it has none"
        if isinstance(error, exceptions.NameResolutionError):
            return f"no such host\n{endpoint}, or auth.proxy where a proxy alone knows the host"
        if isinstance(error, exceptions.NewConnectionError):
            return f"cannot be reached: {text.rpartition('] ')[2]}\n{endpoint}, or auth.proxy if there is a proxy"
        if isinstance(error, exceptions.TimeoutError):
            return f"no answer in time\n{endpoint}, or auth.proxy if there is a proxy"
        return f"no answer: {text[:120]}\n{endpoint}: https:// where it has TLS"


def _message(answer: Any, body: Any) -> str:
    """The reason that the server gives for its refusal."""
    said = (body.get("message") or body.get("error")) if isinstance(body, dict) else None
    if said is None and b"<" not in answer.data[:200]:
        said = answer.data.decode(errors="replace").strip()
    return str(said or answer.reason or "nothing more").splitlines()[0]


def _shown(url: str) -> str:
    """A URL without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
