"""The contract: what a task offers."""

import pytest

from gradworks import spec


class Heir(spec.Task):
    """Inherits the empty `embed` and `divergence` of the protocol."""

    def outputs(self, model, batch, embedded=None):
        return ()


class Duck:
    """Follows the protocol by shape."""

    def embed(self, model, batch):
        return None


@pytest.mark.parametrize(
    ("task", "part", "expected"),
    [
        (Heir(), "outputs", True), (Heir(), "embed", False), (Heir(), "divergence", False),
        (Duck(), "embed", True), (Duck(), "divergence", False),
    ],
)  # fmt: skip
def test_offers_tells_what_a_task_defines_itself(task, part, expected):
    assert spec.offers(task, part) is expected


def test_offers_sees_functions_set_on_an_instance():
    task = Heir()
    task.embed = lambda model, batch: None
    assert spec.offers(task, "embed")
