"""The profile of a cluster: the file given as `--cluster`, see pipelines/cluster.example.yaml.

Stages declare what they need in dvc.yaml (store/meta.py); the profile maps that to a cluster. It holds the names of
secrets, never their values, and needs none where pods get credentials from their service account.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gradworks.base import read_yaml
from gradworks.base.errors import InputError
from gradworks.cluster.nodes import LABEL, QUALIFIED, SUBDOMAIN, Affinity, LabelKey, LabelValue, Toleration
from gradworks.store.meta import Memory
from gradworks.store.sections import CamelSection, text, validated

CA_FOLDER = "/etc/gradworks"  # where a pod finds the certificates of `s3.ca`
_Name = text(SUBDOMAIN, "a name of Kubernetes: small letters, digits, - and ., a letter or digit beside each . and end")
_Namespace = text(rf"(?=.{{1,63}}$){LABEL}", "a name of Kubernetes: at most 63 small letters, digits and -")
_Queue = text(rf"(?=.{{1,63}}$){SUBDOMAIN}", "a name of Kubernetes: at most 63 small letters, digits, - and .")
_Variable = text(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")
_Key = text(r"(?!\.$|\.\.)[-._a-zA-Z0-9]{1,253}", "a key of a secret or config map")
_PATH = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*(:[0-9]+)?"
_Image = text(
    rf"({_HOST}/)?{_PATH}(/{_PATH})*(:\w[\w.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?",
    "REGISTRY/REPOSITORY in small letters, or with its :TAG",
)
_Resource = text(rf"(?=.*/){QUALIFIED}", "what the device plugin calls it, as nvidia.com/gpu")
_Url = text(r"https?://\S+", "http://... or https://...")
_Root = text(r"[a-z0-9]+://\S+", "the address of a folder, as s3://BUCKET/PREFIX")


class Gpu(CamelSection):
    """One kind of GPU: the resource name of its device plugin, and its nodes.

    resource: nvidia.com/gpu, or a slice such as nvidia.com/mig-1g.10gb.
    """

    resource: _Resource
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)


class Images(CamelSection):
    """Image repositories; the tag is the digest of the environment unless one is given.

    A run needs the images that its stages use.
    """

    cpu: _Image | None = None
    gpu: _Image | None = None

    @model_validator(mode="after")
    def _one(self) -> Images:
        if not (self.cpu or self.gpu):
            raise ValueError("images: found none, expected cpu, gpu or both: REGISTRY/REPOSITORY each")
        return self


class SecretKey(CamelSection):
    """A key of a Kubernetes secret in the namespace."""

    secret: _Name
    key: _Key


class ConfigMapKey(CamelSection):
    """A key of a Kubernetes config map in the namespace."""

    config_map: _Name
    key: _Key


class S3(CamelSection):
    """The object store as seen from pods; credentials come from the standard AWS chain.

    endpoint: none = AWS. path_style: bucket in the path, not in the host's name. ca: certificates to trust (PEM).
    """

    endpoint: _Url | None = None
    region: str | None = None
    path_style: bool = False
    sse: Literal["AES256", "aws:kms"] | None = None
    sse_kms_key_id: str | None = None
    ca: ConfigMapKey | None = None

    @model_validator(mode="after")
    def _key_needs_kms(self) -> S3:
        if self.sse_kms_key_id and self.sse != "aws:kms":
            raise ValueError("expected sse: aws:kms beside sseKmsKeyId")
        return self

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of pods, without secrets."""
        found = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_CA_BUNDLE": f"{CA_FOLDER}/{self.ca.key}" if self.ca else None,
            "GRADWORKS_S3_PATH_STYLE": "1" if self.path_style else None,
            "GRADWORKS_S3_SSE": self.sse,
            "GRADWORKS_S3_SSE_KMS_KEY_ID": self.sse_kms_key_id,
        }
        return {name: value for name, value in found.items() if value}


class Auth(CamelSection):
    """How this machine logs in; the files are read here and never sent to the cluster.

    token_file: a bearer token; cookie_file: a session's cookie; kube_context: of the kubeconfig, for a port-forward;
    ca: certificates to trust (PEM); proxy: URL of an HTTP proxy.
    """

    token_file: str | None = None
    cookie_file: str | None = None
    kube_context: str | None = None
    ca: str | None = None
    proxy: str | None = None


class Profile(CamelSection):
    """A cluster. endpoint: of the Kubeflow Pipelines API; none = by `auth.kubeContext`."""

    endpoint: _Url | None = None
    namespace: _Namespace | None = None
    experiment: str = "gradworks"
    pipeline_root: _Root | None = None
    service_account: _Name | None = None
    images: Images
    image_pull_secrets: list[_Name] = Field(default_factory=list)
    gpus: dict[str, Gpu] = Field(default_factory=dict)
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    affinity: list[Affinity] = Field(default_factory=list)
    tolerations: list[Toleration] = Field(default_factory=list)
    shm: Memory | None = None
    secret_env: dict[_Variable, SecretKey] = Field(default_factory=dict)
    config_map_env: dict[_Variable, ConfigMapKey] = Field(default_factory=dict)
    queue: _Queue | None = None
    s3: S3 = Field(default_factory=S3)
    price_per_gpu_hour: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    auth: Auth = Field(default_factory=Auth)

    @model_validator(mode="after")
    def _kinds(self) -> Profile:
        unknown = sorted(set(self.price_per_gpu_hour) - set(self.gpus))
        if unknown:
            raise ValueError(f"pricePerGpuHour: found {', '.join(unknown)}, expected kinds of `gpus`")
        return self


def read(path: Path) -> Profile:
    """A cluster's profile, validated.

    Raises:
        InputError: no such file, a key is unknown or missing, a value impossible.
    """
    values = read_yaml(path)
    secrets = values.get("secretEnv")
    for name, given in (secrets if isinstance(secrets, dict) else {}).items():
        if not isinstance(given, dict):  # checked here, since `validated` would print the content
            raise InputError(
                f"{path}: secretEnv.{name}: found a value\n"
                "expected {secret: NAME, key: KEY}: what a Kubernetes secret is called; the cluster holds its value"
            )
    try:
        return validated(values, Profile, "")
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix('.').removeprefix(': ')}") from None


@contextlib.contextmanager
def store(profile: Profile) -> Iterator[None]:
    """Set the profile's object store in the environment; variables that are set take precedence."""
    own = {name: value for name, value in profile.s3.environment.items() if name not in os.environ}
    own.pop("AWS_CA_BUNDLE", None)  # a path in a pod
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)
