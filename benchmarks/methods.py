"""`python -m benchmarks.methods`: cost and error of every gradient method over plain training.

Writes results.json (after every row, so that a run can be cut and continued with --only-missing), RESULTS.md and
results.svg. Peers need `pip install 'gradworks[benchmarks]'`; without it the table has them as not measured.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch

from benchmarks import figure, table
from benchmarks.counts import agrees, counts
from benchmarks.errors import errors
from benchmarks.memory import peak
from benchmarks.models import KINKED, MODELS, ON_CPU
from benchmarks.plain import Case, Data, batches_of, side
from benchmarks.profile import profile
from benchmarks.rows import ROWS, Row, Work
from gradworks.base.artifacts import atomic_file, read_json, write_json
from gradworks.cost.hardware import hardware
from gradworks.cost.pairs import compare

COMMAND = "python -m benchmarks.methods"
FOLDER = Path(__file__).parent
KEY = ("method", "backend", "model", "clean_fraction", "hardware", "precision")
QUICK = ("erm, Method", "reweight, ghost", "reweight, logit_fd", "dotprod, central", "reptile", "fomaml", "smart, vjp")


def cases(args: argparse.Namespace) -> list[Case]:
    """What is to be measured, in order: model by model."""
    found = []
    for model in args.models:
        for row in ROWS:
            for fraction in row.fractions:
                case = Case(row, model, fraction, args.device, args.precision)
                if _wanted(case, args):
                    found.append(case)
    return found


def _wanted(case: Case, args: argparse.Namespace) -> bool:
    row, name = case.row, _name(case.row)
    there = row.kinked if case.model in KINKED else case.model in (*row.models, "bert-base")
    if args.quick and (name not in QUICK or case.fraction == 1 or case.model in KINKED):
        return False
    return there and (not args.rows or any(word in name for word in args.rows))


def _name(row: Row) -> str:
    return row.method + (f", {row.backend}" if row.backend else "")


def measure(case: Case, plains: dict[Any, int], quick: bool) -> dict[str, Any]:
    """One row of the results.

    Args:
        case: what is measured.
        plains: peak memory of plain sides by what it depends on; filled here.
        quick: fewer rounds.
    """
    row = case.row
    floor = row.floor.at(case.fraction, case.n) if row.floor else None
    result: dict[str, Any] = {
        "method": row.method, "backend": row.backend, "model": case.model, "clean_fraction": case.fraction,
        "time_ratio": None, "low": None, "high": None, "n": None, "memory_ratio": None, "error": None,
        "sign_agreement": None, "judged": None, "passes": None, "forward": None, "backward": None, "operations": None,
        "floor": floor.passes if floor else None, "at_floor": None,
        "target": row.targets.of(case.model, case.fraction),
        "batch": case.n, "hardware": hardware(case.device), "precision": case.precision, "device": case.device,
    }  # fmt: skip
    try:
        return result | _measured(case, floor, plains, quick)
    except ModuleNotFoundError as error:
        return result | {"note": f"{error.name} is not installed: pip install 'gradworks[benchmarks]'"}
    except Exception as error:  # the other rows are wanted all the same, and this one says why it has no figures
        return result | {"note": f"{type(error).__name__}: {str(error).splitlines()[0]}"}


def _measured(case: Case, floor: Work | None, plains: dict[Any, int], quick: bool) -> dict[str, Any]:
    row, result = case.row, {}
    k = batches_of(case)
    if case.model not in KINKED:
        result = counts(case)
        result["at_floor"] = agrees(result, floor)
        result |= _time(case, k, quick)
        # what a plain step keeps depends on neither the method nor the clean batch
        key = (case.model, k, case.n, row.attention, case.device, case.precision)
        plains[key] = plains.get(key) or peak(case, "plain")
        result["memory_ratio"] = peak(case, "method") / plains[key]
    if row.error and case.precision == "float32":
        result |= errors(case, 2 if quick else 5)
    target = row.targets.of(case.model, case.fraction)
    if case.device == "cpu" and row.backend != "ghost" and table.late(result | {"target": target}):
        result["profile"] = profile(case)
    return result


def _time(case: Case, k: int, quick: bool) -> dict[str, Any]:
    data, period = Data(case, case.sizes, k), case.row.period
    sides = [side(case, name, case.sizes)[0] for name in ("plain", "method")]

    def rounds_of(one):
        def run(index: int) -> None:
            for i in range(period):
                one.step(*data(index * period + i))

        return run

    plain, method = map(rounds_of, sides)
    for i in range(3):  # measures what a method measures first
        plain(i), method(i)
    promised = case.row.targets.of(case.model, case.fraction)["time"] is not None
    seconds, least = (4, 8) if quick else (40, 12) if promised else (5, 8)
    pairs = compare(plain, method, case.device, seconds, (least, 200))
    found, base = pairs.ratio, pairs.seconds[0]
    return {"time_ratio": found.value, "low": found.low, "high": found.high, "n": found.n, "plain_seconds": base}


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the promised rows on two models, within five minutes")
    parser.add_argument("--rows", nargs="+", metavar="WORD", help="only rows whose name has one of these words in it")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="bf16: autocast")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: benchmarks/, of --quick a folder under runs/")
    parser.add_argument("--only-missing", action="store_true", help="keep the rows that results.json has already")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: found cuda, but torch sees no GPU; expected cpu")
    usual = ("bert-base",) if args.device == "cuda" else ("bert-2x128", "gru") if args.quick else (*ON_CPU, *KINKED)
    args.models = args.models or usual
    out = args.out or (Path("runs/benchmarks") if args.quick else FOLDER)
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", module="opacus|torch.nn.modules.module")
    run(cases(args), out, args.quick, args.only_missing)


def run(wanted: list[Case], out: Path, quick: bool, only_missing: bool) -> list[dict[str, Any]]:
    """Measure and write row by row; returns all rows of the file."""
    file = out / "results.json"
    before = read_json(file)["rows"] if file.exists() else []
    rows = {_key(row): row for row in before}
    start, plains = time.monotonic(), {}
    for i, case in enumerate(wanted, 1):
        key = (case.row.method, case.row.backend, case.model, case.fraction, hardware(case.device), case.precision)
        if only_missing and key in rows and not rows[key].get("note"):
            continue
        row = measure(case, plains, quick)
        rows[key] = row
        _write(out, _ordered(rows.values()))
        spent = time.monotonic() - start
        left = spent / i * (len(wanted) - i)
        print(f"[{i}/{len(wanted)}] {case.model}: {_line(row)}  ({left / 60:.0f} min left)", flush=True)
    return _ordered(rows.values())


def _key(row: dict[str, Any]) -> tuple:
    return tuple(row[name] for name in KEY)


def _ordered(rows) -> list[dict[str, Any]]:
    """By hardware, then model, then as in ROWS."""
    names, models = [(row.method, row.backend) for row in ROWS], list(MODELS)
    known = [row for row in rows if (row["method"], row["backend"]) in names and row["model"] in models]
    return sorted(
        known,
        key=lambda row: (
            row["device"], row["hardware"], row["precision"], models.index(row["model"]),
            names.index((row["method"], row["backend"])), row["clean_fraction"] or 0,
        ),
    )  # fmt: skip


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "results.json", {"rows": rows})
    for name, text in (("RESULTS.md", table.page(rows, COMMAND)), ("results.svg", figure.draw(rows))):
        with atomic_file(out / name) as temporary:
            temporary.write_text(text)


def _line(row: dict[str, Any]) -> str:
    if row.get("note"):
        return f"{table.label(row)}: not measured: {row['note']}"
    parts = [table.label(row)]
    if row["time_ratio"] is not None:
        interval = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
        parts.append(f"time {row['time_ratio']:.2f}{interval} of {row['n']} rounds, memory {row['memory_ratio']:.2f}")
    if row["error"] is not None:
        parts.append(f"error {row['error']:.1e}")
    return ", ".join(parts) + f"  {table.verdict(row)}".rstrip()


if __name__ == "__main__":
    main()
