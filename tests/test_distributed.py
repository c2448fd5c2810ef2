"""A world of processes: sums in the order of the ranks, flags, and what torchrun's environment says."""

import pytest
import torch
import torch.multiprocessing as mp

from gradworks import distributed
from gradworks.base.device import ASKED
from gradworks.base.errors import InputError
from gradworks.distributed import World, launch, place, wanted

_G = torch.Generator().manual_seed(0)  # 1e8 + 1 - 1e8 is 0 in float32, in another order 1
VALUES = [torch.cat([torch.tensor([first, -0.0]), torch.randn(999, generator=_G)]) for first in (1e8, 1.0, -1e8)]


def one_rank(rank, size, port, folder):
    import os

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
    world = World.current()
    tensors = [VALUES[rank].clone(), torch.tensor([[rank + 1]]), VALUES[rank][:2].double()]
    world.sum(tensors)
    flags = [world.any(rank == 1), world.any(False)]
    world.same(5)
    with pytest.raises(InputError, match=r"found those of the steps 0, 1.* on the ranks"):
        world.same(rank)
    torch.save((world.rank, world.size, world.first, tensors, flags), f"{folder}/{rank}.pt")
    world.close()


@pytest.mark.slow("several processes")
@pytest.mark.parametrize("size", [2, 3])
def test_sums_are_in_the_order_of_the_ranks_and_the_same_on_all(size, tmp_path):
    from tests.telemetry.servers import free_port

    mp.spawn(one_rank, (size, free_port(), str(tmp_path)), size)
    expected = VALUES[0].clone()
    for value in VALUES[1:size]:
        expected += value
    for rank in range(size):
        found, of, first, tensors, flags = torch.load(tmp_path / f"{rank}.pt")
        assert (found, of, first) == (rank, size, rank == 0)
        assert torch.equal(tensors[0], expected) and tensors[0][1].signbit()
        assert tensors[1].tolist() == [[size * (size + 1) // 2]] and tensors[1].dtype == torch.int64
        assert torch.equal(tensors[2], sum(v[:2].double() for v in VALUES[:size]))
        assert flags == [True, False]


def test_each_micro_batch_is_one_ranks():
    parts = list("abcdef")
    taken = [World(rank, 3).mine(parts) for rank in range(3)]
    assert taken == [["a", "d"], ["b", "e"], ["c", "f"]]
    assert World().mine(parts) == parts


def test_one_process_needs_no_group():
    world, tensors = World(), [torch.tensor([1.0])]
    world.sum(tensors)
    assert tensors[0].item() == 1.0 and world.any(True) is True and world.any(False) is False and world.first
    assert place({}) == place({"WORLD_SIZE": "1", "RANK": "0"}) == (0, 1)
    assert place({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "RANK": "3"}) == (3, 4)
    assert place({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3", "GROUP_WORLD_SIZE": "2"}) == (3, 4)
    world.same(7)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5"}, "8 processes, 4 of them on this node of 1"),
        ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "3", "RANK": "5", "GROUP_WORLD_SIZE": "2"}, "of 2\nexpected the same"),
        ({"WORLD_SIZE": "8", "RANK": "5"}, "without torchrun"),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "without torchrun"),
    ],
)
def test_uneven_nodes_and_other_launchers_are_refused(environment, said):
    with pytest.raises(InputError, match=said):
        place(environment)


@pytest.mark.parametrize(
    ("device", "count", "environment", "processes"),
    [
        ("cuda", 4, {}, 4),
        ("cuda", 1, {}, 0),
        ("cuda", 0, {}, 0),
        ("auto", 4, {}, 0),
        ("cpu", 4, {ASKED: "4"}, 0),
        ("auto", 0, {ASKED: "2"}, 2),
        ("cuda", 4, {ASKED: "2"}, 2),  # a pod has what it asked for
        ("cuda", 4, {ASKED: "4", "LOCAL_WORLD_SIZE": "4"}, 0),
        ("cpu", 0, {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1"}, 1),  # one of several nodes, as Trainer says
        ("cpu", 0, {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "LOCAL_WORLD_SIZE": "1"}, 0),
    ],
)
def test_who_starts_how_many_processes(device, count, environment, processes):
    assert wanted(device, count, environment) == processes


def test_more_processes_than_gpus_are_refused_before_any_is_started(monkeypatch):
    started = []
    monkeypatch.setattr(distributed, "torchrun", lambda *given: started.append(given))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"^gpu.count: found 4, but torch sees 2 GPUs\nexpected one for each process$"):
        launch(4, "components.train", [])
    assert not started
    launch(2, "components.train", ["--seed", "0"])
    assert started == [(2, "components.train", ["--seed", "0"])]
    for device in ("cpu", "auto"):  # nodes without a GPU
        launch(4, "components.train", [], device)
    monkeypatch.setenv(ASKED, "4")
    with pytest.raises(InputError, match="torch sees 2 GPUs"):
        launch(4, "components.train", [], "auto")


def test_a_rank_without_a_gpu_of_its_own_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"^4 processes: found 2 GPUs\nexpected one for each process$"):
        World.current("cuda")
