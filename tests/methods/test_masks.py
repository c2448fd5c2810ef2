"""Keys: what they depend on, and that nothing leaks into or out of the global generators."""

import itertools

import torch

from gradworks.methods._shared.masks import Masks, key
from tests.methods.toys import batch, masks


def test_every_part_of_the_key_changes_the_draw():
    draws = []
    for seed, split, number, micro, stream in itertools.product((0, 1), ("train", "clean"), (0, 1), (0, 1), (0, 1)):
        with Masks(seed, split, number, micro)(stream):
            draws.append(tuple(torch.rand(4).tolist()))
    assert len(set(draws)) == len(draws)


def test_parts_are_kept_apart():
    assert key(1, "train", 12, 3, 0) != key(1, "train", 1, 23, 0)
    assert key(0, "train", 0, 0, 0) == 8080498868180619292  # of blake2b, the same on every machine


def test_the_documented_key_is_what_an_oracle_can_rebuild():
    with Masks(3, "clean", 5, 2)(1):
        expected = torch.rand(3)
    with masks(3, "clean", 5, 2, 1):
        assert torch.equal(torch.rand(3), expected)


def test_replay_and_a_global_state_that_is_left_alone():
    torch.manual_seed(1)
    before, one = torch.get_rng_state(), Masks(0, "train", 0, 0)
    draws = []
    for _ in range(2):
        with one(0):
            draws.append(torch.rand(5))
        torch.manual_seed(1)
    assert torch.equal(*draws)
    with one(0):
        torch.rand(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_inside_restores_the_global_state():
    before = torch.get_rng_state()
    try:
        with Masks(0, "train", 0, 0)(0):
            torch.rand(5)
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_follows_the_example_id():
    b = batch(n=4)
    noise = Masks(0, "train", 3, 0).noise(torch.empty(4, 2, 3), b)
    b.ids = b.ids[::-1]
    assert torch.equal(Masks(0, "train", 3, 1).noise(torch.empty(4, 2, 3), b), noise.flip(0))
    assert not torch.equal(Masks(0, "train", 4, 1).noise(torch.empty(4, 2, 3), b), noise.flip(0))
    assert Masks(0, "train", 3, 0).noise(torch.empty(12, 2, dtype=torch.float64), b).shape == (12, 2)  # 3 rows each


def test_noise_is_standard_normal():
    noise = Masks(0, "train", 0, 0).noise(torch.empty(100, 200), batch(n=100))
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
