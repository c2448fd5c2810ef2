"""Run a compiled pipeline in containers on this machine, through kfp's DockerRunner.

Credentials and the endpoint are mounted as the files that boto3 reads in the home folder, so neither the pipeline nor
`docker inspect` shows them. PROMETHEUS_PUSHGATEWAY is passed on.
"""

from __future__ import annotations

import builtins
import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gradworks.base.errors import InputError
from gradworks.cluster import early, follow
from gradworks.cluster.plan import Plan, parameters, plan
from gradworks.store import code
from gradworks.telemetry import push

_HOME = "/tmp"  # HOME of the image
_LABEL = "gradworks.run"
_LOOK = 2.0  # seconds between two polls of the stages
_USER = 10001  # the image's user, in place of root


def submit(
    pipeline: Path, given: Sequence[str] = (), dirty: bool = False, everything: bool = False,
    sure: early.Sure = early.unchecked,
) -> str:  # fmt: skip
    """Run a dvc.yaml in containers on this machine, to its end; returns the run's name.

    Args:
        pipeline: the path of a dvc.yaml.
        given: KEY=VALUE each: parameters that this run has instead of the checkout's.
        dirty: take the work tree as it is.
        everything: also the stages that the run cache has.
        sure: as for `plan`.

    Raises:
        InputError: as `plan` and `run_ir`; or a stage failed, which is named.
    """
    made = plan(pipeline, None, given, dirty, everything, sure=sure)
    places = made.ahead.places
    record = {**made.record, "where": "containers on this machine"}
    if not made.ir:
        made.keep(places)
        places.put_record(made.run, "run", {**record, "code": "", "state": "restored"})
        print(f"run {made.run}: nothing to run: the run cache has all {len(made.stages)} stages of {made.pipeline}")
        print(f"its results: gradworks collect {made.run}   (to run them all the same: --all)", flush=True)
        return made.run
    with made.ahead:
        _images_are_there(engine(), made.ir)
        record["code"] = uri = code.upload(made.code, places)
    made.keep(places)
    log = Path(".gradworks/docker", f"{made.run}.log")
    print(f"run {made.run}: {len(made.stages)} stages of {made.pipeline}   (log: {log})", flush=True)
    seen = follow.Seen(places, made.run, [name for name in made.stages if name not in made.restored])
    ended = "stopped"
    places.put_record(made.run, "run", {**record, "state": "submitted"})
    try:
        good = _watched(made, parameters(made, uri), log, seen)
        ended = "succeeded" if good else "failed"
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on from what is in S3 (run {made.run})", flush=True)
        raise SystemExit(130) from None
    finally:
        places.put_record(made.run, "run", {**record, "state": ended})
    if not good:
        failed = {n: one.get("error", "") for n, one in seen.records.items() if one["state"] in follow.BROKEN}
        never = {} if failed else {"a stage": f"failed before its program began: {log}"}
        raise InputError(follow.failure(made.run, failed, never))
    print(f"its results: gradworks collect {made.run}", flush=True)
    return made.run


def _watched(made: Plan, parameters: dict[str, str], log: Path, seen: follow.Seen) -> bool:
    """Run `run_ir` in a process of its own with its output in the log, and print a line per stage."""
    process = multiprocessing.get_context("spawn").Process(target=_apart, args=(made.ir, parameters, log))
    process.start()
    try:
        while process.is_alive():
            process.join(_LOOK)
            seen.look()
    except BaseException:  # Ctrl-C too
        process.terminate()
        for container in engine().containers.list(filters={"label": f"{_LABEL}={parameters['run']}"}):
            container.stop(timeout=20)  # time for the stage to save a checkpoint
        process.join()
        raise
    return process.exitcode == 0


def _apart(ir: str, parameters: dict[str, str], log: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    sys.exit(0 if run_ir(ir, parameters, log) else 1)


def run_ir(ir: str, parameters: Mapping[str, str], log: Path) -> bool:
    """Run a pipeline to its end; whether it succeeded.

    Args:
        ir: what `compile.ir` returns.
        parameters: the pipeline's.
        log: for the output of kfp and the containers.

    Raises:
        InputError: no Docker engine answers, an image is missing, or there are no credentials.
    """
    _images_are_there(engine(), ir)
    from docker.errors import DockerException
    from kfp import components, local

    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, log.open("a", buffering=1) as kept:
        # the temporary folder itself is readable by its owner only
        file, outputs, home = Path(folder, "ir.yaml"), Path(folder, "outputs"), Path(folder, "aws")
        file.write_text(ir)
        outputs.mkdir()
        outputs.chmod(0o777)
        home.mkdir()
        _aws(home)
        runner = local.DockerRunner(labels={_LABEL: parameters["run"]}, **_options(home))
        local.init(runner, pipeline_root=str(outputs), raise_on_error=True)
        pipeline = components.load_component_from_file(str(file))
        with contextlib.redirect_stdout(kept), contextlib.redirect_stderr(kept), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about features of clusters: resources, names
            plain = builtins.print
            try:
                pipeline(**parameters)
            except RuntimeError as error:  # how kfp reports a failed task
                print(error)
                return False
            except DockerException as error:
                raise InputError(f"the Docker engine: {str(error).splitlines()[0]}") from error
            finally:
                builtins.print = plain  # kfp replaces print to indent output, and its loop threads leave it replaced
    return True


def engine() -> Any:
    """A client of the Docker engine. Raises InputError where none answers."""
    import docker

    try:
        client = docker.from_env()
        client.ping()
        return client
    except (docker.errors.DockerException, OSError) as error:
        said = str(error).splitlines()[0][:150]
        raise InputError(f"no Docker engine answers: {said}\nstart one, or submit to a cluster") from None


def _images_are_there(client: Any, ir: str) -> None:
    """Check for the images first: kfp would try to pull a missing one from a public registry."""
    import docker
    import yaml

    executors = next(yaml.safe_load_all(ir))["deploymentSpec"]["executors"].values()
    for image in sorted({one["container"]["image"] for one in executors}):
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound:
            raise InputError(f"found no image {image}\nbuild it: make images") from None


def _options(home: Path) -> dict[str, Any]:
    """Arguments of every container."""
    from docker.types import Mount

    user = f"{os.getuid() or _USER}:0"  # writable paths of the image belong to group 0
    mounts = [Mount(f"{_HOME}/.aws", str(home), type="bind", read_only=True)]
    options = {"user": user, "mounts": mounts, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
    gateway = push.configured()
    if gateway and gateway.user is None:  # `docker inspect` would show a password
        options["environment"] = {push.VARIABLE: seen_from_container(gateway.url)}
    if sys.platform == "linux":
        options["network_mode"] = "host"  # so that a store on the loopback interface is reachable
    return options


def _aws(home: Path) -> None:
    """Write the AWS files credentials and config for a container, from this process's S3 settings."""
    import boto3
    from botocore.exceptions import BotoCoreError

    session = boto3.Session()
    try:
        found = session.get_credentials()
    except BotoCoreError as error:
        raise InputError(f"S3 credentials: {error}") from None
    if found is None:
        raise InputError(
            "found no S3 credentials\nexpected AWS_PROFILE, AWS_ACCESS_KEY_ID or what boto3 else looks for"
        )
    keys = found.get_frozen_credentials()
    lines = ["[default]", f"aws_access_key_id = {keys.access_key}", f"aws_secret_access_key = {keys.secret_key}"]
    if keys.token:
        lines.append(f"aws_session_token = {keys.token}")
    (home / "credentials").write_text("\n".join(lines) + "\n")
    lines = ["[default]", f"region = {session.region_name or 'us-east-1'}"]
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        lines += [f"endpoint_url = {seen_from_container(endpoint)}", "s3 =", "  addressing_style = path"]
    (home / "config").write_text("\n".join(lines) + "\n")
    for file in home.iterdir():
        file.chmod(0o644)  # the container runs as another user
    home.chmod(0o755)


def seen_from_container(endpoint: str, platform: str = sys.platform) -> str:
    """A loopback endpoint as seen from a container: Docker Desktop has a name for the host."""
    parts = urlsplit(endpoint)
    if platform == "linux" or parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return endpoint
    port = f":{parts.port}" if parts.port else ""
    return parts._replace(netloc=f"host.docker.internal{port}").geturl()
