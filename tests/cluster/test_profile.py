"""A cluster's profile: the example has every key, and what is wrong is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gradworks.base.errors import InputError
from gradworks.cluster import profile, schemas

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
        ({"images": {}}, "images: found none, expected cpu, gpu or both"),
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


KEY = {"key": "a"}
GOOD = [
    {"tolerations": [{"operator": "Exists"}, {"key": "", "operator": "Exists"}, KEY, {**KEY, "value": ""}]},
    {"tolerations": [{**KEY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": -1}]},
    {"tolerations": [{"key": "a.b/C_d.e", "operator": "Equal", "value": "1"}]},
    {"affinity": [{"matchExpressions": [{**KEY, "operator": "NotIn", "values": ["", "x"]}], "weight": 100}]},
    {"affinity": [{"matchExpressions": [{**KEY, "operator": one, "values": ["080"]} for one in ("Gt", "Lt")]}]},
    {"nodeSelector": {"kubernetes.io/os": "linux", "x" * 63: "y" * 63, "a" * 250 + ".io/b": ""}},
    {"imagePullSecrets": ["a.b-c", "x" * 253], "namespace": "x" * 63, "queue": "team.a"},
    {"images": {"cpu": "localhost:5000/team/cpu_1:V1.0"}},
    {"images": {"gpu": "R.example/a@sha256:" + "0" * 64}},
    {"gpus": {"a": {"resource": "nvidia.com/mig-1g.10gb"}}, "shm": "64Ki"},
    {"secretEnv": {"A": {"secret": "s", "key": ".k"}}},
]


@pytest.mark.parametrize("more", GOOD)
def test_what_kubernetes_takes_is_taken(more, tmp_path):
    read(LEAST | more, tmp_path)


def test_a_number_in_quotation_marks_reaches_kubernetes_as_a_number(tmp_path):
    given = {"tolerations": [{**KEY, "effect": "NoExecute", "tolerationSeconds": "300"}]}
    assert read(LEAST | given, tmp_path).tolerations[0].toleration_seconds == 300


BAD = [  # each is refused by Kubernetes' own validation: pkg/apis/core/validation and apimachinery/pkg/util/validation
    *({"tolerations": [one]} for one in (
        {**KEY, "operator": "Exists", "value": "x"}, {"operator": "Equal", "value": "x"}, {"value": "x"}, {},
        {**KEY, "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 300},
        {**KEY, "operator": "Exists", "tolerationSeconds": 0}, {**KEY, "operator": "In"}, {**KEY, "effect": "Never"},
        {"key": "a b"}, {"key": "a/b/c"}, {"key": "/a"}, {"key": "a/"}, {"key": "A.b/c"}, {"key": "-a"},
        {"key": "x" * 64}, {"key": "a" * 254 + "/b"}, {**KEY, "value": "x y"}, {**KEY, "value": "x" * 64},
        {**KEY, "value": True}, {**KEY, "effect": "NoExecute", "tolerationSeconds": 2**63},
    )),
    *({"affinity": [{"matchExpressions": [{**KEY, **one}]}]} for one in (
        {"operator": "In"}, {"operator": "NotIn", "values": []}, {"operator": "Exists", "values": ["x"]},
        {"operator": "DoesNotExist", "values": ["x"]}, {"operator": "Gt", "values": ["x"]}, {"operator": "Gt"},
        {"operator": "Gt", "values": ["1", "2"]}, {"operator": "Lt", "values": ["1.5"]},
        {"operator": "Lt", "values": ["-1"]}, {"operator": "Lt", "values": [5]},
        {"operator": "Lt", "values": [str(2**63)]}, {"operator": "Exists", "key": "a b"},
        {"operator": "In", "values": ["x y"]}, {"operator": "Equals", "values": ["x"]},
    )),
    *({"affinity": [{"matchExpressions": [{**KEY, "operator": "Exists"}], "weight": one}]} for one in (0, 101, -1)),
    *({"nodeSelector": one} for one in ({"a b": "c"}, {"a": "b c"}, {"a": 5}, {"a": "_x"}, {"": "x"}, {"a": None})),
    {"gpus": {"a": {"resource": "nvidia.com/gpu", "nodeSelector": {"a": "b c"}}}},
    {"gpus": {"a": {"resource": "nvidia.com/gpu", "tolerations": [{"value": "x"}]}}},
    *({"gpus": {"a": {"resource": one}}} for one in ("-/gpu", "a..b/gpu", "a/b/c", "a/-", "gpu")),
    *({"imagePullSecrets": [one]} for one in ("Reg", "a_b", "a..b", "-a", "a-", "x" * 254, "")),
    *({"secretEnv": {"A": {"secret": "s", "key": one}}} for one in (".", "..", "..a", "a b", "")),
    {"configMapEnv": {"A": {"configMap": "C", "key": "k"}}}, {"s3": {"ca": {"configMap": "a..b", "key": "k"}}},
    {"serviceAccount": "Default"}, {"namespace": "a.b"}, {"namespace": "x" * 64}, {"queue": "x" * 64},
    {"shm": "64K"}, {"shm": "64GB"}, {"shm": "0Gi"},
    *({"images": {"cpu": one}} for one in ("r.example/Team/cpu", "r.example/a:-x", "r.example//a", "a@sha256:00")),
]  # fmt: skip


@pytest.mark.parametrize("more", BAD, ids=str)
def test_what_no_cluster_takes_is_refused_when_it_is_read(more, tmp_path):
    with pytest.raises(InputError, match=rf"cluster.yaml: {next(iter(more))}\b") as caught:
        read(LEAST | more, tmp_path)
    assert len(str(caught.value).splitlines()) <= 3 and "function-" not in str(caught.value)


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
    for scope in ("", "Cluster"):
        roles = {d["metadata"]["name"] for d in documents if d["kind"] == f"{scope}Role"}
        assert roles == {d["roleRef"]["name"] for d in documents if d["kind"] == f"{scope}RoleBinding"} != set()
    for document in documents:  # no role for everything
        for rule in document.get("rules", []):
            assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
