"""Submit a run to a cluster: `gradworks submit`.

The code of one commit is uploaded to S3, its stages are compiled to a pipeline, and the pipeline is submitted with the
addresses of the code and the DVC remote. `gradworks runs` and `gradworks collect` read the record written beside them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError
from gradworks.cluster import early, follow
from gradworks.cluster.client import connect, experiment_id, quiet
from gradworks.cluster.plan import Plan, parameters, plan
from gradworks.cluster.profile import Profile, read, store
from gradworks.store import code
from gradworks.store.places import Places


def submit(
    pipeline: Path,
    profile_path: Path,
    given: Sequence[str] = (),
    dirty: bool = False,
    wait: bool = False,
    patience: float = follow.PATIENCE,
    everything: bool = False,
    sure: early.Sure = early.unchecked,
) -> str:
    """Run a dvc.yaml on a cluster; returns the run's name.

    Args:
        pipeline: the path of a dvc.yaml.
        profile_path: the cluster's profile.
        given: KEY=VALUE each: parameters that this run has instead of the checkout's.
        dirty: take the work tree as it is.
        wait: follow the run to its end.
        patience: with `wait`, seconds without a pod that can start after which it gives up.
        everything: also the stages that the run cache has; else they are left out, and their entries are the run's.
        sure: as for `plan`.

    Raises:
        InputError: as `plan`; the cluster or S3 refused it; with `wait`, the run failed or cannot go on.
    """
    profile = read(profile_path)
    with store(profile):
        made = plan(pipeline, profile, given, dirty, everything, sure=sure)
        places = made.ahead.places
        if not made.ir:
            return _nothing(made, places, profile)
        with made.ahead:
            client = connect(profile, profile_path)
            experiment = experiment_id(client, profile, profile_path)  # first: is the login one that works?
            uri = code.upload(made.code, places)
        record = made.record | {"code": uri, "experiment": profile.experiment}
        places.put_record(made.run, "run", record)
        try:
            made.keep(places)
            run_id = _begin(client, experiment, made, uri, profile)
        except InputError as error:
            made.drop(places)
            places.put_record(made.run, "run", record | {"state": "refused", "error": str(error)})
            raise
        url = f"{profile.endpoint.rstrip('/')}/#/runs/details/{run_id}" if profile.endpoint else ""
        record |= {"run_id": run_id, "url": url, "state": "submitted"}
        places.put_record(made.run, "run", record)
        before = f", {len(made.restored)} of them done before the start" if made.restored else ""
        pods = f", in {record['pods']} pod{'s' * (record['pods'] > 1)}"
        print(f"run {made.run}: {len(made.stages)} stages of {made.pipeline} at {made.code.base[:12]}{before}{pods}")
        print(f"{url or 'Kubeflow calls it ' + run_id}", flush=True)
        if wait:
            _wait(client, places, record, patience)
        else:
            print(f"status: gradworks runs show {made.run}", flush=True)
    print(f"its results, when it has ended: gradworks collect {made.run}", flush=True)
    return made.run


def _nothing(made: Plan, places: Places, profile: Profile) -> str:
    """The record of a run without pods; returns its name. Raises InputError."""
    said = f"nothing to submit: the run cache has all {len(made.stages)} stages of {made.pipeline}"
    print(f"run {made.run}: {said}", flush=True)
    made.keep(places)
    places.put_record(
        made.run, "run", made.record | {"code": "", "experiment": profile.experiment, "state": "restored"}
    )
    print(f"its results: gradworks collect {made.run}   (to run them all the same: --all)", flush=True)
    return made.run


def _begin(client: Any, experiment: str, made: Plan, uri: str, profile: Profile) -> str:
    """Kubeflow's id of the run. Raises InputError."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        file = Path(folder, "pipeline.yaml")
        file.write_text(made.ir, encoding="utf-8")
        return client.run_pipeline(
            experiment, made.run, str(file), params=parameters(made, uri), enable_caching=False,
            pipeline_root=profile.pipeline_root, service_account=profile.service_account,
        ).run_id  # fmt: skip


def _wait(client: Any, places: Places, record: dict[str, Any], patience: float) -> None:
    try:
        follow.follow(client, places, record, patience)
    except KeyboardInterrupt:
        print(f"\nno longer followed; the run goes on: gradworks runs show {record['run']}", flush=True)
        raise SystemExit(130) from None
