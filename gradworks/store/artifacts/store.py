"""DVC's objects in the remote: listed at once, folders resolved, content checked against the name."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from gradworks.base.errors import InputError
from gradworks.store import s3
from gradworks.store.artifacts.lock import MD5
from gradworks.store.artifacts.words import plain
from gradworks.store.places import Places

SMALL = 8_000_000  # bytes of the largest object that is read and checked at once
_PART = 1_000_000  # bytes of the smallest request


class Fault(InputError):
    """An object is missing, damaged or unreadable.

    Attributes:
        state: missing, damaged or unreadable; said: what was found.
    """

    def __init__(self, uri: str, state: str, said: str = "") -> None:
        super().__init__(f"{uri}: {state}" + (f"\n{said}" if said else ""))
        self.state, self.said = state, said


@dataclass(frozen=True)
class Found:
    """An object of a listing: bytes, and when it was written."""

    size: int
    modified: datetime


class Store:
    """DVC's part of a remote, files/md5/."""

    def __init__(self, places: Places) -> None:
        self.places = places
        places.client.meta.events.register(
            "before-parse.s3.ListObjectsV2",
            _read_listing,
            unique_id="gradworks-listing",  # once for each client
        )

    def uri(self, md5: str) -> str:
        return self.places.uri(self.places.data_key(md5))

    def objects(self) -> dict[str, Found]:
        """Every object by its md5, from one listing. Raises InputError."""
        prefix = self.places.data_key("") + "/"
        return {
            one["Key"].removeprefix(prefix).replace("/", ""): Found(one["Size"], one["LastModified"])
            for one in self.places.list(prefix)
        }

    def folder(self, md5: str) -> list[tuple[str, str]]:
        """Path and md5 of each file of a folder. Raises Fault, InputError."""
        body, uri = self.read(md5), self.uri(md5)
        try:
            listed = [(one["relpath"], one["md5"]) for one in json.loads(body)]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Fault(uri, "damaged", "expected a list of a folder's files") from None
        for path, name in listed:
            if not (isinstance(path, str) and _inside(path)):
                raise Fault(uri, "damaged", f"found the file {plain(path)[:100]!r}, which does not lie in the folder")
            if not (isinstance(name, str) and MD5.fullmatch(name)) or name.endswith(".dir"):
                raise Fault(uri, "damaged", f"{plain(path)[:100]}: found the md5 {plain(name)[:100]!r}")
        return listed

    def read(self, md5: str) -> bytes:
        """The bytes of an object, checked. Raises Fault, InputError."""
        return b"".join(self.stream(md5))

    def stream(self, md5: str) -> Iterator[bytes]:
        """The bytes of an object in parts; raises Fault after the last one if they do not match its name."""
        from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        key, state = self.places.data_key(md5), hashlib.md5(usedforsecurity=False)
        uri = self.places.uri(key)
        with s3.in_words(uri):
            try:
                body = self.places.client.get_object(Bucket=self.places.bucket, Key=key)["Body"]
                for part in body.iter_chunks(_PART):
                    state.update(part)
                    yield part
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in s3.ABSENT:
                    raise Fault(uri, "missing") from None
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
                    raise Fault(uri, "unreadable", str(error).splitlines()[0]) from None
                raise
            except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError) as error:
                raise Fault(uri, "unreadable", str(error).splitlines()[0]) from None
        found = state.hexdigest()
        if found != md5.removesuffix(".dir"):
            raise Fault(uri, "damaged", f"found md5 {found}, expected {md5}")

    def opened(self, md5: str) -> io.BufferedIOBase:
        """An object as a file. A small one is read and checked; a large one is read in parts, on request, unchecked.

        Raises:
            Fault, InputError.
        """
        key = self.places.data_key(md5)
        head = self.places.head(key)
        if head is None:
            raise Fault(self.places.uri(key), "missing")
        if head["ContentLength"] <= SMALL:
            return io.BytesIO(self.read(md5))
        return io.BufferedReader(_Ranged(self.places, key, head["ContentLength"]), _PART)


class _Ranged(io.RawIOBase):
    """An object as a seekable file, by range requests."""

    def __init__(self, places: Places, key: str, length: int) -> None:
        self._places, self._key, self._length, self._at = places, key, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._length)
        if end <= self._at:
            return 0
        with s3.in_words(self._places.uri(self._key)):
            answer = self._places.client.get_object(
                Bucket=self._places.bucket, Key=self._key, Range=f"bytes={self._at}-{end - 1}"
            )
            part = answer["Body"].read()
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _inside(path: str) -> bool:
    """Whether a relative path stays in its folder."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\\" not in path and "\0" not in path


def _read_listing(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Parse listings in place of botocore, which takes 0.3 s per thousand objects."""
    from xml.etree import ElementTree

    if response_dict["status_code"] != 200:
        return
    try:
        root = ElementTree.fromstring(response_dict["body"])  # noqa: S314
        space = root.tag.partition("ListBucketResult")[0]
        given = [{e.tag.removeprefix(space): e.text or "" for e in one} for one in root.findall(f"{space}Contents")]
        read = [
            {"Key": one["Key"], "Size": int(one["Size"]), "ETag": one.get("ETag", ""),
             "LastModified": datetime.fromisoformat(one["LastModified"])}
            for one in given
        ]  # fmt: skip
    except (ElementTree.ParseError, KeyError, ValueError):
        return  # botocore reports what is wrong
    root[:] = [one for one in root if one.tag != f"{space}Contents"]
    response_dict["body"] = ElementTree.tostring(root)
    customized_response_dict["Contents"] = read
