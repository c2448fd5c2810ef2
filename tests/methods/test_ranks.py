"""Global law: two ranks of one micro-batch are one process with two micro-batches, bit for bit, dropout on."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist
from torch import nn

from gradworks.methods import Method
from tests.methods import ranks
from tests.methods.toys import TASKS, batch, same

pytestmark = pytest.mark.slow("starts processes")

# they differentiate through the parameters of one process
EXACT = ("maml", "exact")


@pytest.fixture(scope="module")
def sides(tmp_path_factory, request):
    """What one process and what the first of two ended with, by case; of the tests that are run."""
    store = tmp_path_factory.mktemp("ranks") / "store"
    asked = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    cases = [case for case in (*ranks.CASES, *ranks.WRITTEN) if case in asked]
    second = subprocess.Popen([sys.executable, str(Path(ranks.__file__)), str(store), *cases])
    one = ranks.one_side(0, 1, cases)
    two = ranks.one_of_two(0, store, cases)
    assert second.wait(300) == 0
    return one, two


@pytest.mark.parametrize("case", [*ranks.CASES, *ranks.WRITTEN, "from_loaders"])
def test_two_gloo_ranks_are_two_micro_batches_bit_for_bit(sides, case):
    one, two = (side[case] for side in sides)
    assert not isinstance(one, str), one
    if case.split("-")[-1] in EXACT:
        assert isinstance(two, str)
        assert two.startswith("ValueError")
        assert "one process only" in two
    else:
        assert not isinstance(two, str), two
        assert same(one, two)


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["FullyShardedDataParallel", "fully_shard"])
def test_a_sharded_module_is_refused(kind, group):
    from torch.distributed import fsdp

    if kind == "fully_shard":
        sharded = fsdp.fully_shard(nn.Linear(4, 2))
    else:  # its constructor wants an accelerator
        sharded = fsdp.FullyShardedDataParallel.__new__(fsdp.FullyShardedDataParallel)
        nn.Module.__init__(sharded)
        sharded._fsdp_wrapped_module, sharded.training_state = nn.Linear(4, 2), None
    with pytest.raises(ValueError, match=r"model: found FSDP, .* expected the bare module"):
        Method(tasks=TASKS).backward(sharded, [[batch()]])


def test_a_module_wrapped_for_backward_is_refused_with_what_to_give():
    wrapped = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(wrapped)
    with pytest.raises(ValueError, match=r"DistributedDataParallel, expected the module in it, model.module;.*reduce="):
        Method(tasks=TASKS).backward(wrapped, [[batch()]])
