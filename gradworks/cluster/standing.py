"""Pipelines that stay in Kubeflow: `gradworks compile --upload`, `submit --every`, `runs remove`.

Their tasks hold every value, so that a run of one asks for nothing. All stages have pods: which of them the run cache
has by the time of a run is not known before, and a pod restores its stage. Kubeflow's own cache is off in them as in
every pipeline here: it compares a task's inputs, which are the same every night, and not the files in S3 that the
stage reads; a stage whose outputs were pruned would count as done.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError
from gradworks.cluster import compile, cron, early
from gradworks.cluster.client import connect, experiment_id, quiet
from gradworks.cluster.plan import Plan, plan
from gradworks.cluster.profile import read, store
from gradworks.store import code, runs, standing
from gradworks.store.places import Places


def upload(pipeline: Path, profile_path: Path) -> str:
    """Register the pipeline of the checkout's commit in Kubeflow; returns the version's name.

    The pipeline is made if it is missing. A commit has one version; one that is there is left as it is.

    Raises:
        InputError: as `plan`; the cluster or S3 refused it. Then neither a version nor its record is left.
    """
    profile = read(profile_path)
    with store(profile):
        made = plan(pipeline, profile, everything=True, standing=True)
        places, client = Places(made.remote), connect(profile, profile_path)
        title, version = compile.title(Path(made.pipeline)), made.code.commit[:12]
        known = _pipeline(client, title, profile.namespace)
        if known and version in _versions(client, known):
            print(f"{title}: version {version} is there already; to upload it again, delete it in Kubeflow first")
            return version
        record = made.record | {"code": code.upload(made.code, places), "experiment": profile.experiment}
        standing.put(places, made.run, record | {"version": f"{title} {version}"})
        new = None
        try:
            with tempfile.TemporaryDirectory() as folder, quiet():
                file = str(_file(made, folder))
                if not known:  # the file that makes a pipeline is its first version, of the pipeline's name
                    api = client._pipelines_api
                    body = {"display_name": title, "name": title, "namespace": profile.namespace or ""}
                    known = new = api.pipeline_service_create_pipeline(pipeline=body).pipeline_id
                client.upload_pipeline_version(file, version, pipeline_id=known)
        except InputError:
            standing.drop(places, made.run)
            if new:
                client._pipelines_api.pipeline_service_delete_pipeline(pipeline_id=new)
            raise
        print(f"{title}: version {version} of {len(made.stages)} stages; a run of it asks for nothing", flush=True)
    return version


def every(
    pipeline: Path, profile_path: Path, when: str, given: Sequence[str] = (), dirty: bool = False,
    sure: early.Sure = early.unchecked,
) -> str:  # fmt: skip
    """Run a dvc.yaml of this commit again and again; returns the schedule's name.

    Args:
        when: five fields of cron, in the time zone of the cluster's scheduler (UTC by default).
        given: KEY=VALUE each; dirty: take the work tree as it is; sure: all as for `submit`.

    Raises:
        InputError: as `plan`; no cron expression; the cluster or S3 refused it. Then no record is left.
    """
    times, profile = cron.kubeflow(when), read(profile_path)
    with store(profile):
        made = plan(pipeline, profile, given, dirty, everything=True, standing=True, sure=sure)
        places, client = Places(made.remote), connect(profile, profile_path)
        experiment = experiment_id(client, profile, profile_path)
        record = made.record | {"code": code.upload(made.code, places), "experiment": profile.experiment, "every": when}
        standing.put(places, made.run, record)
        begun = None
        try:
            with tempfile.TemporaryDirectory() as folder, quiet():
                begun = client.create_recurring_run(
                    experiment, made.run, cron_expression=times, no_catchup=True, max_concurrency="1",
                    pipeline_package_path=str(_file(made, folder)), enable_caching=False,
                    pipeline_root=profile.pipeline_root, service_account=profile.service_account,
                )  # fmt: skip
            standing.put(places, made.run, record | {"schedule": begun.recurring_run_id})
        except InputError:
            if begun:  # S3 refused its id: without it nobody could end the schedule from here
                client._recurring_run_api.recurring_run_service_delete_recurring_run(begun.recurring_run_id)
            standing.drop(places, made.run)
            raise
        print(f"{made.run}: {len(made.stages)} stages of {made.pipeline} at {made.code.base[:12]}, every {when!r}")
        print(f"to end it: gradworks runs remove {made.run} --cluster {profile_path}", flush=True)
    return made.run


def remove(name: str, profile_path: Path) -> None:
    """End a schedule: Kubeflow begins no more runs of it; those that ran stay. Raises InputError."""
    profile = read(profile_path)
    with store(profile):
        places = runs.places()
        record = standing.get(places, name)
        if record is None or "every" not in record:
            known = [one for one, found in standing.every(places).items() if found and "every" in found]
            raise InputError(f"{places.remote}: no schedule {name!r}\nfound: {', '.join(known[:5]) or 'none'}")
        if "schedule" in record:
            api = connect(profile, profile_path)._recurring_run_api
            try:
                api.recurring_run_service_delete_recurring_run(record["schedule"])
            except InputError as error:
                if "found 404" not in str(error) or "in answer to" not in str(error):  # deleted in Kubeflow already
                    raise
        standing.drop(places, name)
        print(f"{name}: ended; its runs stay", flush=True)


def _file(made: Plan, folder: str) -> Path:
    file = Path(folder, "pipeline.yaml")
    file.write_text(made.ir, encoding="utf-8")
    return file


def _pipeline(client: Any, title: str, namespace: str | None) -> str | None:
    """Kubeflow's id of a pipeline, or None. kfp's own look-up knows no namespace."""
    wanted = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": title}]}
    found = client._pipelines_api.pipeline_service_list_pipelines(
        namespace=namespace or "", filter=json.dumps(wanted)
    ).pipelines
    return found[0].pipeline_id if found else None


def _versions(client: Any, pipeline: str) -> set[str]:
    names: set[str] = set()
    token = ""
    while True:
        page = client._pipelines_api.pipeline_service_list_pipeline_versions(pipeline, page_size=100, page_token=token)
        names |= {one.display_name for one in page.pipeline_versions or ()}
        token = page.next_page_token
        if not token:
            return names
