"""Which requests to S3 are retried, how often, and the errors after the last try.

botocore (5 tries) and s3fs (5 times as many) would each retry as well. Both are configured not to
(`s3.py`), so the numbers here are the only ones.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from omnitrace_core.addresses import scrub, shown_address
from omnitrace_core.errors import ConfigError, StoreCredentials, StoreUnavailable
from omnitrace_core.printable import printable
from omnitrace_core.runtime.node_faults import check_handles, doubt_texts, raise_if_node_fault

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retries:
    """Limits of one request: at most `tries` tries, and none starts after `total_s`."""

    tries: int = 10
    total_s: float = 180.0
    first_wait_s: float = 0.2
    longest_wait_s: float = 20.0
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0

    def wait_s(self, n_failed: int) -> float:
        """Seconds to wait after `n_failed` failed tries: exponential backoff with full jitter.

        The wait is random in [0, bound], so that workers that were throttled at the same time do
        not retry at the same time.
        """
        bound = min(self.longest_wait_s, self.first_wait_s * 2 ** (n_failed - 1))
        return random.uniform(0, bound)


RETRIES = Retries()

# Codes that are retried besides all responses with HTTP status 429 or 5xx:
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_TRANSIENT = frozenset(
    {
        *("RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"),
        *("XAmzContentChecksumMismatch", "OperationAborted", "ConditionalRequestConflict"),
        *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"),
        *("InternalError", "ServiceUnavailable"),  # for one key of a DeleteObjects request
    }
)
_REFUSED = frozenset(
    {
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
        *("TokenRefreshRequired", "InvalidSecurity", "AuthorizationHeaderMalformed"),
    }
)
_BROKEN_CONNECTION = (
    *(boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError),
    *(boto.FlexibleChecksumError, ResponseParserError, aiohttp.ClientError),
    *(ConnectionError, TimeoutError),
)
_NO_CREDENTIALS = (
    *(boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError),
    *(boto.ProfileNotFound, boto.NoAuthTokenError, boto.TokenRetrievalError, boto.SSOError),
)
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary "
    "credentials), or AWS_PROFILE, or run on a machine with a role; a server other than Amazon's "
    "also needs AWS_ENDPOINT_URL"
)


async def with_retries(request: Callable[[], Awaitable[T]], address: str) -> T:
    """Make a request, and retry it within `RETRIES` until the store responds.

    Raises:
        StoreUnavailable: no response after the last try.
        NodeFault: this process has no file handle for a connection.
        StoreCredentials: there are no credentials, or the store does not accept them.
        ConfigError: the request is invalid: a bad endpoint, or an impossible bucket name.
        OSError: any other error response, as `request` raises it.
    """
    limits, started_s, n_failed = RETRIES, time.monotonic(), 0
    name = shown_address(address)
    while True:
        try:
            return await request()
        except _NO_CREDENTIALS as error:
            raise StoreCredentials(f"{name}: {scrub(str(error))}; {_CREDENTIALS}") from error
        except Exception as error:
            doubt_texts(error)
            raise_if_node_fault(error)
            if error_code(error) in _REFUSED:
                raise StoreCredentials(
                    f"{name}: the store does not accept the credentials "
                    f"({error_code(error)}); {_CREDENTIALS}"
                ) from error
            if not is_transient(error):
                if isinstance(error, boto.BotoCoreError | ValueError):
                    raise ConfigError(f"{name}: {scrub(str(error))}") from error
                raise
            n_failed += 1
            wait_s = limits.wait_s(n_failed)
            spent_s = time.monotonic() - started_s
            if n_failed >= limits.tries or spent_s + wait_s > limits.total_s:
                check_handles()
                raise StoreUnavailable(
                    _unavailable_message(name, n_failed, spent_s, error)
                ) from error
            shown = printable(name)
            reason = scrub(repr(error))
            _log.debug("%s: %s; try %d starts in %.1f s", shown, reason, n_failed + 1, wait_s)
        await asyncio.sleep(wait_s)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, StoreUnavailable):
        return False
    if response := _response(error):
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        # 501 means "not implemented", which does not change.
        busy = status == 429 or (status >= 500 and status != 501)
        return busy or error_code(error) in _TRANSIENT
    if isinstance(error, boto.SSLError) and "certificate" in str(error).lower():
        return False
    return isinstance(error, _BROKEN_CONNECTION)


def error_code(error: BaseException) -> str:
    """S3's error code of an error response; empty for other errors."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def _response(error: BaseException) -> dict[str, dict[str, Any]]:
    """The error response behind an error, found along its causes; empty if there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, boto.ClientError):
            return dict(cause.response)
        cause = cause.__cause__
    return {}


def _unavailable_message(name: str, n_tries: int, spent_s: float, error: Exception) -> str:
    last = error_code(error) or f"{type(error).__name__}: {scrub(str(error))}"
    return (
        f"{name}: object storage did not answer in {n_tries} tries and {spent_s:.0f} s; last "
        f"error: {last}; check the network and AWS_ENDPOINT_URL, then start again: what was "
        "written is kept"
    )
