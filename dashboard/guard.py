"""Whose questions the server answers, and what its answers forbid a browser.

A page of another site can give its own name the address of this machine (DNS rebinding); its
browser then speaks to the dashboard as to that site, and only the `Host` of its requests tells.
Streamlit looks at it on the websocket alone, and lets every site show the dashboard in a frame.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 (compared with, not listened on)
"""Addresses that mean all of the machine's."""

HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # an address holds the whole policy of a map
}


def host_name(header: str) -> str:
    """The name or address in a `Host` header: lower case, without port, brackets and a final dot;
    "" for what is none.
    """
    try:
        parts = urlsplit(f"//{header}")
        port_is_number = parts.port is None or parts.port >= 0
    except ValueError:
        return ""
    if not port_is_number or parts.netloc != header or "@" in header:
        return ""
    name = (parts.hostname or "").removesuffix(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def is_answered(name: str, served: Iterable[str]) -> bool:
    """Whether a server for the names and addresses in `served` answers to `name`.

    It does to this machine's own name and loopback addresses. Where it listens everywhere it does
    to every address, too: only a name can be given another address.
    """
    known = frozenset(served)
    if name == "localhost" or (name and name in known):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or bool(known & EVERYWHERE)


class Guard:
    """Middleware before every route, the websocket too: a request under a name that is not
    `served` ends with 403, and every answer bears `HEADERS`.
    """

    def __init__(self, app: ASGIApp, served: Iterable[str]) -> None:
        self._app, self._served = app, frozenset(served)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) == 1 and is_answered(host_name(hosts[0]), self._served):
            await self._app(scope, receive, guarded)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is open: a 403
            return
        refusal = PlainTextResponse(
            "This dashboard is not served under that name. "
            "Whoever started it can allow it: python -m dashboard --allow-host NAME\n",
            status_code=403,
        )
        await refusal(scope, receive, guarded)
