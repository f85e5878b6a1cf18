"""The documents of clients."""

from __future__ import annotations

import pytest

from pipeline.messages import Registration, Transport
from pipeline.registry.views import client_view, handshake_location


@pytest.mark.parametrize(("transport", "path"), [("sse", "stream"), ("websocket", "socket"), ("poll", "windows")])
def test_stream_url_has_the_path_of_the_transport(transport: Transport, path: str) -> None:
    """Each transport has its own path, and a WebSocket its own scheme; tickets come by HTTP."""
    registration = Registration("x", "digest", "1", "a", 0, transport, "1")
    for secure in ("", "s"):
        view = client_view(registration, f"http{secure}://r/base", live=True)
        scheme = "ws" if transport == "websocket" else "http"
        assert view.stream_url == f"{scheme}{secure}://r/base/clients/x/{path}"
        assert view.tickets_url == f"http{secure}://r/base/clients/x/tickets"


@pytest.mark.parametrize(
    ("registry_url", "url", "location"),
    [
        ("http://r", "http://s:1/socket", "//s:1/socket"),
        ("https://r", "https://s/socket", "//s/socket"),
        ("https://r", "http://s:1/socket", "ws://s:1/socket"),
        ("http://r", "https://s/socket", "wss://s/socket"),
    ],
)
def test_redirected_handshake_keeps_the_scheme_where_it_can(registry_url: str, url: str, location: str) -> None:
    """Its Location has a scheme only where the registry's is another."""
    assert handshake_location(url, registry_url) == location


def test_client_view_does_not_show_the_tokens_digest() -> None:
    """The public document of a client has no secret."""
    view = client_view(Registration("x", "digest", "1", "a", 0), "http://r", live=True)
    assert "digest" not in str(view)
    assert view.stream_url == "http://r/clients/x/stream"
