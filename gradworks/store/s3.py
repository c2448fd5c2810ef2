"""S3 clients by boto3's standard settings and credential chain, and its errors as InputErrors.

AWS_ENDPOINT_URL names another server than Amazon's, AWS_CA_BUNDLE its certificate. boto3 has no variable for these:
GRADWORKS_S3_PATH_STYLE=1 (the bucket in the path, not in the host name), GRADWORKS_S3_SSE (AES256, aws:kms) and
GRADWORKS_S3_SSE_KMS_KEY_ID.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from gradworks.base.errors import InputError

_WORDS = {
    "InvalidAccessKeyId": "the server does not know the access key",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the credentials have expired",
    "AccessDenied": "the credentials may not do this",
    "403": "the credentials may not do this",
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such object",
    "404": "there is no such object or bucket",
}
# boto3 sends checksums with uploads; some stores keep them in the object or return them with a part of it
WRITING = "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
READING = "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
# how a store refuses an upload that ends in a checksum
_REFUSED = ("NotImplemented", "XAmzContentSHA256Mismatch", "MissingContentLength", "IncompleteBody", "InvalidDigest")
ABSENT = ("NoSuchKey", "404", "NotFound")


def client(endpoint: str | None = None, key: str | None = None, secret: str | None = None, region: str = "") -> Any:
    """A boto3 S3 client; without arguments, by the environment."""
    import boto3
    from botocore.config import Config

    # with the bucket in the host name, each bucket would need a DNS entry
    path = endpoint or os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("GRADWORKS_S3_PATH_STYLE") == "1"
    config = Config(
        s3={"addressing_style": "path"} if path else {},
        retries={"mode": "standard", "max_attempts": 3}, connect_timeout=5, read_timeout=60, max_pool_connections=32,
    )  # fmt: skip
    # the default session keeps the first credentials of the process
    return boto3.Session().client(
        "s3", endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret, config=config,
        region_name=region or None,
    )  # fmt: skip


def encryption() -> dict[str, str]:
    """Arguments of every upload."""
    chosen = {
        "ServerSideEncryption": os.environ.get("GRADWORKS_S3_SSE"),
        "SSEKMSKeyId": os.environ.get("GRADWORKS_S3_SSE_KMS_KEY_ID"),
    }
    return {name: value for name, value in chosen.items() if value}


def split(url: str) -> tuple[str, str]:
    """Bucket and key (or prefix) of an s3:// URL. Raises InputError."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise InputError(f"found {url!r}\nexpected an address s3://BUCKET/PREFIX")
    return parts.netloc, parts.path.strip("/")


def with_trailer(body: bytes) -> bool:
    """Whether the store kept an upload's trailing checksum and chunk sizes as part of the object."""
    return b"x-amz-checksum-" in body or b";chunk-signature=" in body[:200]


@contextlib.contextmanager
def in_words(what: str) -> Iterator[None]:
    """Turn boto3's errors into an InputError that begins with `what`."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        said = _WORDS.get(code, str(error).splitlines()[0])
        mend = f"\nwhere the store does not know boto3's checksums: export {WRITING}" if code in _REFUSED else ""
        raise InputError(f"{what}: {said} ({code}){mend}") from error
    except NoCredentialsError:
        raise InputError(
            f'{what}: found no credentials\nof the store on this machine: eval "$(gradworks storage env)"'
        ) from None
    except FlexibleChecksumError as error:
        said = f"{what}: damaged, or the store gives the checksum of the whole object with a part of it: {error}"
        raise InputError(f"{said.splitlines()[0]}\nin the latter case: export {READING}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise InputError(f"{what}: {str(error).splitlines()[0]}") from error
