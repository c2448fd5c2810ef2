"""Text files line by line, and word vectors."""

import gzip
import lzma

import pytest
import torch

from gradworks.base.errors import InputError
from gradworks.data import text


@pytest.mark.parametrize(("suffix", "pack"), [(".txt", bytes), (".txt.gz", gzip.compress), (".txt.xz", lzma.compress)])
def test_lines(tmp_path, suffix, pack):
    path = tmp_path / f"corpus{suffix}"
    path.write_bytes(pack("One.\r\n\n  Two é.\nThree".encode()))
    assert list(text.lines(path)) == [(1, "One."), (3, "Two é."), (4, "Three")]
    assert list(text.lines(path, limit=2)) == [(1, "One."), (3, "Two é.")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"ok\nbad \xff\n", "line 2: not UTF-8 at byte 4"),
        ("a.gz", gzip.compress(b"one\ntwo\n" * 99)[:-20], "damaged after line"),
        ("a.xz", b"not xz", "damaged after line 0"),
        ("a.gz", b"not gz", "damaged after line 0"),
        ("none.txt", None, "no such file"),
    ],
    ids=["not UTF-8", "cut off", "not xz", "not gz", "none"],  # packed bytes hold the time: no ids for parallel workers
)
def test_a_bad_file_is_named(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said) as found:
        list(text.lines(path))
    assert str(path) in str(found.value)


def test_vectors(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("the 1 0\nThe 9 9\nat mail.com 2 2\nPilot 0 4\nlast 5 5\n")
    words, table = text.vectors(path, limit=3, lowercase=True)
    assert words == ["[PAD]", "[UNK]", "the", "at mail.com", "pilot"]
    assert table.dtype == torch.float32
    assert table.tolist() == [[0, 0], [1, 2], [1, 0], [2, 2], [0, 4]]
    words, _ = text.vectors(path, limit=None, lowercase=False)
    assert words[2:] == ["the", "The", "at mail.com", "Pilot", "last"]


def test_the_first_line_of_word2vec_is_left_out(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("2 3\na 1 2 3\nb 3 2 1\n")
    words, table = text.vectors(path, None, False)
    assert words[2:] == ["a", "b"] and table.shape == (4, 3)


@pytest.mark.parametrize("line", ["b 1", "b 1 x", "b 1 nan", "b"])
def test_a_bad_vector_is_named(tmp_path, line):
    path = tmp_path / "v.txt"
    path.write_text(f"a 1 2\n{line}\n")
    with pytest.raises(InputError, match=r"v.txt: line 2: found .*\nexpected: a word and 2 numbers"):
        text.vectors(path, None, False)


def test_no_vectors(tmp_path):
    (tmp_path / "v.txt").write_text("\n")
    with pytest.raises(InputError, match="no vectors"):
        text.vectors(tmp_path / "v.txt", None, False)
