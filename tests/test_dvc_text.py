"""A dvc.lock stage by stage: the plain parser's data, each entry parsed once, and anchors numbered over the file."""

import pytest
import yaml

from gradworks import dvc_text

HEAD = "schema: '2.0'\nstages:\n"
PLAIN = "  {0}:\n    cmd: run\n    outs:\n    - path: {0}\n      size: 3\n"
SHARED = "  {0}:\n    params:\n      p.yaml:\n        one: &id{1:03}\n        - 1\n        two: *id{1:03}\n"


class Parse:
    """Counts what was parsed."""

    def __init__(self):
        self.texts = []

    def __call__(self, text):
        self.texts.append(text)
        return yaml.safe_load(text)


def lock(*entries):
    return HEAD + "".join(entries)


def test_the_data_and_the_text_of_each_stage():
    text = lock(PLAIN.format("train@a"), SHARED.format("b", 1), PLAIN.format("'c: d'"))
    data, texts = dvc_text.Entries(Parse()).load(text)
    assert data == yaml.safe_load(text)
    assert list(texts) == ["train@a", "b", "c: d"]
    assert all(texts[name][0] is data["stages"][name] for name in texts)
    assert HEAD + "".join(one for _, one in texts.values()) == text


def test_only_what_changed_is_parsed_again():
    names = [f"s{i}" for i in range(20)]
    entries, parse = [PLAIN.format(name) for name in names], Parse()
    read = dvc_text.Entries(parse)
    read.load(lock(*entries))
    assert parse.texts == [lock(*entries)]
    entries[7] = entries[7].replace("size: 3", "size: 4")
    changed = lock(*entries, PLAIN.format("new"))
    data, _ = read.load(changed)
    assert data == yaml.safe_load(changed)
    assert parse.texts[1:] == [entries[7], PLAIN.format("new")]
    read.load(changed)
    assert len(parse.texts) == 3


def test_what_a_caller_changes_does_not_come_back():
    read = dvc_text.Entries(Parse())
    text = lock(PLAIN.format("a"), SHARED.format("b", 1))
    data, _ = read.load(text)
    data["stages"]["a"]["outs"][0]["size"] = 5
    data["stages"]["b"]["params"]["p.yaml"]["one"].append(2)
    again, _ = read.load(text)
    assert again == yaml.safe_load(text)


def test_what_is_shared_stays_shared():
    data, _ = dvc_text.Entries(Parse()).load(lock(SHARED.format("b", 1)))
    found = data["stages"]["b"]["params"]["p.yaml"]
    assert found["one"] is found["two"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "schema: '2.0'\n",
        "stages:\n" + PLAIN.format("a"),  # of another schema
        HEAD + "# a comment\n" + PLAIN.format("a"),
        lock(PLAIN.format("a"), PLAIN.format("a")),  # twice
        lock(SHARED.format("a", 1), "  b:\n    params: *id001\n"),  # shared between stages
        lock(PLAIN.format("a"), "  b: [\n"),  # half of a file
    ],
)
def test_a_text_that_dvc_did_not_write_is_left_to_the_plain_parser(text):
    assert dvc_text.Entries(Parse()).load(text) is None


def test_anchors_are_numbered_over_the_file():
    entries = [SHARED.format("a", 1), PLAIN.format("b"), SHARED.format("c", 1), SHARED.format("d", 12)]
    expected = lock(SHARED.format("a", 1), PLAIN.format("b"), SHARED.format("c", 2), SHARED.format("d", 3))
    assert dvc_text.joined(entries, yaml.safe_load) == expected


@pytest.mark.parametrize(
    "entry",
    [
        "  a:\n    cmd: echo &id001 *id001\n",  # of a shell
        "  a:\n    cmd: echo &id1\n",
        '  a:\n    cmd: "&id001 *id001"\n    params: &id002 []\n    more: *id002\n',
        "  a:\n    cmd: 'x &id001 y'\n    params: *id001\n",
    ],
)
def test_what_only_looks_like_an_anchor_is_never_renumbered(entry):
    before = SHARED.format("z", 1)
    made = dvc_text.joined([before, entry], yaml.safe_load)
    assert made is None or made == lock(before, entry)


def test_a_copy_is_the_callers_own():
    one = [1, {"a": None, "b": [2.5, "x"]}]
    data = {"x": one, "y": one, "z": {"k": one, "t": (1,)}}
    made = dvc_text.own(data)
    assert made == data and made["x"] is made["y"] is made["z"]["k"] and made["x"] is not one
    assert made["x"][1]["b"] is not one[1]["b"]
