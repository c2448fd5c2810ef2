"""The benchmarks of plain training run, at tiny sizes, through the loop as it is."""

import torch

from benchmarks import plain_table, texts, throughput


def test_the_loop_beside_plain_training_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_table, "BLOCK", 0.004)
    one = plain_table.made("bow, small", tmp_path)
    for found in (plain_table.of_method(one, 16), plain_table.of_loop(one, 16)):
        assert found.n == 16 and 0.3 < found.value < 5
    page = plain_table.page({"bow, small": dict.fromkeys(plain_table.SIDES, found)})
    assert f"| bow, small | {plain_table._cell(found)} |" in page


def test_a_turn_of_the_loop_is_its_batches_without_the_first(monkeypatch):
    small = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    monkeypatch.setitem(throughput.SIZES, "cpu", small)
    monkeypatch.setattr(texts, "_MOST", 320)
    monkeypatch.delenv("GRADWORKS_DATA")
    text = texts.load("SST-5")
    ticks = iter(range(100))
    turn = throughput.ours(text, 4, "cpu", 3, lambda: next(ticks))
    seconds, rows = turn(0)
    assert seconds == 3 and len(rows) == 3 * throughput.BATCH == len(set(rows))
    assert throughput.work(text, rows, "cpu") > 0 and torch.get_num_threads() >= 1
