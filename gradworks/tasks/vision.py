"""Pictures: MNIST (LeCun et al. 1998), whole, and 4 against 9 as Ren et al. (2018, section 4.1) unbalance it; Omniglot
(Lake et al. 2015) in few-shot episodes.
"""

from gradworks.tasks import TaskSpec

_SMALL = {"shape": (28, 28, 1)}
_DIGITS = tuple("0123456789")

ROWS = (
    TaskSpec("mnist", "image", ("image",), _DIGITS, ("accuracy", "macro_f1"), options=_SMALL),
    TaskSpec("omniglot", "episodes", ("image",), None, ("accuracy",), options=_SMALL),
    TaskSpec("mnist-4-9", "image", ("image",), ("4", "9"), ("accuracy",), options={**_SMALL, "one_logit": True}),
)
