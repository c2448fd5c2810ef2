"""A small BERT of transformers, fresh, and batches for it: an example holds one of three tokens, which is its class."""

import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

CLASSES, VOCABULARY, LENGTH = 3, 60, 8


def build(attention="sdpa", width=16, dtype=torch.float64, seed=0, **options):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=2 * width, max_position_embeddings=32, num_labels=CLASSES, attn_implementation=attention,
        **options,
    )  # fmt: skip
    return BertForSequenceClassification(config).to(dtype).train()


def rows(count, n=6, seed=0):
    g, made = torch.Generator().manual_seed(seed), []
    for _ in range(count):
        x = torch.randint(CLASSES, VOCABULARY, (n, LENGTH), generator=g)
        y = torch.randint(0, CLASSES, (n,), generator=g)
        x[torch.arange(n), torch.randint(0, LENGTH, (n,), generator=g)] = y
        made.append({"input_ids": x, "labels": y})
    return made


def embed(model, batch):
    """The embedding layer, which ends in layer norm and dropout."""
    return model.bert.embeddings(input_ids=batch["input_ids"])


def outputs(model, batch, embedded=None):
    hidden = model.bert.encoder(embed(model, batch) if embedded is None else embedded)[0]
    return model.classifier(model.dropout(model.bert.pooler(hidden)))


def loss(z, batch):
    return F.cross_entropy(z, batch["labels"], reduction="none")


def divergence(a, b):
    p, q = a.log_softmax(-1), b.log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1)
