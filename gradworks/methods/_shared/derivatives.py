"""Words for what autograd cannot do with an operation of a model: a second derivative, a forward-mode derivative."""

from __future__ import annotations

import re

from torch import nn

_ABSENT = re.compile(
    r"forward AD|forward mode|jvp function|derivative for|differentiated twice|once_differentiable|double backward"
)
_OPERATION = re.compile(r"forward AD with (\S+)|derivative for '?([\w:]+)|(custom autograd\.Function)")


def refusal(error: Exception, who: str, kind: str, expected: str, model: nn.Module) -> Exception:
    """What to raise for an error: one that names operation, module and what works, if it says that `kind` is absent.

    Args:
        who: the entry and its option.
        kind: "double backward" or "forward-mode derivative".
        expected: what works in its place.
    """
    if "sparse" in str(error).lower():
        return ValueError(f"{who}: sparse gradients have no {kind}\nexpected nn.Embedding(sparse=False), or {expected}")
    if not _ABSENT.search(str(error)):
        return error
    found = _OPERATION.search(str(error))
    operation = next(filter(None, found.groups())) if found else str(error).splitlines()[0]
    if "attention" in operation:
        expected += ', or attn_implementation="eager" (models of transformers), or sdpa_kernel(SDPBackend.MATH)'
    return ValueError(f"{who}: {operation}{_where(error, model)} has no {kind}\nexpected {expected}")


def _where(error: Exception, model: nn.Module) -> str:
    """The innermost module of the model that was running; empty in a backward pass, where none is."""
    names: dict[object, str] = {module: name for name, module in model.named_modules()}
    found, trace = "", error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module) and names.get(module):
            found = f" in {names[module]} ({type(module).__name__})"
        trace = trace.tb_next
    return found
