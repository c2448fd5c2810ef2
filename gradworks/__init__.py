"""Gradient methods for people who train language models, and what they cost.

    from gradworks import Method

The library needs torch only; the stage programs, DVC and Kubeflow need the extras `stage` and `kubeflow`.
"""

__version__ = "0.1.0"
__all__ = ["Method", "__version__"]


def __getattr__(name: str):
    # lazy, so that `gradworks --help` and the stages that do not train start without torch
    if name == "Method":
        from gradworks.methods import Method

        return Method
    raise AttributeError(f"module 'gradworks' has no attribute {name!r}")
