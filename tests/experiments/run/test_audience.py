"""The audience, against a registry and a subscriber that follow a script."""

from __future__ import annotations

import asyncio

import pytest

from experiments.run import audience
from pipeline import backoff
from pipeline.errors import EmoStreamError
from tests.harness.stages.scripted_server import Refuse, Scripted, Send, window


def test_the_audience_records_all_windows_and_leaves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cut stream is resumed, what came twice is there twice, and every registration ends with the run."""
    monkeypatch.setattr(audience, "_instruction", lambda: ("e:3", 20.0))
    monkeypatch.setattr(backoff, "wait_s", lambda *_: 0.0)

    async def scenario() -> None:
        first, second = Send([window(1), window(2)], "end"), Send([window(2), window(3)])
        async with Scripted(first, second) as server:
            screens = await audience.audience(server.url, 1)
            assert server.deleted == ["c1"]
        clients, deliveries = audience.frames(screens)
        assert list(clients.columns) == audience.CLIENT_COLUMNS
        assert list(deliveries.columns) == audience.DELIVERY_COLUMNS
        assert clients.loc[0, ["client_id", "cluster", "subscriber"]].tolist() == ["c1", "1", "1"]
        assert deliveries["window"].tolist() == [1, 2, 2, 3]
        assert deliveries.loc[0, ["main_sent_ns", "cluster_sent_ns", "subscriber_sent_ns"]].tolist() == [3, 6, 9]
        times = [clients.loc[0, "joined_ns"], *deliveries["received_ns"], clients.loc[0, "left_ns"]]
        assert times == sorted(times)

    asyncio.run(scenario())
    assert capsys.readouterr().out == "ready\n"


def test_refused_registration_ends_the_audience_with_the_registrys_detail() -> None:
    """Nobody waits for clients that will not come; those that did come leave."""

    async def scenario() -> None:
        async with Scripted() as server:
            server.registering.append(Refuse(503, "nobody is live"))
            with pytest.raises(EmoStreamError, match="nobody is live"):
                await audience.audience(server.url, 3)
            assert len(server.deleted) == len(server.registered)

    asyncio.run(scenario())


def test_clients_without_a_stream_are_counted_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is what the person at the experiment needs."""
    monkeypatch.setattr(audience, "CONNECT_S", 0.3)

    async def scenario() -> None:
        async with Scripted(Send([]), Refuse(503, "too many", {"Retry-After": "1000"})) as server:
            with pytest.raises(EmoStreamError, match=r"1 of 2 clients had no stream within 0\.3 s: .*too many"):
                await audience.audience(server.url, 2)
            assert sorted(server.deleted) == ["c1", "c2"]

    asyncio.run(scenario())
