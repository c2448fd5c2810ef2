"""The Trainer of the example: groups, clipping, checkpoints, adapters and precision as its docstring says."""

import importlib.util
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[2] / "examples" / "hf_trainer.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("hf_trainer", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def watched(run):
    """What the method is given and gives: (micro-batches of each batch, clean batches, autocast, report) per step."""
    seen, backward = [], run.method.backward

    def spy(model, batches, clean=()):
        report = backward(model, batches, clean)
        sizes = [[len(b.ids) for b in drawn] for drawn in batches]
        seen.append((sizes, len(clean), torch.is_autocast_enabled("cpu"), report))
        return report

    run.method.backward = spy
    return seen


def parameters(run):
    return {name: p.detach().clone() for name, p in run.model.named_parameters()}


@pytest.mark.slow("trains to the end")
def test_clean_examples_recover_what_overwritten_labels_destroy(example, tmp_path):
    accuracy = {}
    for weighting in ("uniform", "reweight"):
        run = example.trainer({"weighting": weighting}, tmp_path, save_strategy="no")
        run.train()
        accuracy[weighting] = run.evaluate()["eval_accuracy"]
    assert accuracy["uniform"] < 0.5
    assert accuracy["reweight"] > accuracy["uniform"] + 0.2


def test_a_step_gets_the_batches_it_asks_for_in_micro_batches(example, tmp_path):
    options = {"per_device_train_batch_size": 128, "gradient_accumulation_steps": 2, "num_train_epochs": 1}
    run = example.trainer(
        {"weighting": "reweight", "update": "dotprod"}, tmp_path, max_grad_norm=1e-3, logging_steps=1,
        save_strategy="no", **options,
    )  # fmt: skip
    seen = watched(run)
    run.train()
    # eight batches of 1000 sentences, four a step; the last has 104
    assert [sizes for sizes, *_ in seen] == [[[128, 128], [128, 128]], [[128, 128], [128, 104]]]
    assert [clean for _, clean, *_ in seen] == [2, 2]
    logged = [row for row in run.state.log_history if "grad_norm" in row]
    for row, (*_, report) in zip(logged, seen, strict=True):
        assert row["grad_norm"] == pytest.approx(report.log["gradient_norm"], rel=1e-5)  # before clipping
        assert row["loss"] == pytest.approx(report.log["loss"], rel=1e-5)


def test_what_does_not_fill_a_step_is_left_out(example, tmp_path):
    run = example.trainer({"update": "dotprod"}, tmp_path, per_device_train_batch_size=334, num_train_epochs=1,
                          save_strategy="no", logging_steps=1)  # fmt: skip
    run.train_dataset = run.train_dataset[:700]  # three batches, two a step
    seen = watched(run)
    run.train()
    assert [sizes for sizes, *_ in seen] == [[[334], [334]]]
    assert run.state.global_step == 2
    assert {int(s["step"]) for s in run.optimizer.state_dict()["state"].values()} == {1}
    logged = [row["loss"] for row in run.state.log_history if "loss" in row]
    assert logged == pytest.approx([seen[0][-1].log["loss"]] * 2, rel=1e-5)  # not 0.0 for what was left out


def test_a_resumed_run_ends_bit_identical(example, tmp_path):
    method = {"weighting": "reweight", "update": "dotprod"}
    options = {"max_steps": 6, "save_steps": 3, "save_strategy": "steps", "lr_scheduler_type": "cosine"}
    whole = example.trainer(method, tmp_path / "whole", **options)
    whole.train()
    resumed = example.trainer(method, tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    assert resumed.method.state_dict() == whole.method.state_dict()
    assert all(torch.equal(p, q) for p, q in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))


def test_adapters_and_the_head_are_trained_and_nothing_else(example, tmp_path):
    run = example.trainer(
        {"weighting": "reweight", "update": "dotprod"}, tmp_path, lora=True, max_steps=2, save_strategy="no"
    )
    before = parameters(run)
    run.train()
    changed = {name for name, p in parameters(run).items() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if "lora_" in name or "modules_to_save" in name}


def test_bf16_reaches_the_method_and_fp16_is_refused(example, tmp_path):
    run = example.trainer({"update": "dotprod"}, tmp_path, bf16=True, max_steps=2, save_strategy="no")
    seen = watched(run)
    run.train()
    assert [(autocast, report.log["finite"]) for *_, autocast, report in seen] == [(True, 1.0)] * 2
    with pytest.raises(ValueError, match=r"fp16=True needs a GradScaler.* use bf16=True"):
        example.trainer({}, tmp_path, fp16=True)


def test_a_weighting_without_its_clean_examples_is_refused(example, tmp_path):
    args = example.TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match="needs clean_dataset"):
        example.MethodTrainer(None, args, method={"weighting": "reweight"})
