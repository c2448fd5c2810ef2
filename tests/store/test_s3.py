"""S3's settings and errors, in words; the client itself meets a real server in test_storage.py and tests/cluster/."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, FlexibleChecksumError, NoCredentialsError

from gradworks.base.errors import InputError
from gradworks.store import s3


def test_addresses():
    assert s3.split("s3://bucket/a/b/") == ("bucket", "a/b") and s3.split("s3://bucket") == ("bucket", "")
    for wrong in ("gs://bucket/a", "/folder", "s3:///a", ""):
        with pytest.raises(InputError, match="expected an address s3://BUCKET/PREFIX"):
            s3.split(wrong)


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({"AWS_ENDPOINT_URL": "https://store.example.org"}, "https://store.example.org/bucket/key"),
        ({"GRADWORKS_S3_PATH_STYLE": "1"}, "https://s3.eu-central-1.amazonaws.com/bucket/key"),
        ({}, "https://bucket.s3.amazonaws.com/key"),
    ],
)
def test_where_a_bucket_is_asked(monkeypatch, variables, host):
    for name in ("AWS_ENDPOINT_URL", "GRADWORKS_S3_PATH_STYLE", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    settings = {"AWS_DEFAULT_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for name, value in {**settings, **variables}.items():
        monkeypatch.setenv(name, value)
    url = s3.client().generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    assert url.partition("?")[0] == host


def test_two_clients_of_one_process_have_credentials_of_their_own(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    urls = []
    for key in ("first", "second"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        urls.append(s3.client().generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"}))
    assert "first" in urls[0] and "second" in urls[1]


def test_encryption_of_uploads(monkeypatch):
    monkeypatch.delenv("GRADWORKS_S3_SSE", raising=False)
    assert s3.encryption() == {}
    monkeypatch.setenv("GRADWORKS_S3_SSE", "aws:kms")
    monkeypatch.setenv("GRADWORKS_S3_SSE_KMS_KEY_ID", "arn:x")
    assert s3.encryption() == {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:x"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ClientError({"Error": {"Code": "NoSuchBucket"}}, "GetObject"), "there is no such bucket \\(NoSuchBucket\\)"),
        (ClientError({"Error": {"Code": "SignatureDoesNotMatch"}}, "GetObject"), "the secret key is wrong"),
        (ClientError({"Error": {"Code": "Odd", "Message": "what?"}}, "GetObject"), "what\\? \\(Odd\\)"),
        (
            ClientError({"Error": {"Code": "NotImplemented", "Message": "A header"}}, "PutObject"),
            "A header \\(NotImplemented\\)\n.*export AWS_REQUEST_CHECKSUM_CALCULATION=when_required$",
        ),
        (
            FlexibleChecksumError(error_msg="Expected checksum a did not match"),
            "damaged, or .*\nin the latter case: export AWS_RESPONSE_CHECKSUM_VALIDATION=when_required$",
        ),
        (NoCredentialsError(), "found no credentials\\nof the store on this machine: eval"),
        (EndpointConnectionError(endpoint_url="http://x"), "Could not connect to the endpoint URL"),
    ],
)
def test_errors_in_words(error, said):
    with pytest.raises(InputError, match=f"^s3://b/k: .*{said}"), s3.in_words("s3://b/k"):
        raise error
