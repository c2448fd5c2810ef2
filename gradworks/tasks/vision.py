"""Pictures: MNIST (LeCun et al. 1998), whole, and 4 against 9 as Ren et al. (2018, section 4.1) unbalance it; Omniglot
(Lake et al. 2015) and mini-ImageNet (Vinyals et al. 2016) in few-shot episodes, whose sizes are pictures.
"""

from gradworks.tasks import Hub, TaskSpec

_FORMS = ("accuracy", "transductive_accuracy")
_SMALL = {"shape": (28, 28, 1)}
_DIGITS = tuple("0123456789")

ROWS = (
    TaskSpec(
        "mnist", "image", ("image",), _DIGITS, ("accuracy", "macro_f1"), options=_SMALL,
        sizes={"train": 60000, "t10k": 10000}, majority={"accuracy": 0.1135},
        hub=(Hub("ylecun/mnist", "77f3279092a1c1579b2250db8eafed0ad422088c"),),
    ),
    TaskSpec(
        "mnist-4-9", "image", ("image",), ("4", "9"), ("accuracy",), options={**_SMALL, "one_logit": True},
        sizes={"train": 5000, "test": 500}, majority={"accuracy": 0.5},
    ),
    TaskSpec(
        "omniglot", "episodes", ("image",), None, _FORMS, options=_SMALL,
        sizes={"images_background": 19280, "images_evaluation": 13180}, majority=dict.fromkeys(_FORMS, 0.2),
    ),
    TaskSpec(
        "mini-imagenet", "episodes", ("image",), None, _FORMS, options={"shape": (84, 84, 3)},
        sizes={"train": 38400, "validation": 9600, "test": 12000}, majority=dict.fromkeys(_FORMS, 0.2),
    ),
)  # fmt: skip
