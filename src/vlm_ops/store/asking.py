"""A store that several machines share, asked: again where it did not answer, refusals in words."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from vlm_ops.errors import OutputError, ServiceError, VlmOpsError
from vlm_ops.store.files import disk_is_full

T = TypeVar("T")

_PAUSES_S = (1, 3, 9)
_KEYS = (
    "its credentials are not accepted; look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
    "AWS_SESSION_TOKEN, or the profile, of this machine"
)
_RIGHTS = "no right to do so; it takes the right to list, read, write and delete there"
_REGION = "the bucket is in another region; set AWS_REGION to the bucket's"
_REFUSALS = {
    "NoSuchBucket": "there is no such bucket",
    "InvalidBucketName": "no bucket may be called so",
    "ParamValidationError": "no bucket may be called so",
    "AccessDenied": _RIGHTS,
    "AllAccessDisabled": _RIGHTS,
    "403": _RIGHTS,
    "PermissionError": _RIGHTS,
    "InvalidAccessKeyId": _KEYS,
    "SignatureDoesNotMatch": _KEYS,
    "InvalidToken": _KEYS,
    "InvalidClientTokenId": _KEYS,
    "ExpiredToken": "its credentials have expired; renew them",
    "RequestTimeTooSkewed": "this machine's clock and the store's are too far apart; set the clock",
    "RequestExpired": "this machine's clock and the store's are too far apart; set the clock",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "NoCredentialsError": "no credentials for it on this machine; set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "PartialCredentialsError": _KEYS,
    "ProfileNotFound": _KEYS,
}
"""What is said where asking again is of no use, by S3's code of an error or by its class."""

logger = logging.getLogger(__name__)


def answered(place: str, call: Callable[[], T]) -> T:
    """Call until there is an answer, a few times.

    Args:
        place: What is asked for, for messages.
        call: Asks.

    Raises:
        FileNotFoundError: The store answers that there is no such thing.
        OutputError: A disk is full.
        ServiceError: It does not answer, or refuses: no such bucket, no rights, wrong credentials,
            a wrong clock.
    """
    for pause in (*_PAUSES_S, None):
        try:
            return call()
        except VlmOpsError:
            raise
        except Exception as error:  # of fsspec, botocore, aiohttp and asyncio: no one root
            if (why := _refusal(error)) is not None:
                raise ServiceError(f"execution.store: {place}: {why} ({_said(error)})") from error
            if isinstance(error, FileNotFoundError):
                raise
            if disk_is_full(error):
                raise OutputError(f"{place}: can't be copied ({error.strerror})") from error
            if pause is None:
                raise ServiceError(
                    f"execution.store: {place}: no answer after {len(_PAUSES_S) + 1} attempts "
                    f"({_said(error)}). What was done lies in the runs folder; the same command "
                    f"goes on from there"
                ) from error
            logger.warning("%s: no answer (%s); asked again in %d s", place, _said(error), pause)
            time.sleep(pause)
    raise AssertionError


def _refusal(error: BaseException) -> str | None:
    """Say why asking again is of no use; None where it may be of use, or nothing is there."""
    names = reversed(
        list(_names(error))
    )  # what the store said lies below what a library made of it
    return next((_REFUSALS[name] for name in names if name in _REFUSALS), None)


def _names(error: BaseException | None) -> Iterator[str]:
    """Yield what an error, and what led to it, are called: the class, and S3's code."""
    while error is not None:
        yield type(error).__name__
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            yield str(response.get("Error", {}).get("Code"))
        error = error.__cause__ or error.__context__


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
