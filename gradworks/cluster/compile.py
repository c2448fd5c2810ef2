"""A dvc.yaml as a Kubeflow pipeline: `gradworks compile`.

Each stage is one container task that runs pod/boot.py, gets the code of the run from S3 and reproduces its stage there
(see gradworks/pod). A pod finds what its upstreams wrote in S3 itself: edges between tasks order them, and their
artifacts are for the lineage that Kubeflow shows (see lineage.py). Kubeflow's own cache is off because DVC's run cache
is used. The pipeline holds no secrets: pods get them from the cluster.

A workflow of many tasks exceeds etcd's limit (1.5 MiB), so above 40 tasks similar stages of a matrix are folded into a
loop over their names.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.base.artifacts import atomic_file
from gradworks.base.errors import InputError
from gradworks.cluster import check, lineage, settings, trainjob
from gradworks.cluster.profile import Profile
from gradworks.pod import environment
from gradworks.store.stages import Stage, checkout, load

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask

TASKS = 40  # above this, stages are folded into loops
PARAMETER = 10_000  # Kubeflow's limit in characters; the items of a loop are one parameter
SIZE = 1_000_000  # bytes of a pipeline; its workflow is larger and must fit into etcd's 1.5 MiB
_BOOT = Path(__file__).parents[1] / "pod/boot.py"
_RUN = ("run", "code", "remote")  # the parameters of the pipeline
_NAMED, _NONE = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty


@dataclass(frozen=True)
class Task:
    """A task of the pipeline: one stage, or a loop over similar stages.

    Attributes:
        name: of its component, one per pipeline.
        stages: in the order of the loop.
    """

    name: str
    stages: tuple[Stage, ...]


def text(pipeline: Path, profile: Profile | None = None) -> str:
    """The Kubeflow pipeline of a dvc.yaml, ready to be submitted.

    Args:
        pipeline: the path of a dvc.yaml.
        profile: of the cluster; none = no cluster settings, and the image names of `make images`.

    Raises:
        InputError: the file is not valid, a pod could not get an input or would lose an output, a GPU is unknown.
    """
    root, stages = checked(pipeline)
    path = pipeline.absolute().relative_to(root)
    return ir(stages, path.as_posix(), title(path), profile, tags(root, stages))


def checked(pipeline: Path) -> tuple[Path, dict[str, Stage]]:
    """The checkout's root and the stages of a dvc.yaml. Raises InputError when one cannot run in a pod."""
    stages, root = load(pipeline), checkout(pipeline)
    check.outputs(stages.values(), pipeline)
    check.inputs(stages, pipeline, root)
    return root, stages


def possible(stages: Mapping[str, Stage], pipeline: str, profile: Profile | None) -> None:
    """Raises InputError when a stage needs an image or a kind of GPU that the cluster's profile does not name."""
    check.gpus(stages.values(), pipeline, profile)
    check.images(stages.values(), pipeline, profile)
    trainjob.possible(stages.values(), pipeline)


def tags(root: Path, stages: Mapping[str, Stage]) -> dict[str, str]:
    """Tags of the images that the stages use, by kind. Raises InputError."""
    return {kind: environment.digest(root, kind) for kind in sorted({s.meta.kind for s in stages.values()})}


def ir(
    stages: Mapping[str, Stage],
    pipeline: str,
    name: str,
    profile: Profile | None,
    tags: Mapping[str, str],
    fixed: Mapping[str, str] | None = None,
) -> str:
    """The text of the pipeline: a YAML document, and a second one with the Kubernetes settings.

    Args:
        stages: upstream first.
        pipeline: the path of their dvc.yaml, from the checkout's root.
        name: of the pipeline in Kubeflow.
        profile: of the cluster.
        tags: of the images, by kind.
        fixed: values of `run`, `code`, `remote` and `record` that every run has; none = a run gives the first three.

    Raises:
        InputError: a kind of GPU is unknown, or there are too many stages for one pipeline.
    """
    from kfp import dsl

    possible(stages, pipeline, profile)
    planned = plan(stages)
    alone = {task.stages[0].name: task.stages[0] for task in planned if len(task.stages) == 1}
    read = {task.name: lineage.edges(task.stages, alone) for task in planned}

    def body(*values: Any) -> None:
        given = dict(fixed or zip(_RUN, values, strict=True), pipeline=pipeline)
        made: dict[str, PipelineTask] = {}
        for task in planned:
            first = task.stages[0]
            image = settings.image(first.meta.kind, tags[first.meta.kind], profile)
            component = _component(task, pipeline, image, tuple(fixed or _RUN), read[task.name])
            inputs = {edge.name: made[edge.source].outputs[edge.out.name] for edge in read[task.name]}
            above = {id(made[up]): made[up] for stage in task.stages for up in stage.ups}.values()
            if len(task.stages) == 1:
                one = component(**given, **inputs, stage=first.name).set_display_name(first.name)
                one.after(*above)
            else:
                with dsl.ParallelFor([stage.name for stage in task.stages], name=task.name) as item:
                    one = component(**given, **inputs, stage=item).after(*above)
            settings.apply(one, trainjob.apply(one, first.meta, image, profile), profile)
            made |= {stage.name: one for stage in task.stages}

    body.__signature__ = inspect.Signature(
        [inspect.Parameter(one, _NAMED, annotation=str) for one in (() if fixed else _RUN)]
    )  # type: ignore[attr-defined]
    made = _compiled(dsl.pipeline(body, name=name))
    if len(made) > SIZE and any(read.values()):  # rather no lineage than no run
        read = {task: [] for task in read}
        made = _compiled(dsl.pipeline(body, name=name))
    if len(made) > SIZE:
        raise InputError(
            f"{pipeline}: {len(stages)} stages make a pipeline of {len(made)} bytes in {len(planned)} tasks\n"
            f"expected at most {SIZE}: more of them as matrix or foreach, or in a dvc.yaml of their own"
        )
    return made


def write(pipeline: Path, out: Path, profile: Profile | None = None) -> None:
    """Write the pipeline of a dvc.yaml to a file. Raises InputError as `text` does."""
    _write(out, text(pipeline, profile))


def write_components(pipeline: Path, folder: Path, profile: Profile | None = None) -> list[Path]:
    """Write each stage as a component for other pipelines: FOLDER/NAME/component.yaml; returns the files.

    Raises:
        InputError: as `text` does.
    """
    root, stages = checked(pipeline)
    path = pipeline.absolute().relative_to(root).as_posix()
    check.images(stages.values(), path, profile)
    known, files = tags(root, stages), []
    for task in _named([(stage,) for stage in stages.values()]):
        kind = task.stages[0].meta.kind
        component = _component(task, path, settings.image(kind, known[kind], profile))
        files.append(folder / task.name / "component.yaml")
        _write(files[-1], _compiled(component))
    return files


def plan(stages: Mapping[str, Stage]) -> list[Task]:
    """The tasks of a pipeline, upstream first: one per stage, or loops over similar stages where there are too many."""
    depth: dict[str, int] = {}
    for stage in stages.values():
        depth[stage.name] = 1 + max((depth[up] for up in stage.ups), default=0)
    if len(stages) <= TASKS:
        return _named([(stage,) for stage in stages.values()])
    alike: dict[Any, list[Stage]] = {}
    # stages of one depth do not depend on each other; the tasks of a loop share image, resources and artifacts
    for stage in sorted(stages.values(), key=lambda stage: depth[stage.name]):
        artifacts = tuple((out.name, out.kind) for out in stage.outs)
        alike.setdefault((depth[stage.name], stage.group, stage.meta, artifacts), []).append(stage)
    return _named([tuple(chunk) for group in alike.values() for chunk in _chunks(group)])


def _chunks(stages: Sequence[Stage]) -> Iterator[list[Stage]]:
    """Chunks that fit into the items of one loop."""
    chunk: list[Stage] = []
    for stage in stages:
        if chunk and len(json.dumps([one.name for one in (*chunk, stage)])) > PARAMETER:
            yield chunk
            chunk = []
        chunk.append(stage)
    yield chunk


def _named(groups: Sequence[tuple[Stage, ...]]) -> list[Task]:
    """Tasks with valid Kubernetes names: that of the stage, or of the group for a loop."""
    seen: Counter[str] = Counter()
    tasks = []
    for group in groups:
        full = group[0].name if len(group) == 1 else group[0].group
        name = _small(full)
        seen[name] += 1
        tasks.append(Task(name + (f"-{seen[name]}" if seen[name] > 1 else ""), group))
    return tasks


def _small(full: str) -> str:
    """A valid Kubernetes name, with room for Kubeflow's suffixes; a long one ends in its digest."""
    name = re.sub(r"[^a-z0-9]+", "-", full.lower()).strip("-")
    return name if len(name) <= 56 else f"{name[:49]}-{hashlib.sha256(full.encode()).hexdigest()[:6]}"


def _component(
    task: Task, pipeline: str, image: str, run: Sequence[str] = _RUN, read: Sequence[lineage.Edge] = ()
) -> Any:
    """The component of a task: its inputs, one artifact per output, and the program."""
    from kfp import dsl

    stage = task.stages[0]
    alone = len(task.stages) == 1
    inputs = {**dict.fromkeys(run, _NONE), "pipeline": pipeline, "stage": stage.name if alone else _NONE}
    artifacts = {edge.name: dsl.Input[getattr(dsl, edge.out.kind)] for edge in read}
    outputs = {"lock": dsl.OutputPath(str), **{out.name: dsl.Output[getattr(dsl, out.kind)] for out in stage.outs}}

    def program(*_: Any) -> Any:
        # "{{$}}" becomes the executor input, with the output locations. The other argument makes containers differ:
        # Kubeflow gives components with equal containers the inputs and outputs of the first of them
        args = ["{{$}}", f"{pipeline}:{task.name}"]
        return dsl.ContainerSpec(image=image, command=["python3", "-c", _BOOT.read_text()], args=args)

    program.__name__ = task.name.replace("-", "_")
    program.__doc__ = f"{stage.name if alone else stage.group} of {pipeline}"
    program.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, _NAMED, annotation=str, default=value) for name, value in inputs.items()]
        + [inspect.Parameter(name, _NAMED, annotation=kind) for name, kind in (artifacts | outputs).items()]
    )
    return dsl.container_component(program)


def _compiled(made: Any) -> str:
    from kfp.compiler import Compiler

    with tempfile.TemporaryDirectory() as folder:  # the compiler only writes files
        path = Path(folder) / "pipeline.yaml"
        Compiler().compile(made, str(path))
        return path.read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def title(pipeline: Path) -> str:
    """gradworks, or gradworks-NAME of pipelines/NAME/dvc.yaml."""
    return _small("-".join(("gradworks", *(part for part in pipeline.parent.parts if part != "pipelines"))))
