"""The JSON schemas beside this file, for editors and linters: `python -m gradworks.cluster.schemas` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradworks.base.artifacts import write_json
from gradworks.cluster.profile import Profile
from gradworks.store.meta import Meta

HERE = Path(__file__).parent


def schemas() -> dict[str, dict[str, Any]]:
    """File name -> expected schema."""
    return {
        "meta.schema.json": Meta.model_json_schema(),
        "profile.schema.json": Profile.model_json_schema(by_alias=True),
    }


if __name__ == "__main__":
    for name, schema in schemas().items():
        write_json(HERE / name, schema)
