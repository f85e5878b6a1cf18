"""The documents of clients."""

from __future__ import annotations

import pytest

from pipeline.messages import Registration, Transport
from pipeline.registry.views import client_view


@pytest.mark.parametrize(("transport", "path"), [("sse", "stream"), ("websocket", "socket"), ("poll", "windows")])
def test_stream_url_has_the_path_of_the_transport(transport: Transport, path: str) -> None:
    """Each transport has its own path."""
    view = client_view(Registration("x", "digest", "1", "a", 0, transport, "1"), "http://r", live=True)
    assert (view["transport"], view["stream_url"]) == (transport, f"http://r/clients/x/{path}")


def test_client_view_does_not_show_the_tokens_digest() -> None:
    """The public document of a client has no secret."""
    view = client_view(Registration("x", "digest", "1", "a", 0), "http://r", live=True)
    assert "digest" not in str(view)
    assert view["stream_url"] == "http://r/clients/x/stream"
