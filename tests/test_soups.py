"""A mean of weights by hand, the greedy soup step by step, and what cannot be averaged."""

import json

import pytest
import torch

from gradworks import soups
from gradworks.base.errors import InputError


def test_the_mean_of_each_tensor():
    made = soups.average([{"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)},
                          {"w": torch.tensor([2.0, 6.0]), "n": torch.tensor(3)}])  # fmt: skip
    assert made["w"].tolist() == [1.5, 4.0] and made["n"] == 3 and made["w"].dtype == torch.float32
    one = {"w": torch.randn(5), "n": torch.tensor(3)}
    assert torch.equal(soups.average([one, one, one])["w"], one["w"])
    for other in ({"w": torch.zeros(3), "n": torch.tensor(3)}, {"w": one["w"]}, one | {"n": torch.tensor(4)},
                  one | {"more": torch.zeros(1)}):  # fmt: skip
        with pytest.raises(InputError, match=r"expected (models of one architecture|equal ones)"):
            soups.average([one, other])


def test_each_member_stays_where_the_soup_is_no_worse_with_it():
    values = {(2,): 0.6, (2, 0): 0.5, (2, 1): 0.6, (2, 1, 3): 0.7, (2, 1, 3, 4): 0.65}
    asked = []

    def value(some):
        asked.append(tuple(some))
        return (values[tuple(some)], 0.0)

    assert soups.greedy([2, 0, 1, 3, 4], value) == [2, 1, 3]
    assert asked == list(values)


def folder(tmp_path, name, vocabulary="a", **config):
    made = tmp_path / name
    made.mkdir()
    (made / "gradworks.json").write_text(json.dumps({"model": "gru", "hidden": 8} | config))
    (made / "tokenizer.json").write_text(vocabulary)
    return made


def test_models_of_two_vocabularies_or_architectures_are_refused(tmp_path):
    one, same = folder(tmp_path, "one"), folder(tmp_path, "same")
    soups.check_alike([one, same])
    with pytest.raises(InputError, match=r"cased: another vocabulary than .*one\nexpected one"):
        soups.check_alike([one, same, folder(tmp_path, "cased", "b")])
    with pytest.raises(InputError, match=r"wide: hidden is 16, and 8 in .*one\nexpected models of one architecture"):
        soups.check_alike([one, folder(tmp_path, "wide", hidden=16)])
