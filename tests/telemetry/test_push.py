"""The Pushgateway: the real one, one that is not there, one that hangs; and what its user and password are told to."""

from __future__ import annotations

import subprocess

import pytest

from gradworks.telemetry import push
from tests.telemetry.servers import free_port, get, hanging, pushgateway, until

prometheus_client = pytest.importorskip("prometheus_client")
SECRET = "http://reader:hunter2@"


@pytest.fixture
def registry():
    made = prometheus_client.CollectorRegistry()
    prometheus_client.Gauge("gradworks_loss", "", registry=made).set(1.5)
    return made


def at(monkeypatch, address):
    monkeypatch.setenv(push.VARIABLE, address)
    return push.configured()


def test_the_address(monkeypatch, capsys):
    monkeypatch.delenv(push.VARIABLE, raising=False)
    assert push.configured() is None
    assert at(monkeypatch, "gateway:9091").url == "http://gateway:9091"
    assert at(monkeypatch, "https://gateway/under/").url == "https://gateway/under/"
    assert at(monkeypatch, "http://[::1]:9091").url == "http://[::1]:9091"
    found = at(monkeypatch, "https://reader:hunt%40er2@gateway:9091")
    assert (found.url, found.user, found.password) == ("https://gateway:9091", "reader", "hunt@er2")
    assert "hunt" not in repr(found) and "reader" not in repr(found)
    assert capsys.readouterr().err == ""
    for bad in (f"{SECRET}[bad", f"{SECRET}gateway:port", "ftp://reader:hunter2@gateway", "http://"):
        assert at(monkeypatch, bad) is None
        said = capsys.readouterr().err
        assert said.startswith("warning: PROMETHEUS_PUSHGATEWAY is not the address") and said.count("\n") == 1
        assert "hunter2" not in said


@pytest.mark.slow("runs a Pushgateway")
def test_a_real_gateway_has_the_last_values_and_forgets_a_run(tmp_path, monkeypatch, registry, capsys):
    monkeypatch.setattr(push, "EVERY", 0.05)
    with pushgateway(tmp_path) as gateway:
        pusher = push.Pusher(at(monkeypatch, gateway.url), registry, "one", "train@a/b")
        pusher.start()
        until(lambda: "gradworks_loss{" in get(f"{gateway.url}/metrics"))
        gauge = prometheus_client.Gauge("gradworks_learning_rate", "", registry=registry)
        gauge.set(0.25)
        until(lambda: "gradworks_learning_rate{" in get(f"{gateway.url}/metrics"))  # again, by itself
        gauge.set(0.125)
        pusher.finish()
        assert not pusher.is_alive()
        shown = get(f"{gateway.url}/metrics")
        assert 'gradworks_learning_rate{instance="",job="gradworks",run="one",stage="train@a/b"} 0.125' in shown
        push.phases("one", "train@a/b", {"fetch": 1.0, "run": 2.0})
        push.phases("two", "train@a/b", {"run": 3.0})
        shown = get(f"{gateway.url}/metrics")
        assert 'run="one",stage="train@a/b"} 0.125' in shown  # the phases come beside the rest
        assert 'phase="fetch",run="one",stage="train@a/b"} 1' in shown
        push.forget("one", ["fetch", "train@a/b"])
        shown = get(f"{gateway.url}/metrics")
        assert 'run="one"' not in shown and 'phase="run",run="two",stage="train@a/b"} 3' in shown
    assert capsys.readouterr().err == ""


@pytest.mark.slow("runs a Pushgateway")
def test_user_and_password(tmp_path, monkeypatch, registry, capsys):
    hashed = "$2b$04$bpuYp264Hk5G7qi7Dyh.tO1lZUn.m/4hPLLsXI6PVvfj4MHEiftk6"  # of hunter2
    (tmp_path / "web.yml").write_text(f'basic_auth_users: {{reader: "{hashed}"}}\n')
    with pushgateway(tmp_path, "--web.config.file=web.yml") as gateway:
        at(monkeypatch, gateway.url.replace("http://", SECRET)).push(registry, "one", "s")
        pusher = push.Pusher(at(monkeypatch, gateway.url.replace("//", "//reader:wrong-word@")), registry, "one", "s")
        pusher.start()
        pusher.finish()
    said = capsys.readouterr().err
    assert said.endswith(": it answers with HTTP status 401; the stage goes on without\n") and said.count("\n") == 1
    assert "wrong-word" not in said and "reader" not in said


def test_no_gateway_is_told_once_without_its_password(monkeypatch, registry, capsys):
    monkeypatch.setattr(push, "EVERY", 0.01)
    url = f"127.0.0.1:{free_port()}"
    pusher = push.Pusher(at(monkeypatch, SECRET + url), registry, "one", "s")
    tries, real = [], pusher._push
    pusher._push = lambda: (tries.append(1), real())[1]
    pusher.start()
    until(lambda: len(tries) > 2)
    pusher.finish()
    said = f"warning: metrics cannot be pushed to http://{url}: Connection refused; the stage goes on without\n"
    assert capsys.readouterr().err == said


@pytest.mark.slow("runs a Pushgateway")
def test_a_gateway_that_comes_back_gets_the_metrics(tmp_path, monkeypatch, registry, capsys):
    monkeypatch.setattr(push, "EVERY", 0.05)
    monkeypatch.setattr(push, "LONGEST", 0.05)
    with pushgateway(tmp_path) as gateway:
        pusher = push.Pusher(push.Gateway(gateway.url), registry, "one", "s")
        gateway.kill()
        pusher.start()
        until(lambda: capsys.readouterr().err)
        address = f"--web.listen-address=127.0.0.1:{gateway.port}"
        gateway.process = subprocess.Popen(["prometheus-pushgateway", address], stderr=subprocess.DEVNULL)
        until(lambda: "gradworks_loss{" in get(f"{gateway.url}/metrics"))
        pusher.finish()


def test_a_gateway_that_hangs_is_not_waited_for(monkeypatch, registry, capsys):
    monkeypatch.setattr(push, "TIMEOUT", 60.0)
    monkeypatch.setattr(push, "BOUND", 0.2)
    with hanging() as url:
        pusher = push.Pusher(at(monkeypatch, url), registry, "one", "s")
        pusher.start()
        pusher.finish()
        assert pusher.is_alive()  # nothing waited for the answer
        told = capsys.readouterr().err
        assert told == f"warning: metrics cannot be pushed to {url}: no answer in 0.2 s; the stage goes on without\n"
        push.phases("one", "s", {"run": 1.0})
        assert capsys.readouterr().err == f"warning: metrics cannot be pushed to {url}: no answer in 0.2 s\n"
        push.forget("one", ["s", "t", "u"])  # the first one that fails ends it
        assert capsys.readouterr().err == f"warning: metrics of run one stay in {url}: no answer in 0.2 s\n"
    pusher.join()  # the connection is gone, and it says no second word
    assert capsys.readouterr().err == ""


def test_the_time_of_an_answer_is_bounded(monkeypatch, registry, capsys):
    monkeypatch.setattr(push, "TIMEOUT", 0.1)
    with hanging() as url:
        pusher = push.Pusher(at(monkeypatch, url), registry, "one", "s")
        pusher.start()
        pusher.finish()
        assert not pusher.is_alive()
        assert "no answer in 0.1 s; the stage goes on" in capsys.readouterr().err
