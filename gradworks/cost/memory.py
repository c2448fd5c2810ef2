"""Peak memory of some work, in a process of its own.

On a CPU: the peak of the resident set since just before the work. A small piece of work of the same kind is done first,
so that imports and what libraries set up on their first use do not count. glibc's threshold for memory that goes back
to the system when it is freed is held, at 32 KiB: left alone it grows with what was freed, and the peak would depend on
the order of allocations by a tenth; at its first value, 128 KiB, what a recurrent net keeps of each token stays in
holes of the heap that differ from process to process. So the figure is the memory that is in use at the peak, like
`max_memory_allocated` on a GPU.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import re
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

_M_MMAP_THRESHOLD, _THRESHOLD = -3, 32 * 1024  # the first of malloc.h


class Failed(RuntimeError):
    """The process ended without a figure; names the error that it met."""


def peak(
    work: Callable[..., Any],
    first: Callable[..., Any],
    args: Sequence[Any],
    device: str,
    start: str | None = None,
    preload: Sequence[str] = (),
) -> int:
    """Bytes at the peak of `work(*args)`, measured in a fresh process.

    Args:
        work: what is measured. first: the small piece before it. Both functions of a module.
        args: of both.
        device: "cpu" or "cuda".
        start: how the process starts: "fork" (at no cost; the caller has neither threads nor used a GPU), "forkserver",
            "spawn"; default: the second where there is one.
        preload: modules that a fork server imports once for all.

    Raises:
        MemoryError: there was not enough memory for it. Failed: there is no figure for another reason.
    """
    # children of a server that has imported all and built nothing: a start costs milliseconds, not seconds
    context: Any = multiprocessing.get_context(start or ("forkserver" if sys.platform == "linux" else "spawn"))
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([__name__, *preload])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, work, first, tuple(args), device))
    child.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = "ended without an answer"
    child.join()
    if child.exitcode == -signal.SIGKILL:
        raise MemoryError("killed, as a system does with what takes all of its memory")
    if not isinstance(answer, int):
        raise (MemoryError if answer.startswith(("MemoryError", "OutOfMemoryError")) else Failed)(answer)
    return answer


def _child(sender: Any, work: Callable[..., Any], first: Callable[..., Any], args: tuple, device: str) -> None:
    try:
        torch.set_num_threads(1)
        sender.send(_measure(work, first, args, device))
    except Exception as error:  # told to the parent, who raises it
        sender.send(f"{type(error).__name__}: {error}")


def _measure(work: Callable[..., Any], first: Callable[..., Any], args: tuple, device: str) -> int:
    first(*args)
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work(*args)
        return torch.cuda.max_memory_allocated() - before
    _give_back()
    before = _resident("VmRSS")
    work(*args)
    return _resident("VmHWM") - before


def _give_back() -> None:
    """Free memory goes back to the system, and the peak starts anew, where the system can do that."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc
            libc.mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
            libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def _resident(field: str) -> int:
    if sys.platform == "linux":
        return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
