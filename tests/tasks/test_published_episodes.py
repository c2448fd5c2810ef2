"""The presets of pipelines/omniglot/published are supervised-reptile's commands, flag by flag."""

from pathlib import Path

import pytest
import yaml

from gradworks import parameters
from gradworks.base import cells
from gradworks.methods import Method
from gradworks.tasks import own

FOLDER = Path(__file__).parents[2] / "pipelines/omniglot"
# README.md of github.com/openai/supervised-reptile, "Reproducing training runs"
SHARED = "--meta-step 1 --meta-step-final 0 --meta-batch 5 --eval-iters 50 --train-shots 10 --eval-samples 10000"
FIVE = "--classes 5 --inner-batch 10 --inner-iters 5 --meta-iters 100000 --eval-batch 5 --learning-rate 0.001"
TWENTY = "--classes 20 --inner-batch 20 --inner-iters 10 --meta-iters 200000 --eval-batch 10 --learning-rate 0.0005"
COMMANDS = {
    "5-way-1-shot": f"{SHARED} {FIVE} --shots 1", "5-way-5-shot": f"{SHARED} {FIVE} --shots 5",
    "20-way-1-shot": f"{SHARED} {TWENTY} --shots 1", "20-way-5-shot": f"{SHARED} {TWENTY} --shots 5",
}  # fmt: skip
CLASSES, PICTURES, TURNS = 964, 20, 4  # of images_background


def flags(command):
    words = command.split()
    return {k.removeprefix("--"): float(v) for k, v in zip(words[::2], words[1::2], strict=True)}


def test_every_preset_is_a_published_command():
    assert {path.parent.name for path in FOLDER.glob("published/*/params.yaml")} == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_preset_has_the_published_settings(name):
    file, flag = FOLDER / f"published/{name}/params.yaml", flags(COMMANDS[name])
    parameters.check(file)
    values = yaml.safe_load(file.read_text())
    task, train, splits = values["tasks"][values["task"]], values["train"], values["corrupt"]["splits"]
    kind = own(values["task"], task, "p")
    assert [kind.options[key] for key in ("ways", "shots", "train_shots", "test", "rotations")] == [
        flag["classes"], flag["shots"], flag["train-shots"], flag["eval-samples"], True,
    ]  # fmt: skip
    assert task["inner"] == {
        "optimizer": "adam", "learning_rate": flag["learning-rate"], "steps": flag["eval-iters"],
        "batch": flag["eval-batch"],
    }  # fmt: skip
    held = sum(splits[split]["size"] for split in ("clean", "selection"))
    batches = round(train["epochs"] * -(-TURNS * (CLASSES * PICTURES - held) // train["batch"]))
    assert train["batch"] == flag["inner-batch"] and train["optimizer"] == "SGD" and train["weight_decay"] == 0
    assert train["warmup"] == 0 == flag["meta-step-final"] and train["clip"] is None  # falls from the first step to 0
    for method, moved in (("reptile", flag["inner-iters"]), ("fomaml", 1)):
        point = values["methods"][method]
        options = point["update"][method]
        assert options == {
            "batches": flag["inner-iters"], "groups": flag["meta-batch"], "inner_lr": flag["learning-rate"],
            "inner_optimizer": "adam", "tasks": "same",
        }  # fmt: skip
        # of the scale law: the gradient is the displacement over inner_lr and the batches that it sums
        rate = point.get("learning_rate", train["learning_rate"]["conv4"])
        assert rate == pytest.approx(flag["meta-step"] * flag["learning-rate"] * moved)
        assert batches // Method(update=point["update"], outputs=len, loss=len).batches == flag["meta-iters"]


def test_the_small_budgets_are_fresh_and_have_every_method():
    for file in (FOLDER / "params.yaml", FOLDER / "5-shot/params.yaml"):
        parameters.check(file)
        cells.check(file)
        values = yaml.safe_load(file.read_text())
        methods = values["cells"]["grid"][0]["method"]
        assert methods == ["erm", "reptile", "fomaml", "maml", "dotprod"]
        made = {m: Method(update=values["methods"][m]["update"], outputs=len, loss=len) for m in methods}
        assert {one.batches for one in made.values()} == {10}  # as many meta-steps
    assert values["tasks"]["five-way"]["shots"] == 5
