"""A cell as its parameters ask for it: what is refused, and in which words."""

import argparse

import pyarrow as pa
import pytest

from gradworks.base import Params, artifacts, validate
from gradworks.base.errors import InputError
from gradworks.base.points import MethodPoint
from gradworks.cell import Run, Train, method_of, out_of_memory, peak

PARAMS = """
task: nli
train: {epochs: 2, batch: 8, learning_rate: {gru: 0.01}}
methods: {long: {as_long_as: erm}, erm: {}}
mixtures: {both: {parts: [nli, sst2], schedule: round_robin, select: mean}}
"""


@pytest.fixture
def params(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(PARAMS)
    return file


def run(params, method, schedule=None, **more):
    folders = {name: params.parent / name for name in ("data", "start")}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
        (folder / "manifest.json").write_text('{"files": {}}')
    return Run(argparse.Namespace(params=params, method=method, seed=0, **folders, **more), schedule)


def test_a_method_that_takes_as_long_as_another_needs_its_schedule(params):
    with pytest.raises(InputError, match="found erm and no --schedule\nexpected the file that `measure` wrote"):
        run(params, "long")
    file = params.parent / "erm.json"
    file.write_text('{"ratio": 1.5}')
    assert run(params, "long", file).longer == 1.5
    file.write_text('{"ratios": 1.5}')
    with pytest.raises(InputError, match="no ratio in"):
        run(params, "long", file)
    assert run(params, "erm").longer == 1.0


def test_an_entry_that_does_not_fit_is_refused_with_file_and_key(params):
    point = validate({"update": {"dotprod": {"weigth": 1}}}, MethodPoint, "here")
    with pytest.raises(InputError, match=r"methods\.mine: update dotprod: unknown option 'weigth'"):
        method_of(params, "mine", point, run(params, "erm").task, 0)


def test_a_learning_rate_is_needed_for_the_kind_of_model(params):
    with pytest.raises(InputError, match=r"train\.learning_rate: found gru\nexpected a number or one for 'bow'"):
        peak(Params(params), run(params, "erm").settings, "bow")
    assert peak(Params(params), run(params, "erm").settings, "gru") == 0.01


@pytest.mark.parametrize("method, rate", [("erm", 0.01), ("mine", 0.3)])
def test_a_method_may_have_a_learning_rate_of_its_own(params, method, rate):
    params.write_text(PARAMS.replace("erm: {}", "erm: {}, mine: {learning_rate: 0.3}"))
    made = run(params, method)
    artifacts.write_parquet(params.parent / "data/train.parquet", pa.table({"id": ["a", "b", "c"]}))
    assert made.plan("gru").learning_rate == rate


@pytest.mark.parametrize(("asked", "clip"), [(None, 1.0), (0, None), (2.5, 2.5)])
def test_a_method_may_clip_otherwise_or_not_at_all(params, asked, clip):
    more = "" if asked is None else f"clip: {asked}"
    params.write_text(params.read_text().replace("erm: {}", f"erm: {{{more}}}"))
    rows(params.parent / "data", 20)
    assert run(params, "erm").plan("gru").clip == clip


def test_the_section_has_defaults():
    train = validate({"epochs": 1, "batch": 2, "learning_rate": 0.1}, Train, "here")
    assert train.select.metric == "accuracy" and train.clip == 1.0 and train.micro_batch is None


def rows(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.write_parquet(folder / "train.parquet", pa.table({"id": [str(i) for i in range(count)]}))


@pytest.mark.parametrize(("ratio", "batches"), [(None, 6), (1.5, 9), (0.9, 5)])
def test_batches_are_epochs_of_whole_batches_times_the_ratio(params, ratio, batches):
    rows(params.parent / "data", 20)  # three batches of at most 8
    file = params.parent / "erm.json"
    file.write_text(f'{{"ratio": {ratio}}}')
    plan = run(params, "long" if ratio else "erm", file).plan("gru")
    assert plan.batches == batches
    assert (plan.batch, plan.clean_batch, plan.learning_rate, plan.micro) == (8, 32, 0.01, None)


def test_an_epoch_of_a_mixture_is_one_of_each_part(params):
    made = run(params, "erm", mixture="both")
    rows(params.parent / "data", 20)
    with pytest.raises(InputError, match=r"parts/sst2: no such folder\nexpected the splits of sst2, of corrupt.parts"):
        made.plan("gru")
    rows(params.parent / "data/parts/sst2", 9)
    assert made.plan("gru").batches == 2 * (3 + 2)
    assert made.parameters["mixture"]["parts"] == ["nli", "sst2"]
    with pytest.raises(InputError, match=r"no key 'mixtures.other'"):
        run(params, "erm", mixture="other")


def test_an_epoch_is_one_of_the_part_that_is_named_and_batches_have_the_size_of_their_part(params):
    text = params.read_text()
    more = ", batch: {sst2: 3}, epoch: nli"
    params.write_text(text.replace("parts: [nli, sst2]", "parts: [nli, sst2]" + more))
    made = run(params, "erm", mixture="both")
    rows(params.parent / "data", 20)
    rows(params.parent / "data/parts/sst2", 40)
    assert made.plan("gru").batches == 2 * 2 * 3  # epochs, parts in turn, batches of nli
    assert made.parameters["mixture"]["batch"] == {"sst2": 3} and made.parameters["mixture"]["epoch"] == "nli"
    params.write_text(params.read_text().replace(", epoch: nli", ""))
    assert run(params, "erm", mixture="both").plan("gru").batches == 2 * (3 + 14)


def test_which_errors_are_lack_of_memory():
    assert out_of_memory(MemoryError()) and out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: 9"))
    assert not out_of_memory(RuntimeError("a defect")) and not out_of_memory(ValueError("not enough memory"))
