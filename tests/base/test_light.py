"""A stage imports neither torch's compiler nor pandas, and what it computes is the same."""

import subprocess
import sys

import pytest

TRAIN = """
import sys
if sys.argv[1] == "light":
    from gradworks.base import light
    light.compiler()
import torch
for name in sys.argv[2:]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1)
    def loss():
        optimizer.zero_grad()
        value = model(torch.ones(2, 3)).square().sum()
        value.backward()
        return value
    for _ in range(3):
        loss()
        optimizer.step(loss)
    optimizer.load_state_dict(optimizer.state_dict())
    print(model.weight.detach().numpy().tobytes().hex())
print("torch._dynamo.eval_frame" in sys.modules)
"""


def run(program, *args):
    done = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow("processes that import torch's compiler")
def test_optimizers_make_the_same_steps_without_the_compiler():
    optimizers = ("AdamW", "SGD", "NAdam")
    (*plain, imported), (*light, not_imported) = (run(TRAIN, kind, *optimizers) for kind in ("plain", "light"))
    assert light == plain and len(set(plain)) == len(optimizers)
    assert (imported, not_imported) == ("True", "False")


@pytest.mark.slow("a process that imports torch's compiler")
def test_what_compiles_gets_the_real_compiler():
    program = """
from gradworks.base import light
light.compiler()
import torch
model = torch.nn.Linear(3, 3)
torch.optim.SGD(model.parameters()).step()
x = torch.ones(2, 3)
print(torch.equal(torch.compile(model, backend="eager")(x), model(x)), end=" ")
import sys, torch._dynamo.config
print(isinstance(sys.modules["torch._dynamo"], light.Light), torch._dynamo.eval_frame.__name__)
torch.optim.SGD(model.parameters()).step()
"""
    assert run(program) == ["True", "False", "torch._dynamo.eval_frame"]


@pytest.mark.slow("a process that imports torch's compiler")
def test_the_real_compiler_stays_where_it_is():
    program = """
import sys, torch._dynamo
from gradworks.base import light
light.compiler()
print(isinstance(sys.modules["torch._dynamo"], light.Light))
"""
    assert run(program) == ["False"]


def test_tables_are_written_and_read_without_pandas(tmp_path):
    program = """
import sys, pathlib
from gradworks.base import artifacts, device
device.set_up(1, "cpu")
import pyarrow as pa
file = pathlib.Path(sys.argv[1])
table = pa.table({"id": ["a", "b"], "n": [1, None], "v": [[1.0], [2.0, 3.0]]})
artifacts.write_parquet(file, table)
print(artifacts.read_parquet(file, ["n"]).equals(table), "pandas" in sys.modules)
import pandas
print(pandas.DataFrame({"a": [1]}).shape == (1, 1))
"""
    assert run(program, str(tmp_path / "t.parquet")) == ["True", "False", "True"]
