"""`gradworks doctor` against a real HTTP server, a real store and a registry's interface: a line for each thing."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.exceptions import FlexibleChecksumError

from gradworks.cluster import doctor, registry
from gradworks.pod import environment
from gradworks.store import s3
from gradworks.store.places import Places
from tests.cluster import toy
from tests.cluster.api_server import Api

TOKEN = "planted-token-4711"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor")
    with toy.served(folder) as (_, patch):
        root = toy.checkout(folder / "checkout")
        patch.chdir(root)
        yield root


@pytest.fixture
def api():
    with Api() as serving:
        serving.token, serving.spaces = TOKEN, {"team"}
        yield serving
        assert serving.wrong == []


class Registry:
    """The part of the registry's interface that is asked. images: that it has; token: of a user without a name."""

    def __init__(self) -> None:
        self.images: set[str] = set()
        self.token, self.status, self.asked = "", 0, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                body = json.dumps({"token": outer.token}).encode()
                self.send_response(200 if outer.token else 401)
                self.end_headers()
                self.wfile.write(body)

            def do_HEAD(self) -> None:
                outer.asked.append(self.path)
                refused = self.headers.get("Authorization") != f"Bearer {outer.token}" and outer.token is not None
                found = self.path.removeprefix("/v2/").replace("/manifests/", ":") in outer.images
                # a registry tells apart what a client can read: without the kinds it says 404
                found = found and "oci.image.index" in self.headers.get("Accept", "")
                self.send_response(outer.status or (401 if refused else 200 if found else 404))
                if refused:
                    realm = f'Bearer realm="http://{outer.host}/token",service="r",scope="repository:x:pull"'
                    self.send_header("WWW-Authenticate", realm)
                self.send_header("Docker-Content-Digest", "sha256:0123456789abcdef")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def images():
    serving = Registry()
    serving.token = None
    yield serving
    serving.close()


def told(folder: Path, api: Api, serving: Registry, capsys, **more: object) -> tuple[bool, dict[str, str]]:
    """What the doctor says: whether all is well, and by line the word and what follows."""
    (folder / "token").write_text(TOKEN)
    given = {
        "endpoint": api.url, "namespace": "team", "auth": {"tokenFile": "token"},
        "images": {"cpu": f"{serving.host}/gradworks/cpu", "gpu": f"{serving.host}/gradworks/gpu"}, **more,
    }  # fmt: skip
    (folder / "cluster.yaml").write_text(yaml.safe_dump({k: v for k, v in given.items() if v is not None}))
    good = doctor.check(folder / "cluster.yaml")
    printed = capsys.readouterr().out
    assert TOKEN not in printed
    lines, name = {}, ""
    for line in printed.splitlines():
        if line.startswith(" "):
            lines[name] += f"\n{line.strip()}"
            continue
        word, rest = line[:12].strip(), line[13:]
        name, _, said = rest.partition(":")
        lines[name] = f"{word}: {said.strip()}"
    return good, lines


def well(images: Registry) -> None:
    images.images.add(f"gradworks/cpu:{environment.digest(toy.ROOT, 'cpu')}")


def test_all_is_well_and_nothing_stays(world, api, images, tmp_path, capsys):
    well(images)
    before = list(Places(toy.REMOTE).list(""))
    good, lines = told(tmp_path, api, images, capsys)
    assert good and [line.partition(":")[0] for line in lines.values()] == ["ok"] * 10
    assert list(lines) == [
        "profile", "endpoint", "login", "namespace", "bucket", "bucket write", "bucket read", "bucket delete", "code",
        "image cpu",
    ]  # fmt: skip
    assert "several users" in lines["endpoint"] and lines["namespace"] == "ok: team"
    assert lines["bucket write"].startswith("ok: s3://gradworks/toy/gradworks/doctor/")
    assert list(Places(toy.REMOTE).list("")) == before
    assert api.asked == ["GET /healthz", "GET /experiments"] and api.experiments == {} and api.bodies == []


@pytest.mark.parametrize(
    ("page", "endpoint", "login", "namespace"),
    [
        ("login redirect", "ok", "failed: .*redirect to a login page.*\nauth.tokenFile in", "not checked"),
        ("echo", "ok", "failed: .*found 401", "not checked"),
        ("mesh", "ok", "failed: .*found 403.*\n.*\nset namespace in", "not checked"),
        ("moved", "failed: .*redirect to https://new.example.org/pipeline\nset endpoint", "not checked", "not checked"),
        ("gateway", "failed: .*found 503", "not checked", "not checked"),
        ("dashboard", "failed: .*web page", "not checked", "not checked"),
    ],
)  # fmt: skip
def test_which_of_endpoint_login_and_namespace_it_is(
    world, api, images, tmp_path, capsys, page, endpoint, login, namespace
):
    well(images)
    api.page = page
    good, lines = told(tmp_path, api, images, capsys)
    assert not good
    for name, expected in (("endpoint", endpoint), ("login", login), ("namespace", namespace)):
        assert re.match(expected, lines[name]), lines
    assert [name for name, line in lines.items() if line.startswith("failed")] != []
    assert lines["bucket delete"].startswith("ok")  # the rest is looked at all the same


def test_the_login_and_the_namespace_themselves(world, api, images, tmp_path, capsys):
    well(images)
    good, lines = told(tmp_path, api, images, capsys, namespace="theirs")
    assert not good and lines["login"].startswith("ok")
    assert "failed" in lines["namespace"] and "User 'ann' is not authorized" in lines["namespace"]
    good, lines = told(tmp_path, api, images, capsys, namespace=None)
    assert not good and lines["login"] == "not checked: only a namespace can be asked for"
    assert lines["namespace"].startswith("failed: found none\nset namespace in")
    api.token, api.spaces = "another", None
    good, lines = told(tmp_path, api, images, capsys)
    assert not good and lines["endpoint"].startswith("ok") and "failed" in lines["login"]
    good, lines = told(tmp_path, api, images, capsys, auth={"tokenFile": "none"})
    assert not good and "auth.tokenFile: " in lines["endpoint"] and lines["login"].startswith("not checked")
    good, lines = told(tmp_path, api, images, capsys, endpoint=None)
    assert not good and "endpoint: missing" in lines["endpoint"] and lines["namespace"].startswith("not checked")


def test_an_installation_for_one_user_needs_no_namespace(world, api, images, tmp_path, capsys):
    well(images)
    api.spaces = None
    good, lines = told(tmp_path, api, images, capsys, namespace=None)
    assert good and lines["namespace"] == "ok: the installation's own"


def test_a_profile_that_is_wrong(world, api, images, tmp_path, capsys):
    good, lines = told(tmp_path, api, images, capsys, gpu={})
    assert not good and "gpu: unknown key" in lines["profile"] and "failed" in lines["profile"]
    assert {line.partition(":")[0] for name, line in lines.items() if name != "profile"} == {"not checked"}
    assert api.asked == []


def test_a_bucket_that_may_not_be_written(world, api, images, tmp_path, capsys, monkeypatch):
    well(images)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    good, lines = told(tmp_path, api, images, capsys)
    assert not good and "does not know the access key (InvalidAccessKeyId)" in lines["bucket write"]
    assert lines["bucket read"] == lines["bucket delete"] == "not checked: nothing could be written"
    assert "planted" not in json.dumps(lines)


def test_what_comes_back_is_looked_at(world, api, images, tmp_path, capsys, monkeypatch):
    well(images)
    monkeypatch.setattr(Places, "get", lambda *_: b"other")
    good, lines = told(tmp_path, api, images, capsys)
    assert not good and lines["bucket read"].endswith("found other bytes") and lines["bucket delete"].startswith("ok")


def test_a_delete_that_does_nothing_is_seen(world, api, images, tmp_path, capsys, monkeypatch):
    well(images)
    real, left = Places.delete, []
    monkeypatch.setattr(Places, "delete", lambda _, keys: left.extend(keys))
    good, lines = told(tmp_path, api, images, capsys)
    assert not good and "still there after it was deleted" in lines["bucket delete"]
    real(Places(toy.REMOTE), left)


def test_changes_that_are_not_committed(world, api, images, tmp_path, capsys):
    well(images)
    (world / "new.txt").write_text("x")
    try:
        good, lines = told(tmp_path, api, images, capsys)
    finally:
        (world / "new.txt").unlink()
    assert not good and lines["code"] == "failed: new.txt: changed, but not committed\ngit commit, or submit --dirty"


def test_images(world, api, images, tmp_path, capsys):
    tag = environment.digest(toy.ROOT, "cpu")
    good, lines = told(tmp_path, api, images, capsys)
    assert (
        not good and f"gradworks/cpu:{tag}: {images.host} does not have it\nbuild it: make images" in lines["image cpu"]
    )
    images.token = ""  # a login of one's own is needed
    good, lines = told(tmp_path, api, images, capsys)
    assert good and lines["image cpu"].startswith("not checked: ") and lines["image cpu"].endswith("wants a login")
    images.token = "given"  # everybody is given a token
    well(images)
    good, lines = told(tmp_path, api, images, capsys)
    assert good and lines["image cpu"].endswith(f"gradworks/cpu:{tag} sha256:0123456789ab")
    assert images.asked[-2] == "/token?service=r&scope=repository%3Ax%3Apull"
    images.status = 502
    assert told(tmp_path, api, images, capsys)[1]["image cpu"].endswith("answered 502")
    own = {"cpu": f"{images.host}/x:mine", "gpu": "y"}
    images.status, images.token = 0, None
    assert (
        "the profile sets its tag; or set images.cpu" in told(tmp_path, api, images, capsys, images=own)[1]["image cpu"]
    )
    gone = {"cpu": "127.0.0.1:9/x", "gpu": "y"}
    good, lines = told(tmp_path, api, images, capsys, images=gone)
    assert good and lines["image cpu"].endswith("127.0.0.1:9 did not answer (ConnectionError)")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("gradworks-cpu:1", ("registry-1.docker.io", "library/gradworks-cpu", "1")),
        ("team/cpu", ("registry-1.docker.io", "team/cpu", "latest")),
        ("localhost:5000/a/b:c", ("localhost:5000", "a/b", "c")),
        ("localhost/a", ("localhost", "a", "latest")),
        ("r.example.org/a/b@sha256:0f", ("r.example.org", "a/b", "sha256:0f")),
        ("r.example.org/a:tag@sha256:0f", ("r.example.org", "a", "sha256:0f")),
    ],
)
def test_the_name_of_an_image(image, expected):
    assert registry.parts(image) == expected


TRAILER = b"2a\r\n%s\r\n0\r\nx-amz-checksum-crc32:sOO8/Q==\r\n\r\n"  # what a store keeps that knows no trailer


def test_a_store_that_keeps_the_checksum_in_the_object_is_told_which_variable_mends_it(
    world, api, images, tmp_path, capsys, monkeypatch
):
    well(images)
    real = Places.put
    monkeypatch.setattr(Places, "put", lambda self, key, body: real(self, key, TRAILER % body))
    good, lines = told(tmp_path, api, images, capsys)
    assert not good and lines["bucket read"].startswith("failed: s3://gradworks/toy/gradworks/doctor/")
    assert (
        "keeps boto3's checksum as part of it\nexport AWS_REQUEST_CHECKSUM_CALCULATION=when_required here, and"
        in (lines["bucket read"])
    )


def test_a_store_that_gives_the_whole_checksum_with_a_part(world, api, images, tmp_path, capsys, monkeypatch):
    well(images)

    def part(*_: object) -> bytes:
        with s3.in_words("s3://b/k"):
            raise FlexibleChecksumError(error_msg="Expected checksum a did not match calculated checksum: b")

    monkeypatch.setattr(Places, "part", part)
    good, lines = told(tmp_path, api, images, capsys)
    assert not good and "export AWS_RESPONSE_CHECKSUM_VALIDATION=when_required" in lines["bucket read"]


def test_an_image_that_the_profile_lacks(world, api, images, tmp_path, capsys):
    good, lines = told(tmp_path, api, images, capsys, images={"gpu": "r.example/x"})
    assert not good and "it runs in the cpu image, and `images` of the cluster's profile has no cpu" in lines["image"]
