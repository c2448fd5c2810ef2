"""A Kubeflow Pipelines client configured by a cluster profile.

kfp.Client makes the requests; answers.py turns unusable answers into clear errors.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gradworks.base.errors import InputError
from gradworks.cluster.answers import Answers
from gradworks.cluster.login import Login
from gradworks.cluster.profile import Profile

if TYPE_CHECKING:
    from kfp import Client

_INSTALLATION = "kubeflow"  # Kubeflow's own namespace, where its service is


def connect(profile: Profile, file: Path) -> Client:
    """A client of the cluster's API; makes no request yet.

    Args:
        profile: of the cluster.
        file: where it was read from; names of files in it are relative to its folder.

    Raises:
        InputError: kfp is not installed, or the profile names no endpoint, or a file or context that is not there.
            What the client's methods raise is an ApiError.
    """
    try:
        import kfp
    except ImportError:
        raise InputError("kfp is not installed\ninstall it: pip install 'gradworks[kubeflow]'") from None

    class Client(kfp.Client):
        def _load_context_setting_or_default(self) -> None:
            # ignore the context that kfp keeps in the home folder; with a namespace set, kfp makes no request here
            self._context_setting = {"namespace": "none"}

    login = Login(profile, file)
    with quiet() as printed:
        client = Client(**_options(profile, file, login))
    if "Failed to load kube config" in printed.getvalue():
        raise InputError(f"{file}: auth.kubeContext: {profile.auth.kube_context!r} could not be loaded")
    client._context_setting["namespace"] = profile.namespace or ""
    api = client._run_api.api_client  # shared by all services
    if not profile.endpoint:
        _keep_host(api.configuration)
    pool = api.rest_client.pool_manager
    pool.request = Answers(login, api.configuration.host, pool.request)
    return client


def _keep_host(config: Any) -> None:
    """Keep the host's path to Kubeflow's service, which the kubeconfig's token refresh would reset."""
    host, renew = config.host.rstrip("/"), config.refresh_api_key_hook

    def refresh(config: Any) -> None:
        if renew:
            renew(config)
        config.host = host

    config.host, config.refresh_api_key_hook = host, refresh


def experiment_id(client: Any, profile: Profile, file: Path) -> str:
    """Kubeflow's id of the experiment, created if missing. Raises InputError."""
    try:
        with quiet():
            return client.create_experiment(profile.experiment, namespace=profile.namespace).experiment_id
    except InputError:
        raise
    except ValueError as error:  # of kfp: two experiments have this name
        raise InputError(f"{file}: experiment: found {profile.experiment!r}: {error}") from None


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Suppress kfp's own output and warnings; yields what it printed."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as printed:
        warnings.simplefilter("ignore")
        yield printed


def _options(profile: Profile, file: Path, login: Login) -> dict[str, Any]:
    """Arguments of kfp.Client. Raises InputError."""
    given = {"proxy": profile.auth.proxy, "ssl_ca_cert": login.certificates()}
    if profile.endpoint:
        given |= {"host": profile.endpoint, "namespace": profile.namespace or _INSTALLATION, "cookies": login.cookie()}
        if login.token():

            def refresh(config: Any) -> None:
                config.api_key["authorization"] = login.token()

            # the token may be replaced while a run is followed
            given["credentials"] = SimpleNamespace(refresh_api_key_hook=refresh)
        return given
    if not profile.auth.kube_context:
        raise InputError(
            f"{file}: endpoint: missing\nexpected the address of the Kubeflow Pipelines API, or auth.kubeContext"
        )
    login.known_context()
    return given | {"namespace": _INSTALLATION, "kube_context": profile.auth.kube_context}
