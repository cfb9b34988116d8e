"""A store that several machines share, asked: again where it did not answer, refusals in words."""

import logging
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import count
from typing import TypeVar

from vlm_ops.errors import OutputError, ServiceError, VlmOpsError
from vlm_ops.store.files import disk_is_full
from vlm_ops.watched import moved

T = TypeVar("T")

PATIENCE_S: ContextVar[float] = ContextVar("patience_s", default=0.0)
"""How long a block waits for servers that do not answer, and for a store, in seconds."""

_PAUSES_S = (1, 3, 9)
_LONG_PAUSE_S = 15
"""After those, as long as there is patience."""
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
    """Call until there is an answer, a few times, and on as long as ``PATIENCE_S`` says.

    Args:
        place: What is asked for, for messages.
        call: Asks.

    Raises:
        FileNotFoundError: The store answers that there is no such thing.
        OutputError: A disk is full.
        ServiceError: It does not answer, or refuses: no such bucket, no rights, wrong credentials,
            a wrong clock.
    """
    pauses, failed_at = iter(_PAUSES_S), None
    for attempt in count(1):
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
            failed_at = time.monotonic() if failed_at is None else failed_at
            pause = next(pauses, None)
            level = logging.DEBUG if pause is None else logging.WARNING
            if pause is None and time.monotonic() - failed_at + _LONG_PAUSE_S < PATIENCE_S.get():
                pause = _LONG_PAUSE_S
            if pause is None:
                raise ServiceError(
                    f"execution.store: {place}: no answer after {attempt} attempts "
                    f"({_said(error)}). What was done lies in the runs folder; the same command "
                    f"goes on from there"
                ) from error
            said = (place, _said(error), pause)
            logger.log(level, "%s: no answer (%s); asked again in %d s", *said)
            time.sleep(pause)
            moved()  # the wait has a limit of its own
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
