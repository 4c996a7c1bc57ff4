"""URLs that may hold secrets: shown without them, and refused where they would be written down."""

import re

from onerec.config.fields import require

_SECRET_NAMES = r"[^=&\s]*(?:key|secret|token|sig|password|credential)[^=&\s]*"
# A secret key may contain a slash, so the user part does not end at the first one; a port may not.
# `container@account` (Azure) and `user@host` name no secret, but over HTTP a lone name is a token.
_USER = re.compile(
    r"(?<=://)(?:[^/?#@:\s]*:(?!\d{1,5}(?:[/?#]|$))[^@\s]*@)"
    r"|(?:(?<=http://)|(?<=https://))[^/?#@\s]+@"
)
_SECRET_QUERY = re.compile(rf"[?&]{_SECRET_NAMES}=", re.IGNORECASE)
_QUERY_VALUE = re.compile(r"(?<=[?&])([^=&\s]+)=[^&\s]*")


def redact_url(url: str) -> str:
    """The URL as it may be shown: without user and password, and without the values of its query.

    >>> redact_url("s3://AKIA:se/cret@bucket/night")
    's3://***@bucket/night'
    >>> redact_url("https://host/log.csv?X-Amz-Signature=abc&part=1")
    'https://host/log.csv?X-Amz-Signature=***&part=***'
    >>> redact_url("s3://bucket/a@b")
    's3://bucket/a@b'
    """
    if "://" not in url:
        return url
    return _QUERY_VALUE.sub(r"\1=***", _USER.sub("***@", url))


def require_no_credentials(name: str, url: str) -> None:
    """Refuse a URL that holds a secret: it would be written into settings, manifests and logs.

    Args:
        name: The setting.
        url: Its value; a plain path is fine.

    Raises:
        SettingError: There is a password, a token or a signature in it; the value is not shown.
    """
    secret = "://" in url and (_USER.search(url) or _SECRET_QUERY.search(url))
    require(
        not secret,
        name,
        redact_url(url),
        "holds credentials, which would be written down with it. Leave them out of the URL and "
        "give them by environment variables (for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) "
        "or a profile (AWS_PROFILE)",
    )
