"""As many jobs as cores and memory have room for, at the threads of params.yaml."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gradworks import jobs

GIB = 1024**3


@pytest.mark.parametrize(
    ("threads", "machine", "expected", "why"),
    [
        (1, jobs.Machine(2, 64 * GIB), 2, "2 jobs at once: 2 cores, 1 thread each"),
        (4, jobs.Machine(16, 64 * GIB), 4, "4 jobs at once: 16 cores, 4 threads each"),
        (3, jobs.Machine(8, 64 * GIB), 2, "2 jobs at once: 8 cores, 3 threads each"),
        (4, jobs.Machine(2, 64 * GIB), 1, "1 job at once: 2 cores, 4 threads each"),
        (1, jobs.Machine(16, 5 * GIB), 2, "2 jobs at once: 5.0 GiB of memory free, about 2.0 each"),
        (1, jobs.Machine(16, GIB), 1, "1 job at once: 1.0 GiB of memory free, about 2.0 each"),
        (1, jobs.Machine(16, 64 * GIB, "H100"), 1, "1 job, on H100"),
    ],
)
def test_jobs_by_cores_and_memory(threads, machine, expected, why):
    assert jobs.choose(threads, 2 * GIB, machine) == (expected, why)


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "350000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
    ],
)
def test_a_container_has_the_cores_of_its_quota(tmp_path, monkeypatch, files, most):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert jobs.cores(tmp_path) == most


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone has affinities")
def test_taskset_counts():
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    program += "from gradworks import jobs; print(jobs.cores())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    "names", [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")]
)
def test_a_container_has_the_memory_of_its_limit(tmp_path, names):
    (tmp_path / "memory").mkdir()
    for name, text in zip(names, ("1000000\n", "400000\n"), strict=True):
        (tmp_path / name).write_text(text)
    assert jobs.memory(tmp_path) == 600_000
    (tmp_path / names[0]).write_text("max\n")
    assert jobs.memory(tmp_path) > 600_000


def test_a_job_needs_room_for_the_weights_it_begins_from(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/model.safetensors").write_bytes(b"x" * 5000)
    values = {"root": ".", "here": "", "pretrain": {"gru": {"model": "gru"}, "bert": {"from": "bert"}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    assert jobs.a_job(tmp_path / "params.yaml", values) == jobs.A_JOB + 6 * 5000
    del values["pretrain"]["bert"]
    assert jobs.a_job(tmp_path / "params.yaml", values) == jobs.A_JOB


def test_what_the_default_benchmark_gets():
    found, why = jobs.of(Path(__file__).parent.parent / "params.yaml")
    assert 1 <= found <= jobs.cores()
    assert why.startswith(f"{found} job") and why.endswith("(--jobs N: another number)")
