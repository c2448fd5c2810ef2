"""A cluster's profile: the example has every key, and what is wrong is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gradworks.kubeflow import profile, schemas
from gradworks.stage.errors import InputError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "pipelines" / "cluster.example.yaml"
LEAST = {"images": {"cpu": "r.example/cpu", "gpu": "r.example/gpu"}}


def read(values, tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(values))
    return profile.read(file)


def test_the_least_profile_needs_no_secret(tmp_path):
    found = read(LEAST, tmp_path)
    assert found.secret_env == {} and found.s3.environment == {} and found.experiment == "gradworks"


def test_the_example_is_valid_and_has_every_key_with_a_comment():
    import jsonschema

    values = yaml.safe_load(EXAMPLE.read_text())
    found, schema = profile.read(EXAMPLE), schemas.schemas()["profile.schema.json"]
    jsonschema.validate(values, schema)
    text = EXAMPLE.read_text()
    keys = set(schema["properties"]) | {
        key for name, one in schema["$defs"].items() if name != "ConfigMapKey" for key in one["properties"]
    }
    assert [key for key in sorted(keys) if not re.search(rf"\b{key}: ", text) and f"{key}:\n" not in text] == []
    lines = text.splitlines()
    for key in values:
        at = next(n for n, line in enumerate(lines) if line.startswith(f"{key}:"))
        assert "#" in lines[at] or lines[at - 1].startswith("#"), f"{key} has no comment"
    assert found.gpus["slice"].resource == "nvidia.com/mig-1g.10gb"


def test_what_pods_are_told_of_the_object_store():
    assert profile.read(EXAMPLE).s3.environment == {
        "AWS_ENDPOINT_URL": "https://s3.example.org",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_CA_BUNDLE": "/etc/gradworks/ca.crt",
        "GRADWORKS_S3_PATH_STYLE": "1",
        "GRADWORKS_S3_SSE": "aws:kms",
        "GRADWORKS_S3_SSE_KMS_KEY_ID": "arn:aws:kms:eu-central-1:111122223333:key/gradworks",
    }


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"image": {}}, "cluster.yaml: image: unknown key\nexpected one of: affinity, auth, configMapEnv"),
        ({"node_selector": {}}, "cluster.yaml: node_selector: unknown key"),
        (
            {"s3": {"ca": {"configmap": "x"}}},
            "cluster.yaml: s3.ca.configmap: unknown key\nexpected one of: configMap, key",
        ),
        ({"tolerations": [{"keys": "x"}]}, "cluster.yaml: tolerations.0.keys: unknown key\nexpected one of: effect"),
        (
            {"gpus": {"a": {"resource": "nvidia.com/gpu", "tolerations": [{"keys": "x"}]}}},
            "cluster.yaml: gpus.a.tolerations.0.keys: unknown key\nexpected one of: effect",
        ),
        (
            {"gpus": {"a": {"resource": "gpu"}}},
            "gpus.a.resource: found 'gpu'\nexpected what the device plugin calls it",
        ),
        ({"images": {"cpu": "r.example/cpu"}}, "cluster.yaml: images.gpu: missing"),
        ({"images": {"cpu": "a b", "gpu": "x"}}, "images.cpu: found 'a b'\nexpected REGISTRY/REPOSITORY"),
        ({"pricePerGpuHour": {"h100": 1.0}}, "pricePerGpuHour: found h100, expected kinds of `gpus`"),
        ({"s3": {"sseKmsKeyId": "k"}}, "expected sse: aws:kms beside sseKmsKeyId"),
        ({"s3": {"endpoint": "s3.example.org"}}, "s3.endpoint: found 's3.example.org'\nexpected http"),
        ({"affinity": [{"matchExpressions": []}]}, r"affinity.0.matchExpressions: found \[\]"),
        ({"namespace": "My Team"}, "namespace: found 'My Team'\nexpected a name of Kubernetes"),
        ({"configMapEnv": {"A-B": {"configMap": "c", "key": "k"}}}, "expected the name of an environment variable"),
    ],
)
def test_what_is_wrong_is_named(more, said, tmp_path):
    with pytest.raises(InputError, match=said) as caught:
        read(LEAST | more, tmp_path)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_secret_written_into_it_is_refused_and_not_printed(tmp_path):
    with pytest.raises(
        InputError, match=r"secretEnv.AWS_SECRET_ACCESS_KEY: found a value\nexpected {secret: NAME"
    ) as caught:
        read(LEAST | {"secretEnv": {"AWS_SECRET_ACCESS_KEY": "hush-hush"}}, tmp_path)
    assert "hush" not in str(caught.value)


def test_the_roles_name_one_service_account():
    documents = list(yaml.safe_load_all((ROOT / "pipelines" / "rbac.example.yaml").read_text()))
    account = next(d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount")
    assert profile.read(EXAMPLE).service_account == account
    roles = {d["metadata"]["name"] for d in documents if d["kind"] == "Role"}
    assert roles == {d["roleRef"]["name"] for d in documents if d["kind"] == "RoleBinding"}
    for document in documents:  # no role for everything
        for rule in document.get("rules", []):
            assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
