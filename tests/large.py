"""What a process that plants a defect finds imported already: large libraries, and the plugins of pytest.

Out of the garbage collector's sight, so that a forked process does not copy their memory by looking at it.
"""

import gc
import importlib

for name in (
    "pytest", "torch", "torch._dynamo", "transformers", "pyarrow.parquet", "pydantic", "sklearn.metrics", "boto3",
    "dvc.repo", "hypothesis", "hydra.extra.pytest_plugin",
):  # fmt: skip
    importlib.import_module(name)
gc.collect()
gc.freeze()
