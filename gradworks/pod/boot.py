"""The first lines that run in a pod, and for each stage of a chain: they get the code of the run from S3 and start it.

The image holds the environment only, so this text is part of the pipeline: `python3 -c TEXT EXECUTOR_INPUT`.
It may import boto3 and the standard library only.
"""

import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time

begun = time.time()
inputs = json.loads(sys.argv[1])["inputs"]["parameterValues"]
code = inputs["code"]
bucket, key = code.removeprefix("s3://").split("/", 1)
import boto3  # noqa: E402
from botocore.config import Config  # noqa: E402

path = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("GRADWORKS_S3_PATH_STYLE") == "1"
config = Config(s3={"addressing_style": "path"} if path else {}, retries={"mode": "standard", "max_attempts": 5})
try:
    body = boto3.client("s3", config=config).get_object(Bucket=bucket, Key=key)["Body"].read()
except Exception as error:
    sys.exit(f"error: {inputs['stage']}: {code}: {error}")
if hashlib.sha256(body).hexdigest() != key.removesuffix(".tar.gz").rpartition("-")[2]:
    sys.exit(f"error: {inputs['stage']}: {code}: damaged: its digest is not the one in its name")
root = os.path.abspath(os.environ.get("GRADWORKS_WORK", "code"))
try:
    shutil.rmtree(root, ignore_errors=True)  # of a container that was restarted in its pod
    os.makedirs(root)
except OSError as error:
    sys.exit(f"error: {inputs['stage']}: {root}: {error.strerror}; expected a folder that user {os.getuid()} can write")
with tarfile.open(fileobj=io.BytesIO(body)) as tar:
    # the filter came with Python 3.11.4; the bytes are those that were uploaded in any case
    tar.extractall(root, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
os.chdir(root)
sys.path.insert(0, root)
os.environ["PYTHONPATH"] = root
os.environ.setdefault("HOME", tempfile.gettempdir())
from gradworks.pod import chain  # noqa: E402

chain.main(sys.argv[1], begun)
