"""Peak memory of a function, measured in a process of its own.

On a CPU: the peak of the resident set since just before the call. A smaller call of the same kind comes first, so that
imports and one-time set-up of libraries do not count. glibc's threshold above which freed memory is returned to the
system is fixed at 32 KiB: by default it grows with the blocks freed, and the peak would vary by a tenth with the order
of allocations; at its initial 128 KiB, what a recurrent net keeps per token stays in holes of the heap that differ
between processes. The figure is the memory in use at the peak, like `max_memory_allocated` on a GPU.
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
    """The process ended without a result; names its error."""


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
        work: the function to measure. first: the smaller one before it. Both are module-level functions.
        args: for both.
        device: "cpu" or "cuda".
        start: "fork" (free; the caller must have no threads and not have used a GPU), "forkserver" (the default
            where available) or "spawn".
        preload: modules that a fork server imports once.

    Raises:
        MemoryError: out of memory. Failed: any other reason for no result.
    """
    # children of a server that has done all imports start in milliseconds
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
    except Exception as error:  # sent to the parent, which raises it
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
    """Return free memory to the system and reset the peak, where supported."""
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
