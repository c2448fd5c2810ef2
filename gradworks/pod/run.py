"""Run one stage of one run in a pod.

The code has been downloaded (see boot.py). The steps: fetch the upstreams' lock entries and the stage's inputs; run the
stage through DVC, or restore it if it ran before, anywhere; push its outputs, its run cache entry and its lock entry;
report to Kubeflow. Nothing is reported before it is in S3, and a retry may safely repeat every step.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradworks.base import device
from gradworks.base.errors import InputError
from gradworks.cost import hardware
from gradworks.dvc_compat import Failed, Project, read_lock, write_lock
from gradworks.pod import environment, nodes, objects, outputs
from gradworks.pod.watch import Checkpoints, Log, Watch
from gradworks.store import stages, standing
from gradworks.store.places import Damaged, Places, encoded
from gradworks.telemetry import push

_CHECKPOINTS = Path(".gradworks/checkpoints")


@dataclass(frozen=True)
class Task:
    """One stage of one run.

    Attributes:
        run: the run's name; stage: as in dvc.lock; pipeline: path of the dvc.yaml in the checkout.
        remote: URL of the DVC remote, which also holds the run's own objects.
        record: name of the standing pipeline, where Kubeflow began the run itself; else "".
        node: which of the nodes of a TrainJob this pod is; None for the stage's own pod.
        head: the stage that its pod began with, where it is not the first one (see chain.py); else "".
        here: in the environment of this machine, not in an image's (see cluster/early.py).
    """

    run: str
    stage: str
    pipeline: str
    remote: str
    record: str = ""
    node: int | None = None
    head: str = ""
    here: bool = False

    @property
    def name(self) -> str:
        """Of its record in S3."""
        return _name(self.stage) if self.node is None else f"nodes/{encoded(self.stage)}/{self.node}"


def main(text: str, begun: float) -> None:
    """Run the stage that Kubeflow's executor input names; ends the process.

    Args:
        text: the executor input, JSON: the value of `{{$}}`.
        begun: when the pod's program began (seconds since 1970).
    """
    given = json.loads(text)
    values = given["inputs"]["parameterValues"]
    named = (str(values[name]) for name in ("run", "stage", "pipeline", "remote"))
    task = Task(*named, str(values.get("record", "")), nodes.rank(values), str(values.get("head", "")))
    sys.exit(run(task, given, begun))


def run(task: Task, given: dict[str, Any] | None = None, begun: float | None = None) -> int:
    """Run one stage in the checkout in the current folder, which belongs to this run.

    Args:
        task: which one.
        given: Kubeflow's executor input; none = nothing is reported to Kubeflow.
        begun: when the program began.

    Returns:
        The exit code: 0; 2 after an InputError or a failed stage; 143 after SIGTERM; 1 for a defect of gradworks.
    """
    log, places = Log(Path(".gradworks/log.txt").absolute()), None
    try:
        places = Places(task.remote)
        if task.record and task.node is None:
            standing.begin(places, task.record, task.run)
        earlier = places.get(_log_key(places, task))
        with log.keep(earlier):
            code = _recorded(task, places, log, given, begun or time.time())
        places.upload(_log_key(places, task), log.file)
    except InputError as error:
        print(f"error: {task.stage}: {error}", file=sys.stderr)
        return 2
    return code


class _Stopped(Exception):
    """SIGTERM came, and the stage has ended."""


def _recorded(task: Task, places: Places, log: Log, given: dict[str, Any] | None, begun: float) -> int:
    """`_run` with clear errors; a record is written to S3 in every case."""
    name, code, said = task.name, 0, ""
    record = {"state": "running", "begun": begun, "seconds": {}, "image": _image(task)}
    record["attempt"] = _tries(places, task.run, name) + 1
    places.put_record(task.run, name, record)
    try:
        _run(task, places, log, given, record)
    except InputError as error:
        said = str(error) if str(error).startswith(task.stage) else f"{task.stage}: {error}"
        code, said = 2, "\n".join(said.splitlines()[:3])
    except _Stopped:
        record["stopped"] = True
        code, said = 143, f"{task.stage}: stopped by SIGTERM; a retry goes on from its last checkpoint"
    except Exception as error:
        traceback.print_exc()
        code, said = 1, f"{task.stage}: a defect of gradworks, please report it: {error!r}"
    if said:
        print(f"error: {said}", file=sys.stderr, flush=True)
        record["error"] = said
    pods = record["attempt"] if task.head in ("", task.stage) else _tries(places, task.run, _name(task.head))
    again = pods <= record.get("retries", 0)  # Kubeflow starts another pod for the stage
    record["ended"] = time.time()
    record["state"] = ("retrying" if again else "failed") if said else "succeeded"
    record["seconds"]["total"] = round(time.time() - begun, 3)
    places.put_record(task.run, name, record)
    if task.node is not None:
        return code
    spent = record["seconds"]
    names = {"code": "fetch", "pull": "pull", "run": "run", "push": "push"}
    push.phases(task.run, task.stage, {names[phase]: spent[phase] for phase in names if phase in spent})
    return code


def _name(stage: str) -> str:
    """The name of a stage's record."""
    return f"stages/{encoded(stage)}"


def _tries(places: Places, run: str, name: str) -> int:
    """The number of earlier attempts; 0 where the record is damaged."""
    try:
        found = (places.record(run, name) or {}).get("attempt", 0)
    except Damaged:
        return 0
    return found if isinstance(found, int) else 0


def _log_key(places: Places, task: Task) -> str:
    return places.key("logs", task.run, f"{encoded(task.stage) if task.node is None else task.name}.txt")


def _run(task: Task, places: Places, log: Log, given: dict[str, Any] | None, record: dict[str, Any]) -> None:
    root, pipeline = Path.cwd(), Path(task.pipeline)
    found = stages.load(pipeline)
    if task.stage not in found:
        raise InputError(f"{pipeline}: found no stage {task.stage}\nexpected one of its {len(found)} stages")
    stage = found[task.stage]
    record["retries"] = stage.meta.retries
    if not task.here:
        _same_environment(root, stage, _image(task))
    clock = _Clock(record["seconds"], record["begun"])
    clock("code")
    _prepare(task, places, root, pipeline, stage)
    checkpoints = Checkpoints(places, places.key("checkpoints", encoded(task.pipeline), encoded(task.stage)),
                              root / _CHECKPOINTS)  # fmt: skip
    follows = stage.meta.resources.nodes > 1 and task.node is None
    resumed = 0 if follows else checkpoints.fetch()
    with Project(root) as project:
        record["objects_read"] = objects.fetch(project, places, pipeline, stage, found)
        if task.node is None:  # of all nodes none restores what the others run
            objects.fetch_run_cache(project, places, pipeline, stage)
        clock("pull")
        with Watch(places, None if task.node else checkpoints, log, _log_key(places, task)), _terminable():
            values = (given or {}).get("inputs", {}).get("parameterValues", {})
            if follows:
                took = nodes.together(project, places, pipeline, stage, values, lambda: bool(_terminated))
                if took is not None:
                    record["seconds"]["nodes"] = took
            if _terminated:
                raise _Stopped
            record["ran"] = _reproduce(project, pipeline, stage, resumed, log, task.node)
            record["ran"] |= "nodes" in record["seconds"]
        clock("run")
        if task.node:
            return  # the first writes
        record["objects_written"] = objects.push(project, places, pipeline, stage)
        lock = read_lock(pipeline.with_name("dvc.lock"))[stage.name]
        clock("push")
    if task.node is not None:
        return  # the pod that follows reports
    own = places.put_entry(task.run, stage.name, lock)
    if given is not None:
        outputs.write(given, stage, places, lock, own)


def _image(task: Task) -> str | None:
    return None if task.here else os.environ.get("GRADWORKS_IMAGE")


def _same_environment(root: Path, stage: stages.Stage, found: str | None) -> None:
    kind = stage.meta.kind
    expected = environment.digest(root, kind)
    if found != expected:
        raise InputError(
            f"{stage.name}: found the image {found or 'without GRADWORKS_IMAGE'}, "
            f"expected gradworks-{kind}:{expected} of this commit's constraints.txt\nbuild it: make images KIND={kind}"
        )


def _prepare(task: Task, places: Places, root: Path, pipeline: Path, stage: stages.Stage) -> None:
    """Prepare the checkout for this stage: one dvc.yaml, the upstreams' lock entries, the remote."""
    text = pipeline.read_bytes()
    for other in (*root.rglob("dvc.yaml"), *root.rglob("dvc.lock")):  # DVC reads every one it finds
        other.unlink()
    pipeline.write_bytes(text)  # it may have been a link to one of them
    entries = {}
    for name in stage.ups:
        entry = places.entry(task.run, name)
        if entry is None:
            raise InputError(f"{stage.name}: run {task.run} has no lock entry of {name}, which it reads from")
        entries[name] = entry
    write_lock(pipeline.with_name("dvc.lock"), entries)
    for path in stage.deps:
        if Path(path).name == hardware.NAME:  # of this node: costs measured on other hardware are not restored
            hardware.write(Path(path))
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ["DVC_SITE_CACHE_DIR"] = str(root / ".gradworks/site")
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    os.environ.setdefault("AWS_RETRY_MODE", "standard")  # DVC's fetch: give up within seconds
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "3")
    if stage.meta.gpu:  # `device: auto` must not fall back to the CPU then
        os.environ[device.ASKED] = str(stage.meta.gpu.count)
    os.environ["GRADWORKS_RUN"], os.environ["GRADWORKS_STAGE"] = task.run, task.stage  # a label of the stage's metrics
    _configure(places, root)


def _configure(places: Places, root: Path) -> None:
    """Configure DVC: no Git, the run's remote, and verified downloads."""
    from configobj import ConfigObj

    file = ConfigObj(encoding="utf-8")
    file.filename = str(root / ".dvc/config.local")
    file["core"] = {"no_scm": "true", "remote": "run", "analytics": "false", "check_update": "false"}
    options = {"url": places.remote, "verify": "true"}
    for name, variable in (
        ("endpointurl", "AWS_ENDPOINT_URL"), ("sse", "GRADWORKS_S3_SSE"),
        ("sse_kms_key_id", "GRADWORKS_S3_SSE_KMS_KEY_ID"), ("ssl_verify", "AWS_CA_BUNDLE"),
    ):  # fmt: skip
        if os.environ.get(variable):
            options[name] = os.environ[variable]
    if os.environ.get("GRADWORKS_S3_PATH_STYLE") == "1" and "AWS_CONFIG_FILE" not in os.environ:
        config = root / ".gradworks/aws"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text("[default]\ns3 =\n  addressing_style = path\n")
        os.environ["AWS_CONFIG_FILE"] = str(config)
    file['remote "run"'] = options
    if os.environ.get("GRADWORKS_CACHE"):  # of the stages of a chain
        file["cache"] = {"dir": os.environ["GRADWORKS_CACHE"]}
    file.write()


def _reproduce(
    project: Project, pipeline: Path, stage: stages.Stage, resumed: int, log: Log, node: int | None = None
) -> bool:  # fmt: skip
    """Run or restore the stage; returns whether it ran."""

    def unrestorable(why: str) -> None:
        if node is None and stage.meta.resources.nodes > 1:
            raise InputError(f"{stage.name}: its nodes' outputs cannot be restored: {why}")
        print(f"{stage.name}: cannot be restored, so it runs: {why}", flush=True)

    if resumed:
        print(f"{stage.name}: has the checkpoint of an earlier try", flush=True)
    before = log.size()
    try:
        if node:  # DVC would miss the outputs, which the first node alone writes
            if code := nodes.command(stage):
                raise Failed(f"{stage.cmd.split()[0]} exited with {code}")
            return True
        return project.reproduce(f"{pipeline.as_posix()}:{stage.name}", unrestorable)
    except Failed as error:
        if _terminated:
            raise _Stopped from None
        said = _last_words(log.since(before)) or [str(error)]
        raise InputError("\n".join([f"{stage.name}: {said[0]}", *said[1:]])) from error


def _last_words(printed: str) -> list[str]:
    """A failed stage's own error, or the last line of its traceback; [] if there is neither."""
    lines = [re.sub(r"^\[rank\d+\]: ", "", line) for line in printed.splitlines()]  # as torch prints those of ranks
    errors = [at for at, line in enumerate(lines) if line.startswith("error: ")]
    if errors:
        at = errors[-1]
        return [lines[at].removeprefix("error: "), *itertools.takewhile(str.strip, lines[at + 1 : at + 3])]
    traced = [at for at, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    if traced:
        return [line for line in lines[traced[-1] :] if line.strip() and not line.startswith((" ", "Traceback"))][:2]
    return []


_terminated: list[int] = []


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Forward SIGTERM to the stage, which saves a checkpoint and ends; then the pod's program ends too."""
    import psutil

    def pass_on(number: int, _: Any) -> None:
        _terminated.append(number)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Clock:
    """Seconds of each phase."""

    def __init__(self, seconds: dict[str, float], begun: float) -> None:
        self._seconds, self._last = seconds, begun

    def __call__(self, phase: str) -> None:
        now = time.time()
        self._seconds[phase], self._last = round(now - self._last, 3), now
