"""Pictures at an address: fetched from a real TLS server, bounded, from no private network."""

import datetime
import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from vlm_ops.data.decoding import ImageRefused
from vlm_ops.errors import DataError
from vlm_ops.serving import pictures
from vlm_ops.serving.fetching import Address, Fetching, is_public
from vlm_ops.serving.pictures import open_pictures, open_video

NAME = "pictures.example"
HERE = ipaddress.ip_address("127.0.0.1")


def png(size: int = 8) -> bytes:
    kept = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(kept, "PNG")
    return kept.getvalue()


def animated() -> bytes:
    kept = io.BytesIO()
    first, second = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    first.save(kept, "GIF", save_all=True, append_images=[second])
    return kept.getvalue()


FILES = {
    "/a.png": png(),
    "/page": b"<!doctype html><html></html>",
    "/cut.png": png(400)[:300],
    "/moving.gif": animated(),
}


class Pictures(BaseHTTPRequestHandler):
    """Answers with pictures, and with all that may come instead."""

    sent = 0

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        path, _, target = self.path.partition("?")
        if path == "/to":
            self._begin(302, Location=target)
        elif path == "/endless":
            self._begin(200)
            self._endless()
        elif path == "/huge":
            self._begin(200, **{"Content-Length": str(10 * 2**30)})
            self._endless()
        elif path == "/drip":
            while True:  # not even the head comes to its end
                self._write(b"HTTP/1.1 200 OK\r\n" if not Pictures.sent else b"X")
                time.sleep(0.05)
        elif path in FILES:
            self._begin(200, **{"Content-Length": str(len(FILES[path]))})
            self._write(FILES[path])
        else:
            self.send_error(404)

    def _begin(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _endless(self) -> None:
        for _ in range(10 * 2**30 >> 16):
            self._write(bytes(1 << 16))

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        Pictures.sent += len(data)


class Quiet(ThreadingHTTPServer):
    """Says nothing of callers that hang up."""

    def handle_error(self, *_: Any) -> None: ...


def certificate(folder: Path) -> Path:
    """A key and a certificate that signs itself, for NAME alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file = folder / "server.pem"
    file.write_bytes(key.private_bytes(pem, form, plain) + made.public_bytes(pem))
    return file


class Site:
    """A running server whose name leads here."""

    def __init__(self, port: int, trusted: ssl.SSLContext) -> None:
        self.root = f"https://{NAME}:{port}"
        self.port = port
        self.fetching = Fetching(allowed=HERE.__eq__, trusted=trusted, seconds=20)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    file = certificate(tmp_path_factory.mktemp("tls"))
    server = Quiet(("127.0.0.1", 0), Pictures)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Site(server.server_port, ssl.create_default_context(cafile=str(file)))
    server.shutdown()
    server.server_close()


@pytest.fixture
def site(served: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The server; ``NAME`` leads to it, ``inside.example`` to a private address besides."""
    known = {NAME: ["127.0.0.1"], "inside.example": ["93.184.216.34", "10.0.0.7"]}
    look_up = socket.getaddrinfo

    def found(host: Any, port: Any, *rest: Any, **more: Any) -> list[Any]:
        places = known.get(host, [host])
        return [each for place in places for each in look_up(place, port, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    Pictures.sent = 0
    return served


def refused(site: Site, url: str, **changes: Any) -> str:
    with pytest.raises(ImageRefused) as caught:
        replace(site.fetching, **changes).fetch(site.root + url if url.startswith("/") else url)
    return str(caught.value)


def test_a_picture_is_read_as_a_file_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "Fetching", lambda: site.fetching)
    local = open_pictures(png())[0]
    for url in (f"{site.root}/a.png", f"{site.root}/to?/to?/a.png"):
        assert open_pictures([url, png()])[0].tobytes() == local.tobytes()
    for path, said in (
        ("/page", "an image that can't be decoded (a web page)"),
        ("/cut.png", "an image that can't be decoded"),
        ("/moving.gif", "several frames or pages in a GIF file"),
        ("/gone.png?key=s3cret", "the server answers 404; expected a picture there"),
    ):
        with pytest.raises(DataError) as caught:
            open_pictures(site.root + path)
        assert str(caught.value).startswith(f"{site.root}{path.partition('?')[0]}: ")
        assert said in str(caught.value)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("path", ["/endless", "/huge"])
def test_ten_gigabytes_are_stopped_early(site: Site, path: str) -> None:
    assert "more than 1 MiB; expected less" in refused(site, path, max_bytes=1 << 20)
    assert Pictures.sent < 30 << 20  # what was on its way in buffers


@pytest.mark.parametrize("path", ["/drip", "/endless"])
def test_time_is_bounded_in_all(site: Site, path: str) -> None:
    began = time.monotonic()
    said = refused(site, path, seconds=0.5, max_bytes=1 << 40)
    assert "no whole file within 0.5 seconds" in said
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://127.0.0.2/a.png", "a private or reserved address, 127.0.0.2; expected a public"),
        ("https://inside.example/", "reserved address, 10.0.0.7, to which inside.example leads"),
        ("/to?https://10.0.0.1/a", "a redirect to 10.0.0.1: a private or reserved address"),
        (
            "/to?http://8.8.8.8/a",
            "a redirect to 8.8.8.8: an address with http://; expected https://",
        ),
        (
            "/to?file:///etc/passwd",
            "a redirect to file:/etc/passwd: an address with file://; expected",
        ),
        ("/to?/to?/to?/to?/to?/to?/to?/a.png", "more than 5 redirects"),
        ("http://pictures.example/a.png", "http://; expected https://; else download"),
        ("ftp://pictures.example/a.png", "ftp://; expected https://, or the path of a file"),
        ("https:///a.png", "an address without a server"),
        ("https://me:s3cret@pictures.example/a.png", "an address with a user name or a password"),
        ("https://s3cret@pictures.example/a.png", "an address with a user name or a password"),
        ("/to?https://me:s3cret@pictures.example/", "example: an address with a user name or a"),
        ("https://pictures.example:99999/", "it can't be fetched"),
        ("https://a\x00b/", "it can't be fetched (Invalid non-printable"),
        ("https://no-such-name.invalid/a.png", "it can't be fetched"),
    ],
)
def test_where_nothing_is_fetched_from(site: Site, url: str, said: str) -> None:
    allowed = lambda address: is_public(address) or address == HERE  # noqa: E731
    found = refused(site, url, allowed=allowed)
    assert said in found
    assert "s3cret" not in found


@pytest.mark.parametrize("opens", [open_pictures, lambda url: open_video(url, 8)])
@pytest.mark.parametrize("user", ["me:s3cret@", "s3cret@", "s3cret:@", "me@home:s3cret@"])
def test_who_asks_is_not_printed(opens: Callable[[str], Any], user: str) -> None:
    with pytest.raises(DataError) as caught:
        opens(f"https://{user}{NAME}/a.png?key=s3cret")
    assert str(caught.value).startswith(f"https://{NAME}/a.png: ")
    assert "s3cret" not in str(caught.value)


def test_an_address_that_does_not_answer_leaves_the_others_their_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a name leads to IPv6 too and the network carries none."""
    with socket.create_server(("127.0.0.2", site.port), backlog=0) as full:
        # A queue that is full answers nobody, and refuses nobody either.
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        look_up = socket.getaddrinfo

        def found(host: Any, *rest: Any, **more: Any) -> list[Any]:
            places = ["127.0.0.2", "127.0.0.1"] if host == NAME else [host]
            return [each for place in places for each in look_up(place, *rest, **more)]

        monkeypatch.setattr(socket, "getaddrinfo", found)
        asked = replace(site.fetching, allowed=lambda address: address.is_loopback, seconds=4)
        began = time.monotonic()
        assert asked.fetch(f"{site.root}/a.png") == png()
        assert 1.5 < time.monotonic() - began < 3.9
        for one in waiting:
            one.close()


def test_a_certificate_of_another_name_is_refused(site: Site) -> None:
    other = refused(site, f"https://127.0.0.1:{site.port}/a.png")
    assert "certificate is not valid for '127.0.0.1'" in other
    trusted = ssl.create_default_context()
    assert "self-signed certificate" in refused(site, "/a.png", trusted=trusted)


def test_the_address_that_was_checked_is_connected_to(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads here when it is checked, and elsewhere when it is looked up again."""
    asked: list[str] = []
    look_up = socket.getaddrinfo

    def found(host: Any, *rest: Any, **more: Any) -> list[Any]:
        asked.append(host)
        return look_up("10.0.0.1" if asked.count(NAME) > 1 else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    assert site.fetching.fetch(f"{site.root}/a.png") == png()
    assert asked.count(NAME) == 1


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "224.0.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::",
     "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::", "::127.0.0.1"],
)  # fmt: skip
def test_private_and_reserved_addresses_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses(address: str) -> None:
    found: Address = ipaddress.ip_address(address)
    assert is_public(found)


def test_by_itself_nothing_is_fetched_from_this_machine(site: Site) -> None:
    with pytest.raises(DataError, match=r"a\.png: a private or reserved address, 127\.0\.0\.1, to"):
        open_pictures(f"{site.root}/a.png")
    with pytest.raises(DataError, match="videos are not fetched"):
        open_video("https://pictures.example/a.mp4", 8)
