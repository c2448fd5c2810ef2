"""Check that a cluster is ready for a run: `gradworks doctor --cluster PROFILE` prints a line per requirement.

It writes one small object under gradworks/doctor/ in the DVC remote and removes it, and changes nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError
from gradworks.cluster import check as refusals
from gradworks.cluster import compile, kube, offers, registry, settings
from gradworks.cluster.answers import ApiError
from gradworks.cluster.client import connect, quiet
from gradworks.cluster.profile import Profile, read, store
from gradworks.store import code, runs, s3
from gradworks.store.places import Places
from gradworks.store.stages import checkout, load

_PART = 8  # bytes
_BODY = b"written by gradworks doctor; may be removed\n"


def check(profile_path: Path, pipeline: Path = Path("dvc.yaml")) -> bool:
    """Print a line per requirement of a run on a cluster; returns whether all are met.

    Args:
        profile_path: the cluster's profile.
        pipeline: the path of the dvc.yaml.
    """
    lines = _Lines()
    profile = lines.tell("profile", lambda: read(profile_path), lambda _: str(profile_path))
    if profile is None:
        lines.skip("the profile is not valid", "endpoint", "login", "namespace", "bucket", "code", "image")
        return False
    _api(lines, profile, profile_path)
    with store(profile):
        _bucket(lines, pipeline)
    lines.tell("code", lambda: _clean(pipeline), str)
    _images(lines, profile, pipeline)
    _gpus(lines, profile, pipeline)
    _trainer(lines, profile, pipeline)
    return not lines.failed


class _Lines:
    """Prints the lines and counts failures.

    Attributes:
        failed: the number of failures.
    """

    def __init__(self) -> None:
        self.failed = 0

    def tell(self, name: str, look: Callable[[], Any], said: Callable[[Any], str]) -> Any:
        """Run a check and print its result or the reason why it failed; returns the result, or None."""
        try:
            found = look()
        except InputError as error:
            self.fail(name, str(error))
            return None
        self.say("ok", name, said(found))
        return found

    def fail(self, name: str, said: str) -> None:
        self.failed += 1
        self.say("failed", name, said)

    def skip(self, why: str, *names: str) -> None:
        for name in names:
            self.say("not checked", name, why)

    def say(self, word: str, name: str, said: str) -> None:
        print(f"{word:<12} {name + ':':<14} " + f"\n{'':28}".join(said.splitlines()), flush=True)


def _api(lines: _Lines, profile: Profile, file: Path) -> None:
    """Check endpoint, login and namespace; a refusal is reported on the line that it concerns."""
    address = profile.endpoint or f"by auth.kubeContext {profile.auth.kube_context}"
    try:
        client = connect(profile, file)
    except InputError as error:
        lines.fail("endpoint", str(error))
        return lines.skip("nothing to ask it with", "login", "namespace")
    try:
        health = client._healthz_api.healthz_service_get_healthz()
    except ApiError as error:
        if error.about in ("login", "namespace"):  # a namespace was not spoken of
            lines.say("ok", "endpoint", f"{address} answers")
            lines.fail("login", str(error))
            return lines.skip("the login does not work", "namespace")
        lines.fail("endpoint", str(error))
        return lines.skip("the endpoint is not the API's", "login", "namespace")
    lines.say("ok", "endpoint", f"{address} answers: {'several users' if health.multi_user else 'one user'}")
    if health.multi_user and not profile.namespace:
        lines.skip("only a namespace can be asked for", "login")
        return lines.fail("namespace", f"found none\nset namespace in {file}: the one that your runs belong to")
    try:
        with quiet():
            client.list_experiments(page_size=1, namespace=profile.namespace)
    except ApiError as error:
        if error.about in ("namespace", "request"):
            lines.say("ok", "login", "accepted")
            return lines.fail("namespace", str(error))
        lines.fail("login", str(error))
        return lines.skip("the login does not work", "namespace")
    lines.say("ok", "login", "accepted")
    return lines.say("ok", "namespace", profile.namespace or "the installation's own")


def _bucket(lines: _Lines, pipeline: Path) -> None:
    places = lines.tell("bucket", lambda: Places(runs.remote(checkout(pipeline))), lambda found: found.remote)
    if places is None:
        return lines.skip("there is no bucket", "bucket write", "bucket read", "bucket delete")
    key = places.key("doctor", f"{secrets.token_hex(8)}.txt")
    if lines.tell("bucket write", lambda: places.put(key, _BODY), str) is None:
        return lines.skip("nothing could be written", "bucket read", "bucket delete")

    def read_back() -> int:
        found = places.get(key)
        if found and s3.with_trailer(found):
            raise InputError(f"{places.uri(key)}: the store keeps boto3's checksum as part of it\n{_both(s3.WRITING)}")
        if found != _BODY:
            raise InputError(f"{places.uri(key)}: found {'nothing' if found is None else 'other bytes'}")
        part = places.part(key, _PART)  # DVC reads large files in parts
        if part != _BODY[:_PART]:
            raise InputError(f"{places.uri(key)}: its first {_PART} bytes: found other ones\n{_both(s3.READING)}")
        return len(found)

    def delete() -> None:
        places.delete([key])
        if places.head(key) is not None:
            raise InputError(f"{places.uri(key)}: is still there after it was deleted")

    lines.tell("bucket read", read_back, lambda size: f"{size} bytes")
    return lines.tell("bucket delete", delete, lambda _: "gone again")


def _both(variable: str) -> str:
    return f"export {variable} here, and give it to pods by configMapEnv of the profile"


def _clean(pipeline: Path) -> str:
    changed = code.changes(checkout(pipeline))
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(f"{', '.join(changed[:3])}{more}: changed, but not committed\ngit commit, or submit --dirty")
    return "every change is committed"


def _images(lines: _Lines, profile: Profile, pipeline: Path) -> None:
    """Check the images that the checkout's stages use."""
    try:
        stages = load(pipeline)
        refusals.images(stages.values(), str(pipeline), profile)
        tags = compile.tags(checkout(pipeline), stages)
    except InputError as error:
        return lines.fail("image", str(error))
    for kind, tag in tags.items():
        name = settings.image(kind, tag, profile)
        there, said = registry.has(name)
        if there:
            lines.say("ok", f"image {kind}", f"{name} {said}".rstrip())
        elif there is None:
            lines.skip(f"{name}: {said}", f"image {kind}")
        else:
            own = name.endswith(f":{tag}")
            fix = f"build it: make images KIND={kind} REGISTRY=... PUSH=1" if own else "the profile sets its tag"
            lines.fail(f"image {kind}", f"{name}: {said}\n{fix}; or set images.{kind}")
    return None


def _gpus(lines: _Lines, profile: Profile, pipeline: Path) -> None:
    """Check that a node offers each kind of GPU of the profile, and as many as the stages request."""
    if not profile.gpus:
        return None
    try:
        cluster = kube.connect(profile.auth.kube_context, profile.namespace)
        nodes = cluster.nodes() if cluster else None
        asked = [stage.meta.gpu for stage in load(pipeline).values() if stage.meta.gpu]
    except InputError as error:
        return lines.skip(str(error).splitlines()[0], *(f"gpu {kind}" for kind in profile.gpus))
    if nodes is None:
        return lines.skip("Kubernetes alone knows: no kubeconfig here", *(f"gpu {kind}" for kind in profile.gpus))
    for kind, gpu in profile.gpus.items():
        there = offers.most(kind, profile, nodes)
        needed = max((one.count for one in asked if one.kind == kind), default=0)
        if there >= max(needed, 1):
            lines.say("ok", f"gpu {kind}", f"up to {there} {gpu.resource} on a node")
            continue
        found = f"at most {there} {gpu.resource} on a node" if there else f"no node for it offers {gpu.resource}"
        said = f"{found}, of {len(nodes)} nodes\nlook at nodeSelector and tolerations: kubectl describe nodes"
        if needed:
            lines.fail(f"gpu {kind}", f"{said}\na stage asks for {needed}, and waits until such a node comes")
        else:
            lines.say("absent", f"gpu {kind}", f"{said}\nno stage here asks for it")
    return None


def _trainer(lines: _Lines, profile: Profile, pipeline: Path) -> None:
    """Check that Kubeflow Trainer is installed, where a stage asks for several nodes, and Kueue for its queue."""
    try:
        if not any(stage.meta.resources.nodes > 1 for stage in load(pipeline).values()):
            return None
        cluster = kube.connect(profile.auth.kube_context, profile.namespace)
        there = cluster.groups() if cluster else None
    except InputError as error:
        return lines.skip(str(error).splitlines()[0], "several nodes")
    if there is None:
        return lines.skip("Kubernetes alone knows: no kubeconfig here", "several nodes")
    needed = {"trainer.kubeflow.org": "Kubeflow Trainer", **({"kueue.x-k8s.io": "Kueue"} if profile.queue else {})}
    missing = [f"found no {group}: {name} is not installed" for group, name in needed.items() if group not in there]
    if missing:
        return lines.fail("several nodes", "\n".join(missing))
    return lines.say("ok", "several nodes", f"{' and '.join(needed.values())} installed")
