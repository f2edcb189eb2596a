"""Who the dashboard answers: names, addresses, and a real server asked under foreign names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from dashboard.__main__ import main
from dashboard.guard import EVERYWHERE, HEADERS, host_name, is_answered
from dashboard.pages import PAGES
from tests.browser.server import serving

ALLOWED = "box.example.org"
WEBSOCKET = "/_stcore/stream"
ROUTES = (
    "/", "/index.html", *(f"/{name}" for name in PAGES), "/_stcore/health", "/_stcore/host-config",
    "/_stcore/script-health-check", "/_stcore/metrics", "/media/a.png", "/static/js/index.js",
    "/app/static/a", "/component/a/b.js", "/_stcore/upload_file/session/file", "/nothing/here",
)  # fmt: skip
OURS = ("localhost:{port}", "LOCALHOST", "localhost.", "127.0.0.1:{port}", "127.8.8.8", "[::1]:{port}",
        ALLOWED, f"{ALLOWED}:443")  # fmt: skip
FOREIGN = (
    "evil.example", "evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example",
    "evil.localhost", "localhost@evil.example", "evil.example#localhost", "localhost:no", "::1", "",
    "10.0.0.7", "[2001:db8::1]", f"evil.{ALLOWED}", f"{ALLOWED}.evil.example",
)  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A dashboard of this machine that is known under one more name."""
    with serving(f"--allow-host={ALLOWED}") as started:
        yield started


def _asked(address: str, hosts: tuple[str, ...], path: str, method: str = "GET") -> HTTPConnection:
    """A connection that has asked for `path` under the names in `hosts`."""
    server = urlsplit(address)
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    for host in hosts:
        connection.putheader("Host", host.format(port=server.port))
    if path == WEBSOCKET:
        for name, value in (
            ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Origin", f"http://{hosts[0].format(port=server.port)}"),
        ):  # fmt: skip
            connection.putheader(name, value)
    connection.endheaders()
    return connection


def _status(address: str, *hosts: str, path: str = "/", method: str = "GET") -> int:
    connection = _asked(address, hosts, path, method)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.slow
def test_no_route_answers_a_foreign_name(address: str) -> None:
    """Page, files, health, media, uploads and the websocket refuse a name that is not the
    server's, whatever the method.
    """
    found = {
        (method, path): _status(address, "evil.example", path=path, method=method)
        for path in (*ROUTES, WEBSOCKET)
        for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE")
    }

    assert {asked: status for asked, status in found.items() if not 400 <= status < 500} == {}
    assert {status for (method, _), status in found.items() if method == "GET"} == {403}


@pytest.mark.slow
def test_foreign_names_of_every_kind_are_refused(address: str) -> None:
    """Names that only contain ours, addresses that nobody listens on, two names or none end with
    4xx, on the page and on the websocket with a matching origin.
    """
    found = {
        (host, path): _status(address, host, path=path)
        for host in FOREIGN
        for path in ("/", WEBSOCKET)
    }
    found |= {
        (str(hosts), "/"): _status(address, *hosts) for hosts in ((), ("localhost", "evil.example"))
    }

    assert {asked: status for asked, status in found.items() if not 400 <= status < 500} == {}


@pytest.mark.slow
def test_the_page_opens_under_the_names_of_this_machine(address: str) -> None:
    """localhost, loopback addresses and the allowed name reach the page and the websocket, with
    any port.
    """
    found = {
        host: (_status(address, host), _status(address, host, path=WEBSOCKET)) for host in OURS
    }

    assert found == dict.fromkeys(OURS, (200, 101))


@pytest.mark.slow
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
@pytest.mark.parametrize("path", ["/", "/_stcore/health", "/media/a.png", "/nothing/here"])
def test_no_answer_can_be_framed(address: str, host: str, path: str) -> None:
    """Every answer, refusals too, forbids frames and guessing of types."""
    connection = _asked(address, (host,), path)
    answer = connection.getresponse()
    connection.close()

    assert {name: answer.getheader(name) for name in HEADERS} == HEADERS
    assert "frame-ancestors 'none'" in HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("served", "name", "expected"),
    [
        ((), "localhost", True),
        ((), "10.0.0.7", False),
        (("10.0.0.7",), "10.0.0.7", True),
        (EVERYWHERE, "10.0.0.7", True),
        (("::",), "2001:db8::1", True),
        (EVERYWHERE, "evil.example", False),
        (("box",), "box", True),
        (("box",), "", False),
        (("",), "", False),
    ],
)  # fmt: skip
def test_addresses_are_known_where_they_are_listened_on(
    served: Iterable[str], name: str, expected: bool
) -> None:
    """Where a server listens everywhere any address is its own; no name is without being named."""
    assert is_answered(name, served) is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Box.Example.org:8501", "box.example.org"),
        ("[0:0:0:0:0:0:0:1]:8501", "::1"),
        ("box.", "box"),
        ("box:99999", ""),
        ("a/b", ""),
        ("a b\t", ""),
    ],
)
def test_a_host_is_read_without_its_port(header: str, expected: str) -> None:
    """Case, port, brackets and a final dot make no other host; what is no host is none."""
    assert host_name(header) == expected


@pytest.mark.parametrize("given", ["http://box", "box:8501", "*", "a/b", "", "a b"])
def test_what_is_no_name_is_not_allowed(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--allow-host` takes a name alone, and says so."""
    with pytest.raises(SystemExit) as stopped:
        main([f"--allow-host={given}"])

    assert stopped.value.code == 2
    assert "a name or address alone" in capsys.readouterr().err
