"""A real S3 API on localhost, with one bucket."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest
from moto.server import ThreadedMotoServer


@contextmanager
def s3_bucket() -> Iterator[str]:
    """URL of a new bucket; this process and those it starts find the server by the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            environment.setenv(name, value)
        forget_s3()
        bucket = f"night-{uuid.uuid4().hex[:8]}"
        fsspec.filesystem("s3").mkdir(bucket)
        try:
            yield f"s3://{bucket}/artifacts"
        finally:
            forget_s3()
            server.stop()


def forget_s3() -> None:
    """Let the next store connect anew: fsspec keeps one connection per set of options."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()
