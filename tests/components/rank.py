"""One of two processes: trains the cells of a list, each in a world of its own, as torchrun's environment says.

`python -m tests.components.rank RANK LIST`; each entry of LIST (JSON) is a port and the arguments of components.train.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from tests.small import run


def main():
    rank, cells = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1"}
    for port, arguments in cells:
        os.environ["MASTER_PORT"] = str(port)
        try:
            run("train", *arguments)
        except Exception:
            traceback.print_exc()
            print(f"failed: {arguments}", file=sys.stderr, flush=True)
            raise SystemExit(1) from None


if __name__ == "__main__":
    main()
