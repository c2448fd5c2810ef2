"""Parts of speech by a pipeline of spaCy: folders and packages, their tags, and what is no tagger."""

from __future__ import annotations

import builtins
import importlib
import json
import shutil
from pathlib import Path

import pytest
import yaml

from gradworks import named_files
from gradworks.base import artifacts, cells, sources
from gradworks.base.errors import InputError
from gradworks.data import spacy_tagger
from tests.components import test_mixture as mixture

RULES = {
    "dogs": "NOUN", "paris": "PROPN", "is": "AUX", "barks": "VERB", "and": "CCONJ", "if": "SCONJ", "not": "PART",
    "oh": "INTJ", "$": "SYM", "!": "PUNCT", "3": "NUM", "the": "DET", "in": "ADP", "big": "ADJ", "so": "ADV",
    "i": "PRON",
}  # fmt: skip
OTHERS = {
    "PROPN": "NOUN", "AUX": "VERB", "CCONJ": "CONJ", "SCONJ": "CONJ", "PART": "PRT", "PUNCT": ".", "SYM": "X",
    "INTJ": "X",
}  # fmt: skip
TWELVE = [OTHERS.get(tag, tag) for tag in RULES.values()]


@pytest.fixture(scope="module")
def spacy():
    return pytest.importorskip("spacy", reason="no spaCy: pip install 'gradworks[spacy]'")


def pipeline(spacy, rules: dict[str, str], name: str = "POS"):
    """A pipeline that knows some words."""
    nlp = spacy.blank("en", meta={"name": "toy", "version": "1.2.3"})
    ruler = nlp.add_pipe("attribute_ruler")
    for word, tag in rules.items():
        ruler.add([[{"LOWER": word}]], {name: tag})
    return nlp


@pytest.fixture(scope="module")
def folder(spacy, tmp_path_factory):
    nlp = pipeline(spacy, RULES)
    nlp.add_pipe("sentencizer")
    made = tmp_path_factory.mktemp("spacy") / "toy"
    nlp.to_disk(made)
    return made


def test_a_folder_and_a_package_give_the_twelve_tags_of_their_words(folder, tmp_path, monkeypatch):
    tagger, about = spacy_tagger.load(str(folder), "p: fetch.words")
    texts = [" ".join(RULES), "", "  Dogs\n\tin  Paris ! "]
    first = list(tagger(iter(texts)))
    assert [tag for _, tag in first[0]] == TWELVE and [word for word, _ in first[0]] == list(RULES)
    assert first[1] == [] and first[2] == [("Dogs", "NOUN"), ("in", "ADP"), ("Paris", "NOUN"), ("!", ".")]
    assert about.pop("spacy") and about == {"pipeline": "en_toy", "version": "1.2.3"}
    # as `python -m spacy package` lays it out
    package = tmp_path / "en_toy"
    shutil.copytree(folder, package / "en_toy-1.2.3")
    shutil.copy(folder / "meta.json", package / "meta.json")
    load = "def load(**more):\n    return load_model_from_init_py(__file__, **more)\n"
    (package / "__init__.py").write_text(f"from spacy.util import load_model_from_init_py\n{load}")
    (tmp_path / "en_toy-1.2.3.dist-info").mkdir()
    (tmp_path / "en_toy-1.2.3.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: en_toy\nVersion: 1.2.3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    tagger, _ = spacy_tagger.load("en_toy", "p: fetch.words")
    assert list(tagger(texts)) == first


def test_penn_tags_alone_are_read_by_the_table_and_long_texts_are_read(spacy, tmp_path):
    pipeline(spacy, {"dogs": "NNS", "bark": "VBP"}, "TAG").to_disk(tmp_path / "penn")
    tagger, _ = spacy_tagger.load(str(tmp_path / "penn"), "p")
    assert list(tagger(["dogs bark"])) == [[("dogs", "NOUN"), ("bark", "VERB")]]
    (long,) = tagger(["dogs bark " * 120_000])  # spaCy refuses more than a million characters
    assert len(long) == 240_000


def test_what_is_no_tagger_is_refused_in_words(spacy, folder, tmp_path, monkeypatch):
    where = r"^p: fetch\.words\.tags: "
    tagger, _ = spacy_tagger.load(str(folder), "p: fetch.words")
    with pytest.raises(InputError, match=rf"{where}the spaCy .*toy: no part of speech for 'cats': found pos ''"):
        list(tagger(["dogs", "cats"]))
    for name, said in (
        ("en_core_web_none", r"the spaCy pipeline en_core_web_none cannot be loaded: .*\nexpected an inst"),
        ("./nowhere", r"\./nowhere: no folder with a meta.json\nexpected what spaCy's `to_disk` wrote"),
    ):
        with pytest.raises(InputError, match=where + said):
            spacy_tagger.load(name, "p: fetch.words")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "config.cfg").write_text("[nlp]\nlang = en\n")
    with pytest.raises(InputError, match=f"{where}the spaCy pipeline .*broken cannot be loaded") as error:
        spacy_tagger.load(str(broken), "p: fetch.words")
    assert len(str(error.value).splitlines()) <= 3
    plain = builtins.__import__

    def without(name, *rest, **more):
        if name == "spacy":
            raise ModuleNotFoundError("No module named 'spacy'", name="spacy")
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=rf"{where}spacy is not installed\nexpected: pip install 'gradworks\[spacy\]'"):
        spacy_tagger.load("en_core_web_sm", "p: fetch.words")


def test_a_source_is_tagged_by_a_folder_which_its_stage_depends_on(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "toy")
    Path("data").mkdir()
    for split in ("train", "test"):
        Path(f"data/{split}.jsonl").write_text('{"text": "the dogs and Paris"}\n')
    made = mixture.values()
    made["cells"]["grid"][0]["mixture"] = ["both"]
    made["fetch"]["words"] = {"from": "file:data", "task": "universal_pos", "tags": "spacy:./toy"}
    Path("params.yaml").write_text(yaml.safe_dump(made))
    mixture.run("fetch", "--source", "words", "--out", "runs/fetch/words")
    table = artifacts.read_parquet(Path("runs/fetch/words/train.parquet"))
    assert table["text"].to_pylist() == ["the dogs and Paris"] and table["label"].to_pylist() == ["DET NOUN CONJ NOUN"]
    manifest = json.loads(Path("runs/fetch/words/manifest.json").read_text())
    assert manifest["tagger"]["pipeline"] == "en_toy" and manifest["tagger"]["version"] == "1.2.3"

    found = sources.dependencies(made["fetch"])
    assert found["words"] == {"dep": "data", "tagger": "./toy"} and found["mine"]["tagger"] == "versions.json"
    assert "tagger" not in sources.dependencies({"words": made["fetch"]["words"] | {"tags": "spacy:toy"}})["words"]
    assert "- ${item.tagger}" in cells.definition(Path("params.yaml"), made) and "./toy, of fetch.words.tags" not in (
        named_files.not_there(Path("params.yaml"), made)
    )
    shutil.rmtree("toy")
    assert "./toy, of fetch.words.tags" in named_files.not_there(Path("params.yaml"), made)

    made["fetch"]["words"]["tags"] = "spacy"
    Path("params.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(InputError, match=r"tags: found 'spacy', expected textblob, spacy:PACKAGE or spacy:\./FOLDER"):
        mixture.run("fetch", "--source", "words", "--out", "runs/fetch/other")
