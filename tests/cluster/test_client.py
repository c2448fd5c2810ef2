"""The way to a cluster's API: every login that a profile has, and everything that may stand there instead, in words."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from pathlib import Path

import pytest

from gradworks.base.errors import InputError
from gradworks.cluster import answers, client, login, profile
from gradworks.cluster.answers import ApiError
from tests.cluster.api_server import PAGES, PROXY, SWAGGER, Api
from tests.cluster.swagger import derive

TOKEN, COOKIE = "planted-token-4711", "authservice_session=planted-cookie-0815; theme=dark"


@pytest.fixture
def api():
    with Api() as serving:
        yield serving
        assert serving.wrong == []


def connected(folder: Path, text: str, **auth: str) -> client.Client:
    file = folder / "my.yaml"
    (folder / "token").write_text(f"{TOKEN}\n")
    (folder / "cookie").write_text(f"{COOKIE}\n")
    given = "".join(f"  {key}: {value}\n" for key, value in auth.items())
    file.write_text(
        f"images: {{cpu: r.example/cpu, gpu: r.example/gpu}}\n{text}\n" + (f"auth:\n{given}" if auth else "")
    )
    return client.connect(profile.read(file), file)


def health(made: client.Client) -> bool:
    return made._healthz_api.healthz_service_get_healthz().multi_user


def refusal(made: client.Client) -> str:
    with pytest.raises(ApiError) as raised:
        health(made)
    said = str(raised.value)
    assert len(said.splitlines()) <= 3 and "planted" not in said and "dark" not in said
    return said


def test_the_swagger_is_that_of_the_installed_release():
    assert derive.swagger() == SWAGGER, "write it anew: python -m tests.cluster.swagger.derive"


def test_the_server_refuses_what_the_swagger_does_not_have(tmp_path):
    with Api() as api:
        made = connected(tmp_path, f"endpoint: {api.url}")
        with pytest.raises(ApiError, match=r"found 400.*'name' was unexpected.*POST /experiments"):
            made._experiment_api.experiment_service_create_experiment({"name": "x"})
        with pytest.raises(ApiError, match=r"\$.display_name: 1 is not of type 'string'"):
            made._experiment_api.experiment_service_create_experiment({"display_name": 1})
        with pytest.raises(ApiError, match="page_size: 'x' is no integer"):
            made._experiment_api.experiment_service_list_experiments(page_size="x")
        with pytest.raises(ApiError, match=r"found 404.*no such operation"):
            made._run_api.run_service_list_runs()
        api.experiments["x"] = {"display_name": 1, "namespace": ""}
        made._experiment_api.experiment_service_list_experiments()
        assert len(api.wrong) == 5 and "answer to GET" in api.wrong[-1]


@pytest.mark.parametrize(
    ("page", "about", "said"),
    [
        ("login redirect", "login", "found a redirect to a login page at dex.example.org\n"),
        ("moved", "endpoint", "found a redirect to https://new.example.org/pipeline\nset endpoint in "),
        ("login page", "login", "found a login page, expected the Kubeflow Pipelines API\n"),
        ("dashboard", "endpoint", "found a web page, .*\nset endpoint in .* ends in /pipeline"),
        ("no route", "endpoint", "found 404: Not Found\nexpected the Kubeflow Pipelines API: set endpoint in "),
        ("gateway", "endpoint", "found 503: upstream connect error, in answer to GET /healthz"),
        ("mesh", "namespace", "found 403: RBAC: access denied\nexpected a login that may use .*\nset namespace in "),
        ("echo", "login", r"found 401: bad login: Bearer \*\*\* \*\*\*\n"),
    ],
)
def test_what_stands_there_instead_is_said_in_words(api, tmp_path, page, about, said):
    api.page = page
    assert page in (*PAGES, "echo")
    made = connected(tmp_path, f"endpoint: {api.url}", tokenFile="token", cookieFile="cookie")
    with pytest.raises(ApiError, match=f"^{api.url}: {said}") as raised:
        health(made)
    assert raised.value.about == about and raised.value.passing == (page == "gateway")
    told = refusal(made)
    if about == "login":
        assert f"auth.tokenFile in {tmp_path / 'my.yaml'}: put a new token into {tmp_path / 'token'}" in told


def test_a_part_of_a_cookie_is_blotted_out_too(tmp_path):
    (tmp_path / "cookie").write_text(COOKIE)
    given = {"images": {"cpu": "r.example/x", "gpu": "r.example/y"}, "auth": {"cookieFile": "cookie"}}
    made = login.Login(profile.Profile.model_validate(given), tmp_path / "my.yaml")
    said = made.without_secrets("session planted-cookie-0815 has ended")
    assert said == "session *** has ended"


def test_a_login_has_the_key_that_the_profile_lacks_or_has(api, tmp_path):
    api.token = TOKEN
    assert refusal(connected(tmp_path, f"endpoint: {api.url}")).endswith(
        f"found 401: Request header error: there is no user identity header.\n"
        f"set auth.tokenFile or auth.cookieFile in {tmp_path / 'my.yaml'}"
    )
    assert "auth.cookieFile in" in refusal(connected(tmp_path, f"endpoint: {api.url}", cookieFile="cookie"))


def test_a_token_is_read_anew_and_a_cookie_sent_whole(api, tmp_path):
    api.token, api.cookie = "first", COOKIE
    made = connected(tmp_path, f"endpoint: {api.url}/", tokenFile="token", cookieFile="cookie")
    (tmp_path / "token").write_text("first\n")
    assert health(made) is False
    api.token = "second"
    (tmp_path / "token").write_text("second\n")
    assert health(made) is False


def web_token(**claims):
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in ({}, claims, "x")]
    return ".".join(parts)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (web_token(exp=1_764_000_000), ": it expired at 2025-11-24 16:00 UTC"),
        (web_token(exp=4e9, aud=["https://kubernetes.default.svc"], **{"kubernetes.io": {}}),
         ": it is for https://kubernetes.default.svc, Kubeflow takes pipelines.kubeflow.org"),
        (web_token(exp=4e9, aud=["a", "pipelines.kubeflow.org"], **{"kubernetes.io": {}}), ""),
        (web_token(exp=4e9, aud="dex"), ""),
        (web_token(exp="soon"), ""),
        ("a.b.c", ""), ("opaque", ""), ("a.WzFd.c", ""),
    ],
)  # fmt: skip
def test_a_refused_token_says_what_is_wrong_with_it(api, tmp_path, token, said):
    api.token, api.spaces = "another", {"ours"}
    made = connected(tmp_path, f"endpoint: {api.url}\nnamespace: ours", tokenFile="token")
    (tmp_path / "token").write_text(token)
    found = refusal(made)
    assert found.endswith(f"put a new token into {tmp_path / 'token'}{said}") and len(found.splitlines()) <= 3
    assert token not in found


def test_what_another_tool_left_in_the_home_folder_counts_for_nothing(api, tmp_path, monkeypatch):
    import kfp

    context = tmp_path / "context.json"
    context.write_text(json.dumps({"namespace": "theirs", "client_authentication_cookie": "theirs"}))
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(context))
    made = connected(tmp_path, f"endpoint: {api.url}")
    assert api.asked == [] and made.get_user_namespace() == "" and made._run_api.api_client.cookie is None
    assert connected(tmp_path, f"endpoint: {api.url}\nnamespace: ours").get_user_namespace() == "ours"


def test_nothing_is_printed_by_kfp(api, tmp_path, capfd, recwarn):
    made = connected(tmp_path, f"endpoint: {api.url}")
    with client.quiet():
        made.create_experiment("x", namespace="")
    assert capfd.readouterr() == ("", "") and not list(recwarn)


@pytest.mark.parametrize(
    ("endpoint", "auth", "said"),
    [
        ("http://127.0.0.1:9", {}, "cannot be reached: Connection refused\nset endpoint in "),
        ("http://nowhere.invalid", {}, "no such host\nset endpoint in .*, or auth.proxy"),
        ("http://x.invalid", {"proxy": "http://me:planted@127.0.0.1:9"},
         "the proxy http://127.0.0.1:9 does not lead there\nset auth.proxy in "),
        ("http://me:planted@127.0.0.1:9/pipeline", {}, "^http://127.0.0.1:9/pipeline: cannot be reached"),
    ],
)  # fmt: skip
def test_an_endpoint_that_does_not_answer(tmp_path, endpoint, auth, said):
    made = connected(tmp_path, f"endpoint: {endpoint}", **auth)
    with pytest.raises(ApiError, match=said) as raised:
        health(made)
    assert raised.value.passing and "planted" not in refusal(made)


def test_a_server_that_hangs_is_left(api, tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "_READ", 0.3)
    api.page = "hang"
    assert "no answer in time\nset endpoint in" in refusal(connected(tmp_path, f"endpoint: {api.url}"))


def test_a_proxy_is_asked(api, tmp_path):
    made = connected(tmp_path, "endpoint: http://kubeflow.invalid/pipeline", proxy=api.url)
    api.page = "mesh"  # any answer of its own says that it was asked
    assert refusal(made).startswith("http://kubeflow.invalid/pipeline: found 403: RBAC: access denied")
    api.page = None
    assert health(connected(tmp_path, "endpoint: http://kubeflow.invalid", proxy=api.url)) is False


def certificate(folder: Path, name: str, by: tuple | None = None, host: str = "127.0.0.1") -> tuple:
    """Key and certificate, signed by another one or by itself; also written to files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    found = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(by[1].subject if by else subject)
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(by[0] if by else key, hashes.SHA256())
    )  # fmt: skip
    pem, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / f"{name}.key").write_bytes(key.private_bytes(pem, plain, serialization.NoEncryption()))
    (folder / f"{name}.crt").write_bytes(found.public_bytes(pem))
    return key, found


def test_certificates(tmp_path):
    authority = certificate(tmp_path, "authority")
    certificate(tmp_path, "other")
    for name, host in (("right", "127.0.0.1"), ("elsewhere", "127.0.0.2")):
        certificate(tmp_path, name, authority, host)
    files = {n: (str(tmp_path / f"{n}.crt"), str(tmp_path / f"{n}.key")) for n in ("right", "elsewhere")}
    with Api(tls=files["right"]) as api:
        assert health(connected(tmp_path, f"endpoint: {api.url}", ca="authority.crt")) is False
        for auth in ({}, {"ca": "other.crt"}):
            said = refusal(connected(tmp_path, f"endpoint: {api.url}", **auth))
            assert "its certificate is not trusted: unable to get local issuer certificate\nset auth.ca in" in said
        plain = refusal(connected(tmp_path, f"endpoint: {api.url.replace('https', 'http')}"))
        assert "set endpoint in" in plain and "https://" in plain
    with Api(tls=files["elsewhere"]) as api:
        said = refusal(connected(tmp_path, f"endpoint: {api.url}", ca="authority.crt"))
        assert "its certificate is for another name\nset endpoint in" in said
    with Api() as api:
        said = refusal(connected(tmp_path, f"endpoint: {api.url.replace('http', 'https')}"))
        assert "no TLS there" in said and "http://" in said


def kubeconfig(folder: Path, url: str, monkeypatch) -> None:
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "other",
        "clusters": [{"name": "c", "cluster": {"server": url}}, {"name": "d", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [
            {"name": "team", "context": {"cluster": "c", "user": "u"}},
            {"name": "other", "context": {"cluster": "d", "user": "u"}},
        ],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(json.dumps(config))
    from kubernetes.config import kube_config

    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(folder / "kubeconfig"))


def test_a_context_of_the_kubeconfig_leads_there(api, tmp_path, monkeypatch):
    kubeconfig(tmp_path, api.url, monkeypatch)
    api.token, api.spaces = TOKEN, {"ours"}
    made = connected(tmp_path, "namespace: ours", kubeContext="team")
    assert health(made) is True and made._run_api.api_client.configuration.host.startswith(api.url + PROXY)
    with client.quiet():
        assert made.create_experiment("x").namespace == "ours"
    api.token = "another"
    assert "kubectl --context team get pods has to work" in refusal(made)
    with pytest.raises(InputError, match=r"auth\.kubeContext: found 'none'\nthe kubeconfig has: team, other"):
        connected(tmp_path, "", kubeContext="none")


@pytest.mark.parametrize(
    ("text", "auth", "said"),
    [
        ("", {}, "my.yaml: endpoint: missing\nexpected the address .*, or auth.kubeContext"),
        ("endpoint: http://x.invalid", {"tokenFile": "none"}, "auth.tokenFile: .*none: No such file"),
        ("endpoint: http://x.invalid", {"cookieFile": "two"}, "auth.cookieFile: .*two: expected one line, found 2"),
        ("endpoint: http://x.invalid", {"ca": "none"}, "auth.ca: .*none: No such file"),
        ("endpoint: http://x.invalid", {"ca": "two"}, "auth.ca: .*two: no certificates in it"),
    ],
)
def test_files_that_the_profile_names(tmp_path, text, auth, said):
    (tmp_path / "two").write_text("one\ntwo\n")
    with pytest.raises(InputError, match=said):
        connected(tmp_path, text, **auth)
