"""Mixtures in the grid: an axis where there are several, phases, and what does not fit."""

import pytest

from gradworks.base.errors import InputError
from gradworks.base.together import led_by
from tests.base.test_cells import blocks, both, expand, longer, phase


def phases(values, **before):
    for name, first in before.items():
        values["mixtures"][name]["from"] = first


def test_a_phase_starts_from_the_same_cell_of_the_mixture_before_it(tmp_path):
    def three(values):
        both(values, ("a", "b", "c")), phase(values), phases(values, b="a", c="b")
        values["ensemble"] = []

    made = expand(tmp_path, three)["train"]
    starts = {name: made[f"clean-erm-{name}-gru-1"]["start"] for name in "abc"}
    before = {"b": "models/clean/erm/a/gru/1", "c": "models/clean/erm/b/gru/1"}
    assert starts == {"a": "pretrain/gru", **before}
    # a method that starts from another goes on from that of its own mixture
    assert made["clean-last_layer-c-gru-1"]["start"] == "models/clean/erm/c/gru/1"


def test_one_mixture_changes_no_name_and_several_are_an_axis(tmp_path):
    before, one = expand(tmp_path), expand(tmp_path, both)
    assert {key: cell["path"] for key, cell in one["train"].items()} == {
        key: cell["path"] for key, cell in before["train"].items()
    }
    assert one["train"]["clean-erm-gru-0"]["mixture"] == "both" and list(one["measure"]) == list(before["measure"])

    def several(values):
        both(values, ("both", "alone")), phase(values), longer(values)
        values["mixtures"]["alone"] = {"parts": ["nli"]}
        values["ensemble"][0]["mixture"] = "alone"

    made = expand(tmp_path, several)
    cell = made["train"]["clean-last_layer-both-gru-1"]
    assert (cell["path"], cell["start"]) == ("clean/last_layer/both/gru/1", "models/clean/erm/both/gru/1")
    assert made["train"]["clean-erm-long-alone-gru-1"]["schedule"].endswith("runs/schedule/alone/gru/dotprod.json")
    rules = {cell["mixture"]: cell["mixture_schedule"] for cell in made["train"].values()}
    assert rules == {"both": "round_robin", "alone": "single"}
    assert {"both-gru-erm", "alone-gru-erm"} <= made["measure"].keys()
    assert made["ensemble"]["clean-erm-alone-gru+cased"]["mixture"] == "alone"


def test_tasks_read_together_are_one_part_to_the_schedule_and_change_no_name(tmp_path):
    def sets(values, **more):
        both(values)
        values["mixtures"]["both"].pop("schedule", None)
        values["mixtures"]["both"] |= {"parts": ["nli", "tone", "sts"], **more}

    plain = expand(tmp_path, sets)["train"]
    for together, schedule in (([["tone", "nli"]], "round_robin"), ([{"nli": 1.0, "tone": 0.5, "sts": 2.0}], "single")):
        made = expand(tmp_path, lambda v, together=together: sets(v, together=together))["train"]
        assert {cell["mixture_schedule"] for cell in made.values()} == {schedule}
        assert made == {key: one | {"mixture_schedule": schedule} for key, one in plain.items()}
    assert [*led_by("tone", {"nli+tone": {"nli": 1.0, "tone": 2.0}})["nli+tone"].items()] == [
        ("tone", 2.0),
        ("nli", 1.0),
    ]
    for more, said in (
        ({"together": [["nli"]]}, r"both:\ntogether: found \['nli'\]\nexpected two tasks or more"),
        ({"together": [["nli", "mnli"]]}, "both:\ntogether: found 'mnli'\nexpected some of the parts: nli, tone, sts"),
        ({"together": [["nli", "tone"], ["tone", "sts"]]}, "both:\ntogether: found tone twice"),
        ({"together": [["nli", "tone"]], "batch": {"nli": 8}}, "both:\nbatch: found other sizes for nli, tone"),
        ({"together": [["nli", "tone"]], "conflicts": 5}, "both:\nconflicts: found it beside together"),
        ({"together": [{"nli": 1.0, "tone": 0.0}]}, "both.together.0"),
        ({"parts": ["nli", "tone", "nli+tone"], "together": [["nli", "tone"]]}, "nli\\+tone is the name of a task too"),
    ):
        with pytest.raises(InputError, match=said):
            expand(tmp_path, lambda v, more=more: sets(v, **more))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: blocks(v)[0].update(mixture=["both"]), r"grid.0.mixture: found \['both'\]\nexpected a section"),
        (lambda v: [both(v), blocks(v)[0].update(mixture=["bth"])], "grid.0.mixture: found 'bth'; did you mean both"),
        (lambda v: [both(v, ("both", "b")), blocks(v)[0].pop("mixture")], "grid.0.mixture: missing\nexpected some of"),
        (lambda v: [both(v, ("a", "b"))], "ensemble.0.mixture: found nothing"),
        (lambda v: [both(v), v["mixtures"]["both"].update(parts=["nli", "nli"])], "both.parts: found"),
        (lambda v: [both(v), v["mixtures"]["both"].update(shedule="x")], "shedule: unknown key; did you mean schedule"),
        (lambda v: v.update(mixtures={}), "mixtures: found {}"),
        (
            lambda v: [both(v), v["mixtures"]["both"].update({"from": "bth"})],
            "both.from: found 'bth'; did you mean both",
        ),
        (lambda v: [both(v), v["mixtures"]["both"].update(epoch="mnli")], "both.epoch: found 'mnli'; did you mean nli"),
        (lambda v: [both(v), v["mixtures"]["both"].update(batch={"sst": 3})], "both.batch: found 'sst'"),
        (lambda v: [both(v), v["mixtures"]["both"].update(layer={"relational": ["sts"]})], "relational: found 'sts'"),
        (lambda v: [both(v, ("a", "b")), phases(v, a="b", b="a")], "a.from: a from b from a\nexpected no circle"),
        (
            lambda v: [both(v, ("a", "b")), phases(v, b="a"), [one.update(mixture=["b"]) for one in blocks(v)]],
            "mixtures.b.from: the cell clean-erm-b-gru-0 starts from clean-erm-a-gru-0\nexpected that cell",
        ),
        (lambda v: [longer(v), v.pop("measure")], "erm-long.as_long_as: nothing is measured"),
    ],
)
def test_what_does_not_fit_of_mixtures_is_refused(tmp_path, change, said):
    with pytest.raises(InputError, match=said):
        expand(tmp_path, change)
