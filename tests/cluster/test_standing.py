"""Pipelines that stay in Kubeflow: uploaded, or run on a schedule; what runs that Kubeflow begins are known as."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gradworks.base.errors import InputError
from gradworks.cluster import cron, history
from gradworks.cluster import standing as verbs
from gradworks.cluster.answers import ApiError
from gradworks.pod import run as pod
from gradworks.store import collect, runs, standing
from gradworks.store.artifacts import prune
from gradworks.store.places import Places
from tests.cluster import toy
from tests.cluster.api_server import Api, Refusal

NIGHT, NAMES = "0 3 * * *", ["make", "double@a", "double@b", "join"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkout, which is the current folder, and a store."""
    folder = tmp_path_factory.mktemp("standing")
    with toy.served(folder) as (environment, patch):
        made = toy.Runs(toy.checkout(folder / "checkout"), folder, environment)
        patch.chdir(made.root)
        yield made


@pytest.fixture
def api():
    with Api() as serving:
        yield serving
        assert serving.wrong == []


def profile(folder: Path, api: Api, **more: object) -> Path:
    given = {"endpoint": api.url, "images": {"cpu": "gradworks-cpu", "gpu": "gradworks-gpu"}, **more}
    (folder / "cluster.yaml").write_text(yaml.safe_dump(given))
    return folder / "cluster.yaml"


def kept(places: Places) -> list[str]:
    return [one["Key"] for one in places.list(places.key("pipelines"))]


def values(spec: dict) -> dict[str, dict[str, str]]:
    """By stage, what its task is given; every value has to be there already."""
    assert "inputDefinitions" not in spec["root"]
    tasks = spec["root"]["dag"]["tasks"].values()
    assert all(task["cachingOptions"] == {} for task in tasks)
    given = [{n: v["runtimeValue"]["constant"] for n, v in task["inputs"]["parameters"].items()} for task in tasks]
    return {one["stage"]: one for one in given}


@pytest.mark.parametrize(
    ("given", "sent"),
    [(NIGHT, "0 0 3 * * *"), ("*/10 8-18 1,15 * 0-6", "0 */10 8-18 1,15 * 0-6"), ("59 23 31 12 6", "0 59 23 31 12 6")],
)
def test_kubeflow_reads_the_seconds_first(given, sent):
    assert cron.kubeflow(given) == sent


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0 0 3 * * *", "6 fields\nexpected five"), ("", "0 fields"), ("60 3 * * *", "minute: found '60'"),
        ("0 24 * * *", "hour: found '24'"), ("0 3 0 * *", "day of the month"), ("0 3 * 13 *", "month: found '13'"),
        ("0 3 * * 7", "weekday|day of the week: found '7'"), ("*/0 3 * * *", "minute"), ("9-3 3 * * *", "minute"),
        ("٣ 3 * * *", "minute"), ("1, 3 * * *", "minute"),
    ],
)  # fmt: skip
def test_times_that_cron_does_not_have_are_refused(given, said):
    with pytest.raises(InputError, match=said) as raised:
        cron.kubeflow(given)
    assert len(str(raised.value).splitlines()) <= 3


@pytest.mark.slow("an S3 server, an API server")
def test_a_version_a_commit_whose_runs_ask_for_nothing(world, api, tmp_path, capsys):
    file = profile(tmp_path, api)
    version = verbs.upload(Path("dvc.yaml"), file)
    assert toy.git(world.root, "rev-parse", "HEAD").startswith(version) and len(version) == 12
    (sent,) = api.versions
    given = values(sent["pipeline_spec"]["pipeline_spec"])
    assert list(given) and sorted(given) == sorted(NAMES)
    (key,) = kept(world.places)
    one = {"run": standing.RUN, "code": world.uri, "remote": toy.REMOTE, "record": Path(key).stem}
    assert all(value == {**one, "pipeline": "dvc.yaml", "stage": name} for name, value in given.items())
    verbs.upload(Path("dvc.yaml"), file)
    assert "is there already" in capsys.readouterr().out and len(api.versions) == 1 == len(kept(world.places))
    (world.root / "note").write_text("x")
    toy.git(world.root, "add", "note")
    toy.git(world.root, "commit", "-qm", "note")
    other = verbs.upload(Path("dvc.yaml"), file)
    assert [one["display_name"] for one in api.versions] == [version, other] and len(api.pipelines) == 1
    verbs.upload(Path("dvc.yaml"), file)  # on the second page
    assert len(api.versions) == 2


@pytest.mark.slow("an S3 server, an API server, pods")
def test_a_run_that_kubeflow_begins_is_shown_and_collected(world, api, tmp_path, monkeypatch):
    name = verbs.every(Path("dvc.yaml"), profile(tmp_path, api), NIGHT, ["numbers={a: {}}"])
    (sent,) = api.schedules.values()
    assert sent["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}} and sent["no_catchup"] is True
    assert (sent["mode"], sent["max_concurrency"], sent["display_name"]) == ("ENABLE", "1", name)
    given = values(sent["pipeline_spec"]["pipeline_spec"])
    run = "6f0f4e0c-0000-4000-8000-000000000001"  # Kubeflow's
    whole = toy.Runs.given

    def as_the_driver(self, _, stage):
        made = whole(self, run, stage)
        made["inputs"]["parameterValues"] = {**given[stage], "run": run}
        return made

    monkeypatch.setattr(toy.Runs, "given", as_the_driver)
    ended, said = world.pod(run, *given)
    assert ended == 0 and list(given) == ["make -> double@a -> join"], said
    begun = runs.record(world.places, run)
    assert begun["stages"] == ["make", "double@a", "join"] and begun["run_id"] == run
    assert begun["url"].endswith(f"/#/runs/details/{run}")
    assert begun["begun"] < world.record(run, "double@a")["begun"]  # written once
    assert history.shown(world.places, run).count("succeeded") == 3 and run in history.listing(world.places)
    collect.collect(run)
    assert Path("page.html").read_text() == "<p>194</p>"
    assert f"schedule {name}: every {NIGHT}" in history.listing(world.places)


@pytest.mark.slow("an S3 server, an API server")
def test_a_schedule_ends_with_one_command(world, api, tmp_path):
    file = profile(tmp_path, api)
    first, second = (verbs.every(Path("dvc.yaml"), file, NIGHT) for _ in "12")
    before = len(kept(world.places))
    verbs.remove(first, file)
    assert [one["display_name"] for one in api.schedules.values()] == [second]
    assert first not in history.listing(world.places) and second in history.listing(world.places)
    api.schedules.clear()  # deleted in Kubeflow
    verbs.remove(second, file)
    assert len(kept(world.places)) == before - 2
    with pytest.raises(InputError, match=r"no schedule 'x'\nfound: "):
        verbs.remove("x", file)


@pytest.mark.slow("an S3 server, an API server")
@pytest.mark.parametrize("verb", ["upload", "every"])
@pytest.mark.parametrize(
    ("wrong", "said"), [("space", "403: .*namespace other"), ("token", "found 401"), ("pod", "quota")]
)
def test_what_is_refused_leaves_nothing(world, api, tmp_path, monkeypatch, verb, wrong, said):
    file = profile(tmp_path, api, namespace="other" if wrong == "space" else "team")
    api.spaces, api.token = {"team"}, "another" if wrong == "token" else None

    def refuse(_: dict) -> None:
        raise Refusal(400, "exceeded quota")

    if wrong == "pod":
        monkeypatch.setattr(api, "upload_pipeline_version", refuse, raising=True)
        monkeypatch.setattr(api, "recurring_run_service_create_recurring_run", refuse)
    before = kept(world.places)
    with pytest.raises(ApiError, match=said) as raised:
        verbs.upload(Path("dvc.yaml"), file) if verb == "upload" else verbs.every(Path("dvc.yaml"), file, NIGHT)
    assert len(str(raised.value).splitlines()) <= 3
    assert kept(world.places) == before and not (api.versions or api.schedules or api.pipelines)


@pytest.mark.slow("an S3 server, an API server")
def test_a_schedule_whose_id_cannot_be_kept_is_ended(world, api, tmp_path, monkeypatch):
    real, puts = standing.put, []

    def put(places: Places, name: str, record: dict) -> None:
        puts.append(name)
        if len(puts) == 2:
            raise InputError("s3: refused")
        real(places, name, record)

    monkeypatch.setattr(standing, "put", put)
    before = kept(world.places)
    with pytest.raises(InputError, match="s3: refused"):
        verbs.every(Path("dvc.yaml"), profile(tmp_path, api), NIGHT)
    assert not api.schedules and kept(world.places) == before


@pytest.mark.slow("an S3 server")
def test_a_pod_refuses_a_run_without_an_id_or_a_record(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for run, record, said in ((standing.RUN, "x", "Kubeflow's id"), ("uuid", "gone", "upload it again")):
        assert pod.run(pod.Task(run, "make", "dvc.yaml", toy.REMOTE, record)) == 2
        assert said in capsys.readouterr().err
    assert not list(world.places.list(world.places.key("runs", "uuid")))


@pytest.mark.slow("an S3 server")
def test_prune_keeps_the_code_of_a_standing_pipeline(world):
    uri = world.places.put(world.places.key("code", f"s-{'0' * 64}.tar.gz"), b"code")
    standing.put(world.places, "kept", {"code": uri, "stages": []})
    listed = [world.places.uri(one["Key"]) for one in prune.plan(world.places, -60)["objects"]]
    assert uri not in listed
    standing.drop(world.places, "kept")
    ended = runs.names(world.places)
    assert uri in [world.places.uri(one["Key"]) for one in prune.plan(world.places, -60, tuple(ended))["objects"]]
