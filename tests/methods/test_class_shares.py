"""The share of each class in the weights of `reweight`: in the log, and a warning after an epoch without any."""

import pytest
import torch

from gradworks.methods import Method
from gradworks.methods.weightings.reweight import Reweight
from gradworks.trace import Trace
from tests.methods.toys import TASKS, Net, build, draw
from tests.test_loop import fit


def shares(report):
    return {k.removeprefix("class_share_"): v for k, v in report.log.items() if k.startswith("class_share_")}


@pytest.mark.parametrize("backend", ["ghost", "logit_fd"])
@pytest.mark.parametrize("every", [1, 2])
def test_the_log_has_the_share_of_each_class_over_all_micro_batches(backend, every):
    model = build(Net)
    one = Method(weighting={"reweight": {"backend": backend, "every": every}}, tasks=TASKS)
    for k in range(3):
        batches, clean = draw(1, n=12, micro=5, seed=100 + k)
        report = one.backward(model, batches, clean)
        weights = torch.cat([part.weights for part in report.sums[0]])
        labels = torch.cat([b.labels for b in batches[0]])
        expected = {f"three_{c}": float(weights[labels == c].sum() / weights.sum()) for c in labels.unique().tolist()}
        assert shares(report) == pytest.approx(expected, rel=1e-5)
        assert sum(expected.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["reg", "span", "seq"])
def test_labels_that_are_no_classes_have_no_shares(kind):
    report = Method(weighting="reweight", tasks=TASKS).backward(build(Net), *draw(1, kind, n=8, seed=140))
    assert shares(report) == {}


def test_a_skipped_step_gives_no_class_a_share():
    class Nothing(Reweight):
        def rectified(self, score):
            return torch.zeros_like(score)

    report = Method(weighting=Nothing(), tasks=TASKS).backward(build(Net), *draw(1))
    assert report.skipped and set(shares(report).values()) == {0.0}


class Blind(Reweight):
    """Gives class 2 no weight in steps 8 to 23: the second and third epoch of 60 examples begin at 8 and 16."""

    first = 8

    def __init__(self):
        super().__init__("logit_fd")
        self.made = 0

    def weights(self, here, outputs, losses):
        weights, score = super().weights(here, outputs, losses)
        self.made += 1
        weights = weights + 0.1
        return (weights * (here.batch.labels != 2) if self.made >= self.first else weights), score


def test_the_loop_warns_once_of_a_class_without_weight_for_an_epoch(capsys):
    _, trace = fit(weighting=Blind())
    said = [line for line in capsys.readouterr().out.splitlines() if "no weight" in line]
    assert said == ["train: class nli_2 got no weight in an epoch, see methods/weightings/reweight.py"]
    assert {key for _, key, _ in trace.statistics} >= {"class_share_nli_0", "class_share_nli_2"}
    _, _ = fit(weighting="reweight")
    assert "no weight" not in capsys.readouterr().out


def test_an_epoch_ends_where_all_examples_were_met():
    def traced(rows, size=20):
        trace, found = Trace(), []
        for step, (examples, figures) in enumerate(rows, 1):
            trace.step, trace.examples = step, examples
            trace.history.append({"step": step, "examples": examples})
            trace.statistics += [[step, f"class_share_t_{c}", share] for c, share in figures.items()]
            found.append(trace.without_weight(size))
        return found

    assert traced([(10, {0: 1.0, 1: 0.0}), (20, {0: 1.0, 1: 0.0})]) == [[], ["t_1"]]
    assert traced([(10, {0: 1.0, 1: 0.1}), (20, {0: 1.0, 1: 0.0})]) == [[], []]
    assert traced([(10, {1: 0.0}), (20, {1: 0.5}), (30, {1: 0.0}), (40, {1: 0.0})]) == [[], [], [], ["t_1"]]
    assert traced([(15, {1: 0.0}), (30, {1: 0.5}), (45, {1: 0.0})]) == [[], [], []]
    assert traced([(15, {1: 0.5}), (30, {1: 0.0}), (45, {1: 0.0})]) == [[], [], ["t_1"]]
    assert traced([(10, {}), (20, {})]) == [[], []]
