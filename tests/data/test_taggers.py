"""Parts of speech of texts: words by the tagger, universal tags by the published table."""

import builtins

import pytest

from gradworks import tasks
from gradworks.base.errors import InputError
from gradworks.data import taggers

# Petrov, Das, McDonald 2012, the mapping en-ptb of their repository
PUBLISHED = {
    "VERB": "MD VB VBD VBG VBN VBP VBZ", "NOUN": "NN NNP NNPS NNS", "PRON": "PRP PRP$ WP WP$", "ADJ": "JJ JJR JJS",
    "ADV": "RB RBR RBS WRB", "ADP": "IN", "DET": "DT EX PDT WDT", "NUM": "CD", "CONJ": "CC", "PRT": "POS RP TO",
    "X": "FW LS SYM UH", ".": ", . : ( ) \" # $ `` ''",
}  # fmt: skip


def test_the_table_is_the_published_one():
    assert set(PUBLISHED) == set(taggers.TAGS) and tasks.find("universal_pos", {}).classes == taggers.TAGS
    for tag, penn in PUBLISHED.items():
        assert {one: taggers.universal(one) for one in penn.split()} == dict.fromkeys(penn.split(), tag)


def test_words_and_tags_and_rows_without_a_word():
    records = [
        {"id": "a", "text": "A gripping movie, played with 3.5 stars", "label": None, "author": "x"},
        {"id": "b", "text": " ", "label": None},
        {"id": "c", "text": "New\nYork it's", "label": None},
    ]
    made, without, bad = taggers.tagged(records, "text", taggers.textblob("p: fetch.words"))
    assert bad == [] and without == ["b"] and [one["id"] for one in made] == ["a", "c"] and made[0]["author"] == "x"
    assert made[0]["text"] == "A gripping movie , played with 3.5 stars"
    assert made[0]["label"] == "DET VERB NOUN . VERB ADP NUM NOUN"
    assert made[1]["text"].startswith("New York") and made[1]["label"].startswith("NOUN NOUN")
    for one in made:
        assert len(one["text"].split()) == len(one["label"].split())


def test_without_the_library_a_line_says_what_to_install(monkeypatch):
    plain = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("textblob"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="textblob")
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"p: fetch\.words\.tags: textblob is not installed\nexpected: pip install"):
        taggers.textblob("p: fetch.words")
