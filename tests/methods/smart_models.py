"""What the tests of SMART share: the method, and a model whose padding is masked."""

from torch import nn

from gradworks.methods import Method
from tests.methods.smart_oracle import SEED
from tests.methods.toys import TASKS


def make(update="erm", weighting="uniform", **options):
    return Method({"smart": options}, weighting, update, tasks=TASKS, seed=SEED)


class Masked(nn.Module):
    """The mean of the embeddings of tokens that are not 0; what heads of gradworks.tasks ask for."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

    def embed(self, x):
        return self.table(x)

    def forward(self, x, embedded=None):
        e = self.embed(x) if embedded is None else embedded
        inside = (x > 0).to(e)[..., None]
        return self.head((e * inside).sum(1) / inside.sum(1)).tanh()
