"""When a request to S3 is made again, how often, and what is said when that did not help.

botocore (5 tries) and s3fs (5 times those) would each retry on their own; both are told not to
(`s3.py`), so that the numbers here are the numbers.
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

from omnitrace_core.errors import ConfigError, StoreCredentials, StoreUnavailable

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retries:
    """Bounds on one request: so many tries, none begun after `total_s`."""

    tries: int = 10
    total_s: float = 180.0
    first_wait_s: float = 0.2
    longest_wait_s: float = 20.0
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0

    def wait_s(self, n_failed: int) -> float:
        """How long to wait after so many failed tries.

        Drawn from all of [0, the bound] ("full jitter"), so that workers that were throttled
        together do not come back together.
        """
        bound = min(self.longest_wait_s, self.first_wait_s * 2 ** (n_failed - 1))
        return random.uniform(0, bound)


RETRIES = Retries()

# Whatever is answered with 429 or 5xx is asked again; of other answers, these:
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_TRANSIENT = frozenset(
    {
        *("RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"),
        *("XAmzContentChecksumMismatch", "OperationAborted", "ConditionalRequestConflict"),
        *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"),
        *("InternalError", "ServiceUnavailable"),  # of one key among many
    }
)
_REFUSED = frozenset(
    {
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
        *("TokenRefreshRequired", "InvalidSecurity", "AuthorizationHeaderMalformed"),
    }
)
_DROPPED = (
    *(boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError),
    *(boto.FlexibleChecksumError, ResponseParserError, aiohttp.ClientError),
    *(ConnectionError, TimeoutError),
)
_NO_CREDENTIALS = (
    *(boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError),
    *(boto.ProfileNotFound, boto.NoAuthTokenError, boto.TokenRetrievalError, boto.SSOError),
)
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN where the credentials "
    "are temporary), or AWS_PROFILE, or run where a role gives them; a server other than Amazon's "
    "also needs AWS_ENDPOINT_URL"
)


async def persist(request: Callable[[], Awaitable[T]], address: str) -> T:
    """Make a request until it is answered, within `RETRIES`.

    Raises:
        StoreUnavailable: it never was.
        StoreCredentials: there are no credentials, or these are not accepted.
        ConfigError: the request cannot be made: a bad endpoint, or no such name of a bucket.
        OSError: what else the store answered, as `request` raises it.
    """
    bounds, began, n_failed = RETRIES, time.monotonic(), 0
    while True:
        try:
            return await request()
        except _NO_CREDENTIALS as error:
            raise StoreCredentials(f"{address}: {error}; {_CREDENTIALS}") from error
        except Exception as error:
            if answer_code(error) in _REFUSED:
                raise StoreCredentials(
                    f"{address}: the store does not accept the credentials "
                    f"({answer_code(error)}); {_CREDENTIALS}"
                ) from error
            if not is_transient(error):
                if isinstance(error, boto.BotoCoreError | ValueError):
                    raise ConfigError(f"{address}: {error}") from error
                raise
            n_failed += 1
            wait_s = bounds.wait_s(n_failed)
            spent_s = time.monotonic() - began
            if n_failed >= bounds.tries or spent_s + wait_s > bounds.total_s:
                raise StoreUnavailable(_given_up(address, n_failed, spent_s, error)) from error
            _log.debug("%s: %r; try %d follows in %.1f s", address, error, n_failed + 1, wait_s)
        await asyncio.sleep(wait_s)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may well succeed a little later."""
    if isinstance(error, StoreUnavailable):
        return False
    if response := _response(error):
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        # 501 is "no such function", for good.
        busy = status == 429 or (status >= 500 and status != 501)
        return busy or answer_code(error) in _TRANSIENT
    if isinstance(error, boto.SSLError) and "certificate" in str(error).lower():
        return False
    return isinstance(error, _DROPPED)


def answer_code(error: BaseException) -> str:
    """S3's code in an answer that is an error; empty if the error is not an answer."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def _response(error: BaseException) -> dict[str, dict[str, Any]]:
    """The answer that an error speaks of, itself or by what it was made from."""
    told: BaseException | None = error
    while told is not None:
        if isinstance(told, boto.ClientError):
            return dict(told.response)
        told = told.__cause__
    return {}


def _given_up(address: str, n_tries: int, spent_s: float, error: Exception) -> str:
    last = answer_code(error) or f"{type(error).__name__}: {error}"
    return (
        f"{address}: object storage did not answer in {n_tries} tries and {spent_s:.0f} s, last "
        f"with {last}; check the network and AWS_ENDPOINT_URL, then start again: what was "
        "written stays"
    )
