"""Pictures at an https address: one file, bounded in size and time, from a public address only.

A name is looked up once for a connection, which goes to the address that was checked: a name that
leads elsewhere a moment later gains nothing. No proxy is used: it would look names up itself.
"""

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import httpcore2 as httpcore
import httpx2 as httpx

from vlm_ops.data.decoding import ImageRefused
from vlm_ops.store.names import short

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_INSTEAD = "download the picture and name the file"
_CHECK = "expected a picture there: check the address"
_HEADERS = (("User-Agent", "vlm-ops"), ("Accept", "image/*"))
_UNREACHED = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpx.InvalidURL,
    OSError,
    OverflowError,
    ValueError,
)
_USER = re.compile(r"(?<=://)[^/?#]*@")
_MOVED = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""Addresses that stand for one of IPv4 (RFC 6052)."""
_UNICAST = ipaddress.ip_network("2000::/3")
"""All that is given out of IPv6 so far (IANA)."""


def is_address(shown: object) -> bool:
    """Tell whether what a person names is an address instead of a file."""
    return isinstance(shown, str) and _SCHEME.match(shown) is not None


def shown_name(url: str) -> str:
    """Return an address without what may be a secret: who asks, and all from a question mark on."""
    return short(_USER.sub("", url.partition("?")[0]), 100)


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to the internet, and to no network of this machine."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    inner = address.ipv4_mapped or address.sixtofour
    if address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return is_public(inner) if inner else address.is_global and address in _UNICAST


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """How far fetching goes.

    Attributes:
        max_bytes: Of the file.
        seconds: For all, the redirects too; looking a name up takes what the system allows.
        redirects: Followed at most.
        allowed: Which addresses are connected to.
        trusted: Who may say which server has a name; None asks the system.
    """

    max_bytes: int = 50 << 20
    seconds: float = 30.0
    redirects: int = 5
    allowed: Callable[[Address], bool] = is_public
    trusted: ssl.SSLContext | None = None

    def fetch(self, url: str) -> bytes:
        """Fetch a file.

        Args:
            url: Its address, which begins with ``https://``.

        Raises:
            ImageRefused: The address is none, is no public one or leads to none, does not answer
                in time or not with a file, or the file is too big.
        """
        backend = _Checked(self.allowed, time.monotonic() + self.seconds)
        at = None
        try:
            at = httpx.URL(url)
            with httpcore.ConnectionPool(self.trusted, network_backend=backend) as pool:
                for _ in range(self.redirects + 1):
                    _check(at)
                    found = self._ask(pool, at)
                    if isinstance(found, bytes):
                        return found
                    at = at.join(found)
        except ImageRefused as error:
            raise _led(error, url, at) from error
        except httpcore.TimeoutException as error:
            late = _refused(f"no whole file within {self.seconds:g} seconds", _INSTEAD)
            raise _led(late, url, at) from error
        except _UNREACHED as error:
            lost = _refused(f"it can't be fetched ({_why(error)})", f"no proxy is used: {_INSTEAD}")
            raise _led(lost, url, at) from error
        raise _refused(f"more than {self.redirects} redirects", _INSTEAD)

    def _ask(self, pool: httpcore.ConnectionPool, at: httpx.URL) -> bytes | str:
        """Return the file, or where it has moved to."""
        url = httpcore.URL(scheme="https", host=at.raw_host, port=at.port, target=at.raw_path)
        with pool.stream("GET", url, headers=_HEADERS) as answer:
            headers = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
            moved = headers.get(b"location")
            if answer.status in _MOVED and moved:
                return moved
            if answer.status != 200:
                raise _refused(f"the server answers {answer.status}", f"{_CHECK}, or {_INSTEAD}")
            self._check_size(int(headers.get(b"content-length", 0)))
            data = bytearray()
            for piece in answer.iter_stream():
                data += piece
                self._check_size(len(data))
            return bytes(data)

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            most = f"more than {self.max_bytes / 2**20:g} MiB"
            raise _refused(most, f"expected less: {_INSTEAD}, made smaller")


class _Checked(httpcore.NetworkBackend):
    """Connects to addresses that are allowed, and for so long."""

    def __init__(self, allowed: Callable[[Address], bool], until: float) -> None:
        self._allowed, self._until = allowed, until

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Look a name up, check all that it leads to, and connect to the first that answers."""
        found = dict.fromkeys(
            str(place[0]) for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        for address in found:
            if not self._allowed(ipaddress.ip_address(address)):
                leads = "" if address == host else f", to which {short(host, 40)} leads"
                raise _refused(
                    f"a private or reserved address, {address}{leads}",
                    f"expected a public one: {_INSTEAD}",
                )
        failed: Exception = httpcore.ConnectError(f"{host} leads nowhere")
        for number, address in enumerate(found):
            # One that does not answer, as IPv6 in many a network, leaves the others their time.
            share = _left(self._until) / (len(found) - number)
            try:
                stream = httpcore.SyncBackend().connect_tcp(address, port, share)
                return _Timed(stream, self._until)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed


class _Timed(httpcore.NetworkStream):
    """A connection that ends when the time is over, however slowly bytes drip in."""

    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self._stream, self._until = stream, until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._until))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._until))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(self._until)
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, left), self._until)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left


def _check(at: httpx.URL) -> None:
    """Refuse what is no https address."""
    if at.scheme != "https":
        right = "https://" if at.scheme == "http" else "https://, or the path of a file"
        raise _refused(
            f"an address with {short(at.scheme, 20)}://", f"expected {right}; else {_INSTEAD}"
        )
    if at.userinfo:
        raise _refused("an address with a user name or a password, which is not sent", _INSTEAD)
    if not at.host:
        raise _refused("an address without a server", "expected https://SERVER/PATH")


def _why(error: BaseException) -> str:
    """Say of what a library raised what the error that it holds says in words."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    told = (getattr(error, name, None) for name in ("verify_message", "strerror"))
    return str(next(filter(None, told), "") or error or type(error).__name__)


def _led(error: ImageRefused, url: str, at: httpx.URL | None) -> ImageRefused:
    """Say so where a redirect led to what is refused."""
    if at is None or at == httpx.URL(url):
        return error
    return _refused(f"a redirect to {short(at.host or str(at), 40)}: {error.found}", error.expected)


def _refused(found: str, expected: str) -> ImageRefused:
    return ImageRefused(found, expected, "picture that can't be fetched")
