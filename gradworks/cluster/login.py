"""Log in to a cluster: read the files of a profile's `auth`, and give advice where that fails."""

from __future__ import annotations

import base64
import json
import ssl
import time
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError
from gradworks.cluster.profile import Profile

_AUDIENCE = "pipelines.kubeflow.org"  # of a ServiceAccount's token: kubectl create token NAME --audience


class Login:
    """The login of one profile.

    Attributes:
        profile: of the cluster; file: its path.
    """

    def __init__(self, profile: Profile, file: Path) -> None:
        self.profile, self.file, self._auth = profile, file, profile.auth

    def token(self) -> str | None:
        """The current content of auth.tokenFile. Raises InputError."""
        return self._line("tokenFile", self._auth.token_file)

    def cookie(self) -> str | None:
        """The current content of auth.cookieFile. Raises InputError."""
        return self._line("cookieFile", self._auth.cookie_file)

    def certificates(self) -> str | None:
        """The path of auth.ca. Raises InputError if it holds no certificates."""
        if not self._auth.ca:
            return None
        path = self._path(self._auth.ca)
        try:
            ssl.create_default_context(cafile=str(path))
        except OSError as error:  # includes SSLError: not PEM
            said = "no certificates in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise InputError(f"{self.file}: auth.ca: {path}: {said}\nexpected certificates (PEM)") from None
        return str(path)

    def known_context(self) -> None:
        """Raises InputError if the kubeconfig lacks auth.kubeContext."""
        from kubernetes.config import ConfigException, list_kube_config_contexts

        try:
            names = [one["name"] for one in list_kube_config_contexts()[0]]
        except (ConfigException, OSError) as error:
            raise InputError(f"{self.file}: auth.kubeContext: {str(error).splitlines()[0]}") from None
        if self._auth.kube_context not in names:
            raise InputError(
                f"{self.file}: auth.kubeContext: found {self._auth.kube_context!r}\n"
                f"the kubeconfig has: {', '.join(names)}"
            )

    def advice(self) -> str:
        """What to do when the server rejects the login."""
        auth = self._auth
        if not self.profile.endpoint:
            return f"auth.kubeContext in {self.file}: kubectl --context {auth.kube_context} get pods has to work"
        if auth.token_file:
            said = f"auth.tokenFile in {self.file}: put a new token into {self._path(auth.token_file)}"
            return said + _wrong_with(self.token() or "")
        if auth.cookie_file:
            return f"auth.cookieFile in {self.file}: put a new session's cookie into {self._path(auth.cookie_file)}"
        return f"set auth.tokenFile or auth.cookieFile in {self.file}"

    def without_secrets(self, text: str) -> str:
        """Server text with secrets masked: it may echo the request."""
        secrets = [self.token() or "", self.cookie() or ""]
        secrets += [part.partition("=")[2].strip() for part in secrets[1].split(";")]
        for secret in secrets:
            text = text.replace(secret, "***") if secret else text
        return text

    def _path(self, name: str) -> Path:
        return self.file.parent / Path(name).expanduser()

    def _line(self, key: str, name: str | None) -> str | None:
        if not name:
            return None
        path = self._path(name)
        try:
            found = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or "not a text of ASCII letters"
            raise InputError(f"{self.file}: auth.{key}: {path}: {said}") from None
        if len(found.splitlines()) != 1:
            raise InputError(f"{self.file}: auth.{key}: {path}: expected one line, found {len(found.splitlines())}")
        return found


def _wrong_with(token: str) -> str:
    """Why a JSON web token (RFC 7519) was refused, as far as it says itself; "" of any other."""
    claims = _claims(token)
    expires, audience = claims.get("exp"), claims.get("aud")
    if isinstance(expires, int | float) and not isinstance(expires, bool) and expires <= time.time():
        return f": it expired at {time.strftime('%Y-%m-%d %H:%M', time.gmtime(expires))} UTC"
    heard = audience if isinstance(audience, list) else [audience]
    if "kubernetes.io" in claims and _AUDIENCE not in heard:
        return f": it is for {', '.join(map(str, heard))}, Kubeflow takes {_AUDIENCE}"
    return ""


def _claims(token: str) -> dict[str, Any]:
    body = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
