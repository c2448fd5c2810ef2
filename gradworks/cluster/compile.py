"""A dvc.yaml as a Kubeflow pipeline: `gradworks compile`.

Each stage is one container task that runs pod/boot.py, gets the code of the run from S3 and reproduces its stage there
(see gradworks/pod). A pod finds what its upstreams wrote in S3 itself: edges between tasks order them, and their
artifacts are for the lineage that Kubeflow shows (see lineage.py). Kubeflow's own cache is off because DVC's run cache
is used. The pipeline holds no secrets: pods get them from the cluster.

Stages that wait for each other alone share a task and its pod (see chains.py). A workflow of many tasks exceeds etcd's
limit (1.5 MiB), so above 40 tasks similar ones of a matrix are folded into a loop over their stages' names.
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
from gradworks.cluster import chains, check, lineage, loops, settings, trainjob
from gradworks.cluster.chains import Chain
from gradworks.cluster.profile import Profile
from gradworks.pod import environment
from gradworks.store import chains as words
from gradworks.store.stages import Stage, checkout, load

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask

TASKS = 40  # above this, tasks are folded into loops
PARAMETER = 10_000  # Kubeflow's limit in characters; the items of a loop are one parameter
SIZE = 1_000_000  # bytes of a pipeline; its workflow is larger and must fit into etcd's 1.5 MiB
_BOOT = Path(__file__).parents[1] / "pod/boot.py"
_RUN = ("run", "code", "remote")  # the parameters of the pipeline
_NAMED, _NONE = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty


@dataclass(frozen=True)
class Task:
    """A task of the pipeline: one pod, or a loop over similar pods.

    Attributes:
        name: of its component, one per pipeline.
        chains: what each pod runs, in the order of the loop: one stage, or several one after the other.
    """

    name: str
    chains: tuple[Chain, ...]

    @property
    def stages(self) -> list[Stage]:
        """All of them."""
        return [stage for chain in self.chains for stage in chain]

    @property
    def items(self) -> list[str]:
        """The stages of each pod as one text."""
        return [_item(chain) for chain in self.chains]


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
    read = lineage.edges({task.name: task.chains for task in planned})

    def body(*values: Any) -> None:
        given = dict(fixed or zip(_RUN, values, strict=True), pipeline=pipeline)
        made: dict[str, PipelineTask] = {}
        for task in planned:
            meta = task.stages[0].meta
            image = settings.image(meta.kind, tags[meta.kind], profile)
            component = _component(task, pipeline, image, tuple(fixed or _RUN), read[task.name])
            written = {edge.name: made[edge.source].outputs[edge.output] for edge in read[task.name]}
            inputs = {
                e.name: dsl.Collected(written[e.name]) if e.items > 1 else written[e.name] for e in read[task.name]
            }
            inside = {stage.name for stage in task.stages}
            ups = [up for stage in task.stages for up in stage.ups if up not in inside]
            above = {id(made[up]): made[up] for up in ups}.values()
            if len(task.chains) == 1:
                one = component(**given, **inputs, stage=task.items[0]).set_display_name(task.items[0])
                one.after(*above)
            else:
                with dsl.ParallelFor(task.items, name=task.name) as item:
                    one = component(**given, **inputs, stage=item).after(*above)
            own = trainjob.apply(one, meta, image, profile)
            settings.apply(one, own, profile, [stage.meta.seconds for stage in task.chains[0]])
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
    for task in _named([((stage,),) for stage in stages.values()]):
        kind = task.stages[0].meta.kind
        component = _component(task, path, settings.image(kind, known[kind], profile))
        files.append(folder / task.name / "component.yaml")
        _write(files[-1], _compiled(component))
    return files


def plan(stages: Mapping[str, Stage]) -> list[Task]:
    """The tasks of a pipeline, upstream first: one per chain, or loops over similar chains where there are too many."""
    found = chains.chains(stages)
    if len(found) <= TASKS:
        return _named([(chain,) for chain in found])
    return _named([tuple(chunk) for group in loops.loops(found, stages, TASKS) for chunk in _chunks(group)])


def _chunks(found: Sequence[Chain]) -> Iterator[list[Chain]]:
    """Chunks that fit into the items of one loop."""
    chunk: list[Chain] = []
    for chain in found:
        if chunk and len(json.dumps([_item(one) for one in (*chunk, chain)])) > PARAMETER:
            yield chunk
            chunk = []
        chunk.append(chain)
    yield chunk


def _item(chain: Chain) -> str:
    return words.joined(stage.name for stage in chain)


def _named(loops: Sequence[tuple[Chain, ...]]) -> list[Task]:
    """Tasks with valid Kubernetes names: that of the stage, or of the group for a loop; those of a chain in a row."""
    seen: Counter[str] = Counter()
    tasks = []
    for loop in loops:
        first, *rest = loop[0]
        name = _small(" ".join([first.name if len(loop) == 1 else first.group, *(stage.group for stage in rest)]))
        seen[name] += 1
        tasks.append(Task(name + (f"-{seen[name]}" if seen[name] > 1 else ""), loop))
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

    chain, alone = task.chains[0], len(task.chains) == 1
    inputs = {**dict.fromkeys(run, _NONE), "pipeline": pipeline, "stage": _item(chain) if alone else _NONE}
    kinds = {edge.name: getattr(dsl, edge.out.kind) for edge in read}
    artifacts = {edge.name: dsl.Input[list[kinds[edge.name]] if edge.items > 1 else kinds[edge.name]] for edge in read}
    outputs: dict[str, Any] = {}
    for stage, owner in zip(chain, words.owners([stage.name for stage in chain]), strict=True):
        outputs[words.output("lock", owner)] = dsl.OutputPath(str)
        outputs |= {words.output(out.name, owner): dsl.Output[getattr(dsl, out.kind)] for out in stage.outs}
        shown = [out.confusion for out in stage.outs if out.confusion]
        outputs |= {words.output(name, owner): dsl.Output[dsl.ClassificationMetrics] for name in shown}

    def program(*_: Any) -> Any:
        # "{{$}}" becomes the executor input, with the output locations. The other argument makes containers differ:
        # Kubeflow gives components with equal containers the inputs and outputs of the first of them
        args = ["{{$}}", f"{pipeline}:{task.name}"]
        return dsl.ContainerSpec(image=image, command=["python3", "-c", _BOOT.read_text()], args=args)

    program.__name__ = task.name.replace("-", "_")
    program.__doc__ = f"{_item(chain) if alone else words.joined(s.group for s in chain)} of {pipeline}"
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
