"""No secret of a URL is shown or written down."""

import doctest
from pathlib import Path

import pytest

from onerec import urls
from onerec.datasets.own_config import read_own_config
from onerec.urls import redact_url, require_no_credentials

SECRET = "hU/sh+Secret="

HOLD_SECRETS = [
    f"s3://AKIA123:{SECRET}@bucket/night",
    f"s3://AKIA123:{SECRET}@bucket/a@b",
    f"simplecache::s3://AKIA123:{SECRET}@bucket/night",
    f"sftp://user:{SECRET}@host:22/dir",
    "https://AKIA123@host/log.csv",
    "http://AKIA123:@host/log.csv",
    "https://host/log.csv?X-Amz-Signature=AKIA123&part=1",
    "abfs://data@account.dfs.core.windows.net/x?sig=AKIA123",
    "https://host/x?a=1&access_token=AKIA123",
]
HOLD_NONE = [
    "s3://bucket/night",
    "s3://bucket/user@host/day:1",
    "s3://bucket",
    "abfs://data@account.dfs.core.windows.net/x",
    "sftp://user@host:22/dir",
    "http://localhost:9000/a@b",
    "https://host/log.csv?part=1",
    "hdfs://user@host:8020/x",
    "memory://x",
    "/data/a:b@c",
    "log/{date}.csv",
]


@pytest.mark.parametrize("url", HOLD_SECRETS)
def test_secrets_are_refused_and_not_shown(url: str) -> None:
    for shown in (redact_url(url), redact_url(f"cannot open {url}: no")):
        assert "AKIA123" not in shown
        assert "Secret" not in shown
    with pytest.raises(ValueError, match=r"ONEREC_DATA_DIR=.*holds credentials.*AWS_PROFILE") as e:
        require_no_credentials("ONEREC_DATA_DIR", url)
    assert "AKIA123" not in str(e.value)
    assert "Secret" not in str(e.value)


@pytest.mark.parametrize("url", HOLD_NONE)
def test_other_urls_pass(url: str) -> None:
    require_no_credentials("x", url)
    assert redact_url(url).startswith(url.partition("?")[0])


def test_the_file_that_describes_one_s_own_data(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(f"events: {{path: '{HOLD_SECRETS[0]}'}}\n")
    with pytest.raises(ValueError, match=r"events.path.*holds credentials") as error:
        read_own_config(file)
    assert "AKIA123" not in str(error.value)
    assert "Secret" not in str(error.value)


def test_the_examples() -> None:
    assert doctest.testmod(urls).failed == 0
