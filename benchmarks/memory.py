"""Peak memory of a side, in a process of its own.

On a CPU: the peak of the resident set since just before the model was built. A small model of the same kind takes a
few steps of the same side first, so that imports and what libraries set up on their first use do not count. glibc's
threshold for memory that goes back to the system when it is freed is held at its first value, 128 KiB: left alone it
grows with what was freed, and the peak would depend on the order of allocations by a tenth. So the figure is the memory
that is in use at the peak, like `max_memory_allocated` on a GPU.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import re
import resource
import sys
from pathlib import Path

import torch

from benchmarks.plain import Case, Data, batches_of, side

STEPS = 3  # beyond a period: the optimizer's state is there from the second step on
M_MMAP_THRESHOLD = -3  # of malloc.h


def peak(case: Case, name: str) -> int:
    """Bytes at the peak of a few steps of a side, model and optimizer included, measured in a fresh process."""
    # children of a server that has imported all and built nothing: a start costs milliseconds, not seconds
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(["benchmarks.memory", "transformers.models.bert.modeling_bert"])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, case, name))
    child.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = "ended without an answer"
    child.join()
    if not isinstance(answer, int):
        raise RuntimeError(f"peak memory of {case.row.method} {case.row.backend}, {name}: {answer}")
    return answer


def _child(sender, case: Case, name: str) -> None:
    try:
        torch.set_num_threads(1)
        sender.send(_measure(case, name))
    except Exception as error:  # told to the parent, who raises it
        sender.send(f"{type(error).__name__}: {error}")


def _measure(case: Case, name: str) -> int:
    k, period = batches_of(case), case.row.period
    _steps(case, name, case.sizes.small, Data(case, case.sizes.small, k), 2 * period)
    data = Data(case, case.sizes, k)
    gc.collect()
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _steps(case, name, case.sizes, data, STEPS + period)
        return torch.cuda.max_memory_allocated() - before
    _give_back()
    before = _resident("VmRSS")
    _steps(case, name, case.sizes, data, STEPS + period)
    return _resident("VmHWM") - before


def _steps(case: Case, name: str, sizes, data: Data, count: int) -> None:
    one, _ = side(case, name, sizes)
    for i in range(count):
        one.step(*data(i))


def _give_back() -> None:
    """Free memory goes back to the system, and the peak starts anew, where the system can do that."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc
            libc.mallopt(M_MMAP_THRESHOLD, 128 * 1024)
            libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def _resident(field: str) -> int:
    if sys.platform == "linux":
        return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
