"""The layout of runs in S3: under gradworks/ in the DVC remote, beside DVC's own files/ and runs/.

code/COMMIT-SHA256.tar.gz       the checkout of one commit
locks/RUN/STAGE.json            a stage's entry of dvc.lock, with its own digest
locks/RUN/before/start.json     those of the stages that were done before the run's start
logs/RUN/STAGE.txt              the stage's output, also of a failed one
runs/RUN/run.json               what was submitted; runs/RUN/stages/STAGE.json a stage's state
runs/RUN/nodes/STAGE/N.json     that of one of several nodes; logs/RUN/nodes/STAGE/N.txt its output
pipelines/NAME.json             what runs that Kubeflow begins itself are recorded as
checkpoints/PIPELINE/STAGE/     of running and of killed stages
quarantine/                     damaged objects
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import yaml

from gradworks.base.errors import InputError
from gradworks.store import s3

BEFORE = "before/start.json"  # below locks/RUN/: no stage's name has a `/` there
# with libyaml where PyYAML has it: a run of a hundred stages reads and writes as many
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Damaged(InputError):
    """An object under gradworks/ is damaged, or was not written by gradworks."""


def encoded(name: str) -> str:
    """A stage's name as one part of a key: readable, without `/`."""
    return quote(name, safe="@=,+ ")


class Places:
    """The objects of all runs in one DVC remote.

    Args:
        remote: the remote's URL, s3://BUCKET/PREFIX.
        client: a boto3 S3 client; by default configured by the environment.
    """

    def __init__(self, remote: str, client: Any = None) -> None:
        self.remote = remote.rstrip("/")
        self.bucket, self._prefix = s3.split(remote)
        self.client = client or s3.client()
        self._before: dict[str, dict[str, Any]] = {}  # of each run that was asked for: they are written once

    def key(self, *parts: str) -> str:
        """The key of an object under gradworks/; each part but the last may be a path."""
        return "/".join(p for p in (self._prefix, "gradworks", *parts) if p)

    def data_key(self, oid: str) -> str:
        """The key of an object of DVC: the md5 of its bytes; `.dir` at the end for a list of a folder's files."""
        return "/".join(p for p in (self._prefix, "files/md5", oid[:2], oid[2:]) if p)

    def run_cache_key(self, key: str) -> str:
        """The prefix of DVC's run cache entries for the stage hash `key`."""
        return "/".join(p for p in (self._prefix, "runs", key[:2], key) if p)

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes) -> str:
        """Write an object; returns its URI. Raises InputError."""
        with s3.in_words(self.uri(key)):
            self.client.put_object(Bucket=self.bucket, Key=key, Body=body, **s3.encryption())
        return self.uri(key)

    def upload(self, key: str, file: Path) -> str:
        """Upload a file, in parts if it is large. Raises InputError."""
        with s3.in_words(self.uri(key)):
            self.client.upload_file(str(file), self.bucket, key, ExtraArgs=s3.encryption() or None)
        return self.uri(key)

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, or None where there is none. Raises InputError."""
        from botocore.exceptions import ClientError

        with s3.in_words(self.uri(key)):
            try:
                return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in s3.ABSENT:
                    return None
                raise

    def part(self, key: str, size: int) -> bytes:
        """The first bytes of an object. Raises InputError."""
        with s3.in_words(self.uri(key)):
            return self.client.get_object(Bucket=self.bucket, Key=key, Range=f"bytes=0-{size - 1}")["Body"].read()

    def head(self, key: str) -> dict[str, Any] | None:
        """Size and ETag of an object, or None where there is none. Raises InputError."""
        from botocore.exceptions import ClientError

        with s3.in_words(self.uri(key)):
            try:
                return self.client.head_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in s3.ABSENT:
                    return None
                raise

    def list(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Key, Size, ETag, LastModified of every object under a prefix. Raises InputError."""
        with s3.in_words(self.uri(prefix)):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                yield from page.get("Contents", [])

    def delete(self, keys: list[str]) -> None:
        """Delete objects; a missing one is no error. Raises InputError."""
        for begin in range(0, len(keys), 1000):  # the limit of one request
            some = keys[begin : begin + 1000]
            with s3.in_words(self.uri(some[0])):
                answer = self.client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": [{"Key": k} for k in some], "Quiet": True}
                )
            for error in answer.get("Errors", []):
                raise InputError(f"{self.uri(error['Key'])}: not removed: {error.get('Message', error.get('Code'))}")

    # entries of dvc.lock
    def put_entry(self, run: str, stage: str, entry: dict[str, Any]) -> dict[str, str]:
        """Write a stage's entry of dvc.lock; returns its URI and digest."""
        text = _text(entry)
        digest = _digest(text)
        body = json.dumps({"stage": stage, "entry": text, "sha256": digest}, indent=1)
        uri = self.put(self.key("locks", run, f"{encoded(stage)}.json"), body.encode())
        return {"uri": uri, "sha256": digest}

    def put_before(self, run: str, entries: Mapping[str, dict[str, Any]]) -> None:
        """Write the entries of the stages that were done before a run's start, as one object."""
        texts = {stage: _text(entry) for stage, entry in entries.items()}
        self.put(self._start(run), json.dumps({"entries": texts, "sha256": _digest(json.dumps(texts))}).encode())

    def entry(self, run: str, stage: str) -> dict[str, Any] | None:
        """A stage's entry of dvc.lock, or None if it has not finished. Raises InputError if it is damaged."""
        if stage in self._before.get(run, ()):
            return self._before[run][stage]
        key = self.key("locks", run, f"{encoded(stage)}.json")
        body = self.get(key)
        return self.before(run).get(stage) if body is None else self._checked(key, body, stage)

    def before(self, run: str) -> dict[str, dict[str, Any]]:
        """The entries of the stages that were done before a run's start. Raises InputError if they are damaged."""
        body = None if run in self._before else self.get(self._start(run))
        if body is not None:
            try:
                found = json.loads(body)
                texts = found["entries"]
                if found["sha256"] != _digest(json.dumps(texts)):
                    raise ValueError
                self._before[run] = {stage: yaml.load(text, _LOADER) for stage, text in texts.items()}  # noqa: S506
            except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
                raise self._damaged(self._start(run), body, "lock entries with their own digest") from None
        return self._before.get(run, {})

    def entries(self, run: str) -> dict[str, dict[str, Any]]:
        """All entries of a run by stage. Raises InputError if one is damaged."""
        prefix, found = self.key("locks", run) + "/", {}
        for one in self.list(prefix):
            if one["Key"] == self._start(run):
                found |= self.before(run)
            else:
                stage = unquote(one["Key"].removeprefix(prefix).removesuffix(".json"))
                found[stage] = self._checked(one["Key"], self.get(one["Key"]) or b"", stage)
        return found

    def _start(self, run: str) -> str:
        return self.key("locks", run, BEFORE)

    def _checked(self, key: str, body: bytes, stage: str) -> dict[str, Any]:
        try:
            found = json.loads(body)
            text = found["entry"]
            if found["stage"] == stage and found["sha256"] == _digest(text):
                return yaml.load(text, _LOADER)  # noqa: S506
        except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
            pass
        raise self._damaged(key, body, f"the lock entry of {stage} with its own digest")

    def _damaged(self, key: str, body: bytes, expected: str) -> Damaged:
        """The error, with a fix if the bytes show the cause."""
        said = f"{self.uri(key)}: damaged\nexpected {expected}"
        if s3.with_trailer(body):
            said += f"\nthe store kept boto3's checksum as part of it: where it was written, export {s3.WRITING}"
        return Damaged(said)

    # records
    def put_record(self, run: str, name: str, record: dict[str, Any]) -> None:
        self.put_mapping(self.key("runs", run, f"{name}.json"), record)

    def put_mapping(self, key: str, record: dict[str, Any]) -> None:
        self.put(key, json.dumps(record, indent=1, sort_keys=True).encode())

    def record(self, run: str, name: str = "run") -> dict[str, Any] | None:
        """A record of a run, or None if there is none. Raises Damaged if it is not a mapping."""
        return self.mapping(
            self.key("runs", run, f"{name}.json"), f"the record `{name}` of run {run}, a mapping in JSON"
        )

    def mapping(self, key: str, expected: str) -> dict[str, Any] | None:
        """What an object in JSON holds, or None if there is none. Raises Damaged if it is no mapping."""
        body = self.get(key)
        if body is None:
            return None
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._damaged(key, body, expected)
        return found


def _text(entry: dict[str, Any]) -> str:
    """In YAML, as JSON has no keys that are numbers."""
    return yaml.dump(entry, Dumper=_DUMPER, sort_keys=False, allow_unicode=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
