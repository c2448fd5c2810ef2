"""Counters of energy: a folder as Linux has it, absent ones, one that begins anew."""

from __future__ import annotations

import pytest

from gradworks.cost import energy


def package(folder, name, micro, end=1000):
    (folder / name).mkdir(parents=True)
    (folder / name / "energy_uj").write_text(f"{micro}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{end}\n")


def test_packages_are_added_and_their_parts_are_not(tmp_path):
    package(tmp_path, "intel-rapl:0", 100)
    package(tmp_path, "intel-rapl:1", 990)
    package(tmp_path, "intel-rapl:0:0", 5)  # the cores of package 0
    found = energy.counter("cpu", tmp_path)
    assert found.source == "RAPL"
    before = found.read()
    (tmp_path / "intel-rapl:0/energy_uj").write_text("300")
    (tmp_path / "intel-rapl:1/energy_uj").write_text("20")  # past its end
    (tmp_path / "intel-rapl:0:0/energy_uj").write_text("900")
    assert found.read() - before == pytest.approx((200 + 30) / 1e6)
    assert found.read() - before == pytest.approx(230 / 1e6)


def test_what_is_not_there_is_none_and_not_zero(tmp_path):
    assert energy.counter("cpu", tmp_path) is None
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0/energy_uj").mkdir()  # cannot be read
    assert energy.counter("cpu", tmp_path) is None


def test_without_a_driver_there_is_no_counter_of_a_gpu():
    import torch

    if not torch.cuda.is_available():
        assert energy.counter("cuda") is None
