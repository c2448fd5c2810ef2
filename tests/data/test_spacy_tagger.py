"""Parts of speech by a pipeline of spaCy: folders and packages, their tags, and what is no tagger."""

from __future__ import annotations

import builtins
import importlib
import importlib.metadata
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
    import spacy

    return spacy


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
    assert about.pop("spacy") == importlib.metadata.version("spacy")
    assert about == {"pipeline": "en_toy", "version": "1.2.3", "components": "attribute_ruler"}
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


def test_tags_without_pos_are_read_where_they_are_known(spacy, tmp_path):
    """Penn's, those of Universal Dependencies, but none of another tagset: as a mark each would be wrong, silently."""
    rules = {"dogs": "NNS", "bark": "VBP", "-": "HYPH", "www": "ADD", "oh": "INTJ", "paris": "PROPN", "so": "ADV",
             "hunde": "VVFIN"}  # fmt: skip
    pipeline(spacy, rules, "TAG").to_disk(tmp_path / "tags")
    tagger, _ = spacy_tagger.load(str(tmp_path / "tags"), "p")
    read, unknown = tagger(["dogs bark - www oh Paris so", "dogs hunde"])
    assert [tag for _, tag in read] == ["NOUN", "VERB", ".", "X", "X", "NOUN", "ADV"]
    assert unknown == "spaCy gives 'hunde' no part of speech that is known: found pos '', tag 'VVFIN'"


def test_texts_that_spacy_does_not_tag_are_said_and_the_others_read(spacy, tmp_path):
    nlp = pipeline(spacy, RULES | {"naïve": "ADJ", "日本": "PROPN", "🙂": "SYM"})
    nlp.to_disk(tmp_path / "toy")
    tagger, _ = spacy_tagger.load(str(tmp_path / "toy"), "p")
    texts = ["the dogs " * 120_000, "naïve 日本 \u00a0\u2003🙂\r\n", "dogs, cats", "", "dogs \ud800", "dogs"]
    long, read, bare, empty, half, last = tagger(texts)
    assert long.startswith("spaCy does not read its text of 1080000 characters: [E088]") and "1000000" in long
    assert read == [("naïve", "ADJ"), ("日本", "NOUN"), ("🙂", "X")] and empty == [] and last == [("dogs", "NOUN")]
    assert bare == "spaCy gives ',' no part of speech that is known: found pos '', tag ''"
    assert half.startswith("spaCy does not read its text of 6 characters: ")
    assert list(tagger(texts)) == [long, read, bare, empty, half, last]


def test_the_parser_runs_where_the_rules_for_pos_ask_it_and_not_else(spacy, tmp_path):
    """So the English pipelines tell the pronoun "that" from the determiner."""
    nlp, words = spacy.blank("en"), ["dogs", "saw", "that"]
    nlp.add_pipe("parser", "my_parser")
    nlp.add_pipe("ner", "names")
    gold = spacy.tokens.Doc(nlp.vocab, words, heads=[1, 1, 1], deps=["nsubj", "ROOT", "dobj"], ents=["O"] * 3)
    example = spacy.training.Example(spacy.tokens.Doc(nlp.vocab, words), gold)
    spacy.util.fix_random_seed(0)
    optimizer = nlp.initialize(lambda: [example] * 30)  # labels that are rarer are none
    for _ in range(20):
        nlp.update([example], sgd=optimizer)
    ruler, found = nlp.add_pipe("attribute_ruler"), []
    for rule, attributes in (
        ({"LOWER": {"IN": ["that", "dogs"]}}, {"POS": "DET"}),
        ({"LOWER": "saw"}, {"POS": "VERB"}),
        ({"DEP": "dobj"}, {"MORPH": "Number=Sing"}),
        ({"DEP": "dobj"}, {"POS": "PRON"}),
    ):
        ruler.add([[rule]], attributes)
        nlp.to_disk(tmp_path / "parsed")
        tagger, about = spacy_tagger.load(str(tmp_path / "parsed"), "p")
        found.append((about["components"], next(tagger(["dogs saw that"]))))
    words_of = [one for _, one in found]
    assert [names for names, _ in found] == ["attribute_ruler"] * 3 + ["my_parser, attribute_ruler"]
    assert isinstance(words_of[0], str) and words_of[1] == words_of[2]
    assert words_of[2] == [("dogs", "DET"), ("saw", "VERB"), ("that", "DET")]
    assert words_of[3] == [("dogs", "DET"), ("saw", "VERB"), ("that", "PRON")]


def test_what_is_no_tagger_is_refused_in_words(spacy, folder, tmp_path, monkeypatch):
    where = r"^p: fetch\.words\.tags: "
    nlp = spacy.blank("en")
    nlp.to_disk(tmp_path / "blank")
    nlp.add_pipe("tok2vec")
    nlp.add_pipe("entity_ruler", "names")
    nlp.to_disk(tmp_path / "names")
    for name, said in (
        (str(tmp_path / "blank"), r"nothing in the spaCy pipeline .*blank tags: found the components none\nexpected"),
        (str(tmp_path / "names"), r"nothing in the spaCy .*names tags: found the components tok2vec, names\nexpected"),
        ("en_core_web_none", r"the spaCy pipeline en_core_web_none cannot be loaded: .*\nexpected an inst"),
        ("./nowhere", r"\./nowhere: no folder with a meta.json\nexpected what spaCy's `to_disk` wrote"),
    ):
        with pytest.raises(InputError, match=where + said) as error:
            spacy_tagger.load(name, "p: fetch.words")
        assert len(str(error.value).splitlines()) <= 3
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

    # rows that the pipeline does not tag are bad rows, with all that follows
    Path("data/train.jsonl").write_text('{"text": "the dogs"}\n{"text": "the cats"}\n')
    said = r"^words/train-2: spaCy gives 'cats' no part .*\n1 of 3 rows are bad, more than .*words.bad_rows: 0.001"
    with pytest.raises(InputError, match=said):
        mixture.run("fetch", "--source", "words", "--out", "runs/fetch/other")
    made["fetch"]["words"]["bad_rows"] = 0.5
    Path("params.yaml").write_text(yaml.safe_dump(made))
    mixture.run("fetch", "--source", "words", "--out", "runs/fetch/other")
    counts = json.loads(Path("runs/fetch/other/manifest.json").read_text())["splits"]["train"]
    assert {key: counts[key] for key in ("rows", "bad", "unlabelled", "lines")} == {
        "rows": 1, "bad": 1, "unlabelled": 0, "lines": 2,
    }  # fmt: skip
    (bad,) = json.loads(Path("runs/fetch/other/bad_rows.json").read_text())["train"]["bad"]
    assert bad["id"] == "words/train-2" and "'cats'" in bad["reason"]

    # what cannot tag is said before the data are read
    shutil.rmtree("toy")
    shutil.rmtree("data")
    with pytest.raises(InputError, match=r"words\.tags: \./toy: no folder with a meta\.json"):
        mixture.run("fetch", "--source", "words", "--out", "runs/fetch/other")
    assert "./toy, of fetch.words.tags" in named_files.not_there(Path("params.yaml"), made)
    made["fetch"]["words"]["tags"] = "spacy"
    Path("params.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(InputError, match=r"tags: found 'spacy', expected textblob, spacy:PACKAGE or spacy:\./FOLDER"):
        mixture.run("fetch", "--source", "words", "--out", "runs/fetch/other")
