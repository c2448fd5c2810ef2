"""Downloads, archives and the hub: whole, checked, or not at all. Everything is served from this machine."""

import contextlib
import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gradworks.base.errors import InputError
from gradworks.data import files, layouts, records, remote
from tests.kinds import kind

TSV = b"premise\thypothesis\tlabel\nP\tH\tneutral\n"


def sha(body):
    return hashlib.sha256(body).hexdigest()


@contextlib.contextmanager
def served(files, promise=0):
    """A server of {path: bytes}; `promise` more bytes are promised than sent."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, dict(self.headers)))
            body = files.get(self.path.partition("?")[0])
            self.send_response(404 if body is None else 200)
            body = b"" if body is None else body
            self.send_header("Content-Length", str(len(body) + promise))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def zipped(files):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return body.getvalue()


def tarred(files, link=None):
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
        if link:
            member = tarfile.TarInfo("link")
            member.type, member.linkname = tarfile.SYMTYPE, link
            archive.addfile(member)
    return body.getvalue()


def test_a_file_behind_a_url(tmp_path):
    body = b"x" * 3_000_000
    with served({"/a/train.tsv": body}) as (host, _):
        path = remote.download(f"{host}/a/train.tsv?version=2", sha(body).upper(), tmp_path)
    assert path == tmp_path / "train.tsv" and path.read_bytes() == body


def test_what_is_not_the_file_is_not_kept(tmp_path):
    with served({"/train.tsv": TSV}) as (host, _):
        with pytest.raises(InputError, match=rf"{host}/train.tsv: found sha256 {sha(TSV)}\nexpected {'0' * 64}"):
            remote.download(f"{host}/train.tsv", "0" * 64, tmp_path)
        with pytest.raises(InputError, match=rf"{host}/dev.tsv: Not Found"):
            remote.download(f"{host}/dev.tsv", sha(TSV), tmp_path)
    with pytest.raises(InputError, match=r"Connection refused"):
        remote.download(f"{host}/train.tsv", sha(TSV), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_connection_that_breaks(tmp_path):
    said = rf"train.tsv: ended after {len(TSV)} of {len(TSV) + 10} bytes\n"
    with served({"/train.tsv": TSV}, promise=10) as (host, _), pytest.raises(InputError, match=said):
        remote.download(f"{host}/train.tsv", sha(TSV), tmp_path)
    assert not list(tmp_path.iterdir())


def test_s3(tmp_path, monkeypatch):
    with served({"/bucket/some/train.tsv": TSV}) as (host, asked):
        for key, value in {
            "AWS_ENDPOINT_URL": host, "AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "hidden",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_MAX_ATTEMPTS": "1",
        }.items():  # fmt: skip
            monkeypatch.setenv(key, value)
        path = remote.download("s3://bucket/some/train.tsv", sha(TSV), tmp_path)
        assert path.read_bytes() == TSV
        assert "Credential=someone/" in asked[0][1]["Authorization"]
        with pytest.raises(InputError, match=r"s3://bucket/other.tsv: ") as caught:
            remote.download("s3://bucket/other.tsv", sha(TSV), tmp_path)
        assert "hidden" not in str(caught.value)


def test_s3_without_credentials(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for key, value in {
        "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    with pytest.raises(InputError, match=r"s3://b/k.tsv: Unable to locate credentials"):
        remote.download("s3://b/k.tsv", sha(TSV), tmp_path)


@pytest.mark.parametrize("name, pack", [("a.zip", zipped), ("a.tar.gz", tarred)])
def test_archives(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack({"RTE/train.tsv": TSV, "RTE/dev.tsv": TSV}))
    folder = remote.unpack(tmp_path / name, "https://host/a")
    assert sorted(p.name for p in folder.iterdir()) == ["dev.tsv", "train.tsv"]
    assert (folder / "train.tsv").read_bytes() == TSV


def test_what_macos_puts_into_archives_is_no_data(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"RTE/train.tsv": TSV, "RTE/._train.tsv": b"x", "__MACOSX/._RTE": b"x"}))
    folder = remote.unpack(tmp_path / "a.zip", "https://host/a")
    assert list(files.splits_of(folder, None, "p")) == ["train"]


@pytest.mark.parametrize("inside", [{}, {"README.md": b"x"}, {"a/train.tsv": TSV, "b/train.tsv": TSV}])
def test_an_archive_of_which_nothing_is_left(tmp_path, inside):
    (tmp_path / "a.zip").write_bytes(zipped(inside))
    with pytest.raises(InputError, match=rf"no data file\n.*\nfound: {', '.join(inside) or 'none'};"):
        files.splits_of(remote.unpack(tmp_path / "a.zip", "https://host/a"), None, "p")


def test_a_single_file_is_its_own_folder(tmp_path):
    (tmp_path / "train.tsv").write_bytes(TSV)
    assert remote.unpack(tmp_path / "train.tsv", "https://host/train.tsv") == tmp_path


@pytest.mark.parametrize(
    "name, body",
    [
        ("a.zip", zipped({"../out.tsv": TSV})),
        ("a.zip", zipped({"/out.tsv": TSV})),
        ("a.zip", zipped({"a/..\\out.tsv": TSV})),
        ("a.tar.gz", tarred({"../out.tsv": TSV})),
        ("a.tar.gz", tarred({"in.tsv": TSV}, link="/etc/passwd")),
        ("a.zip", b"PK no"),
        ("a.tar.gz", tarred({"in.tsv": TSV})[:50]),
    ],
    ids=["above", "absolute", "above by backslash", "above in tar", "link", "not zip", "cut off"],
)
def test_archives_that_are_damaged_or_lead_out(tmp_path, name, body):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / name).write_bytes(body)
    with pytest.raises(InputError, match=r"^https://host/a: "):
        remote.unpack(inside / name, "https://host/a")
    assert [p.name for p in tmp_path.iterdir()] == ["inside"]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository as the hub stores it: Parquet files per split, features in their metadata."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "owner--name"
    (folder / "data").mkdir(parents=True)
    features = datasets.Features(
        premise=datasets.Value("string"), hypothesis=datasets.Value("string"),
        label=datasets.ClassLabel(names=["contradiction", "entailment", "neutral"]),  # an order of its own
    )  # fmt: skip
    for split, labels in {"train": [0, 1, 2, -1], "test": [-1, -1]}.items():
        texts = [f"{split} {i}" for i in range(len(labels))]
        made = datasets.Dataset.from_dict({"premise": texts, "hypothesis": texts, "label": labels}, features=features)
        made.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("# A data set\n")
    return folder


def test_the_hub(repository):
    made, left_out = remote.hub(kind("nli"), str(repository), "0" * 40, None, "s")
    assert list(made) == ["train"] and list(left_out) == ["test"]
    assert left_out["test"].endswith("/test: 2 rows, none with a label in the column 'label'")
    assert [one["label"] for one in made["train"].records] == ["contradiction", "entailment", "neutral"]
    assert made["train"].records[0]["id"] == "s/train-1" and len(made["train"].unlabelled) == 1


def stored(folder, **splits):
    """A repository whose splits have these labels, in a column called `gold` (with `features`, where given)."""
    import datasets

    (folder / "data").mkdir(parents=True)
    text, features = datasets.Value("string"), splits.pop("features", None)
    for split, labels in splits.items():
        texts = [f"{split} {i}" for i in range(len(labels))]
        made = {"premise": texts, "hypothesis": texts, "gold": labels}
        kinds = features and datasets.Features(premise=text, hypothesis=text, gold=features)
        datasets.Dataset.from_dict(made, features=kinds).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


def labels_of(folder, **asked):
    made, left_out = remote.hub(kind("nli"), folder, "0" * 40, None, "s", records.Asked({"label": "gold"}, **asked))
    return {split: [one["label"] for one in read.records] for split, read in made.items()}, list(left_out)


def test_the_hubs_label_column_is_read_in_all_rows_of_each_split(repository, tmp_path):
    folder = stored(tmp_path / "a", train=[-1, 2, 0], validation_matched=[-1, 1], test_matched=[-1, -1])
    assert labels_of(folder) == ({"train": ["contradiction", "entailment"], "validation_matched": ["neutral"]},
                                 ["test_matched"])  # fmt: skip
    folder = stored(tmp_path / "b", train=[None, "neutral", "-1", " ENTAILMENT"])
    assert labels_of(folder) == ({"train": ["neutral", "entailment"]}, [])
    with pytest.raises(InputError, match=r"/train: no column for label: expected 'gold_label' or"):
        remote.hub(kind("nli"), folder, "0" * 40, None, "s")
    with pytest.raises(InputError, match=r"/train: 2 rows, none with a label in the column 'gold'"):
        labels_of(stored(tmp_path / "c", train=[-1, -1]))


def test_answers_of_the_hub_have_their_question(repository, tmp_path):
    import datasets

    rows = {"paragraph": ["p", "p", "q"], "question": ["x", "x", "y"], "answer": ["a", "b", "c"], "label": [0, 1, 1],
            "idx": [{"paragraph": 3, "question": 4 + i // 2, "answer": i} for i in range(3)]}  # fmt: skip
    (tmp_path / "m/data").mkdir(parents=True)
    made = datasets.Dataset.from_dict(rows).cast_column("label", datasets.ClassLabel(names=["False", "True"]))
    made.to_parquet(tmp_path / "m/data/validation-00000-of-00001.parquet")
    found = remote.hub(kind("multirc"), str(tmp_path / "m"), "0" * 40, None, "m")[0]["validation"]
    assert [(one["group"], one["passage"], one["label"]) for one in found.records] == [
        ("3-4", "p", "false"), ("3-4", "p", "true"), ("3-5", "q", "true"),
    ]  # fmt: skip
    assert "group" not in remote.hub(kind("nli"), str(repository), "0" * 40, None, "s")[0]["train"].records[0]


def test_the_hubs_classes_and_what_the_source_says_of_them(repository, tmp_path):
    import datasets

    own = datasets.ClassLabel(names=["contradiction", "yes", "neutral"])
    folder = stored(tmp_path / "a", train=[0, 1, 2, -1], features=own)
    assert labels_of(folder, labels={"yes": "entailment"})[0]["train"] == ["contradiction", "entailment", "neutral"]
    assert labels_of(folder, labels={"1": "entailment"})[0]["train"] == ["contradiction", "entailment", "neutral"]


def test_a_parquet_row_that_is_no_text_costs_that_row(tmp_path):
    import pyarrow as pa

    ends = b"".join(n.to_bytes(4, "little") for n in (0, 1, 3, 4))
    texts = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(ends), pa.py_buffer(b"a\xff\xfeb")])
    assert list(layouts.rows_of(pa.table({"t": texts}))) == [
        (1, {"t": "a"}),
        (2, "not UTF-8: byte 0xff"),
        (3, {"t": "b"}),
    ]


def test_the_hub_refuses_what_is_not_parquet(repository, tmp_path):
    other = tmp_path / "owner--csv"
    other.mkdir()
    (other / "train.csv").write_text("premise,hypothesis,label\nP,H,0\n")
    with pytest.raises(InputError, match=r"stored as 'csv'\nexpected a Parquet repository"):
        remote.hub(kind("nli"), str(other), "0" * 40, None, "s")
    with pytest.raises(InputError, match=r"^hub:nobody/nothing@0{40}: "):
        remote.hub(kind("nli"), "nobody/nothing", "0" * 40, None, "s")
