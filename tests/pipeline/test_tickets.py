"""Tickets: each opens one connection of one client at one subscriber, once, within its life."""

from __future__ import annotations

import re

import pytest

from pipeline.tickets import LIFE_S, Ticket, TicketGate, TicketRefusal, issue, verify
from pipeline.tokens import token_sha256
from tests.harness.stages.doubles import SECOND_NS, Clock

DIGEST = token_sha256("token-x")
NOW_NS = 1_795_474_530_000_000_000


def ticket(client_id: str = "x", subscriber: str = "1/a", now_ns: int = NOW_NS, nonce: str = "n1") -> str:
    """A ticket of client x, whose token is token-x, for subscriber 1/a."""
    return issue(DIGEST, client_id, subscriber, now_ns, nonce)


def test_ticket_fits_into_a_query_and_names_what_it_is_for() -> None:
    """It needs no escaping, and does not contain the token or its digest."""
    text = ticket()
    assert re.fullmatch(r"[A-Za-z0-9._/-]+", text)
    assert "token-x" not in text
    assert DIGEST not in text
    assert verify(text, DIGEST, "x", "1/a", NOW_NS) == Ticket("x", "1/a", NOW_NS // 1_000_000, "n1")


@pytest.mark.parametrize("age_s", [-LIFE_S, 0, LIFE_S - 0.001])
def test_ticket_is_valid_for_its_life(age_s: float) -> None:
    """From another machine's clock, it may also come from the future."""
    assert verify(ticket(), DIGEST, "x", "1/a", NOW_NS + int(age_s * SECOND_NS))


@pytest.mark.parametrize(
    ("age_s", "reason"),
    [
        (LIFE_S, "ticket is 10.0 s old and was valid for 10 s"),
        (3600, "ticket is 3600.0 s old"),
        (-11.5, "ticket is from 11.5 s in the future"),
    ],
)
def test_ticket_outside_its_life_is_refused_with_its_age(age_s: float, reason: str) -> None:
    """401 with the remedy."""
    with pytest.raises(TicketRefusal, match=reason) as refused:
        verify(ticket(), DIGEST, "x", "1/a", NOW_NS + int(age_s * SECOND_NS))
    assert (refused.value.fault, refused.value.status) == ("expired", 401)
    assert refused.value.detail.endswith("get a new one from stream_url's redirect or by POST to tickets_url")


def test_ticket_of_another_client_or_subscriber_is_refused_with_both_names() -> None:
    """403: it is valid elsewhere, and stays so."""
    with pytest.raises(TicketRefusal, match="ticket belongs to client 'x', not to 'y'") as refused:
        verify(ticket(), token_sha256("token-y"), "y", "1/a", NOW_NS)
    assert (refused.value.fault, refused.value.status) == ("client", 403)
    with pytest.raises(TicketRefusal, match="ticket is for subscriber '1/a', this is '2/a'") as refused:
        verify(ticket(), DIGEST, "x", "2/a", NOW_NS)
    assert (refused.value.fault, refused.value.status) == ("subscriber", 403)


@pytest.mark.parametrize(
    "changed",
    [
        *("", ".", "....", "nonsense", "token-x", "x.1/a.1.n1", "é", "\ud800", "\0", "x" * 100_000, "." * 100_000),
        *(ticket()[:-1], ticket() + "0", ticket() + ".", ticket()[:-64] + ticket()[-64:].upper(), ticket() + "\n"),
        *(ticket().replace("n1", "n2"), ticket().replace("1795", "1796"), ticket().replace("1795", "٣795")),
        *(ticket().replace("1795", "-795"), ticket().replace(".1795", "." + "9" * 99), ticket().replace("n1", "")),
        issue(token_sha256("token-y"), "x", "1/a", NOW_NS, "n1"),
    ],
)
def test_changed_ticket_is_malformed(changed: str) -> None:
    """Whatever was changed in it, and whoever signed it: 401, and its beginning is quoted."""
    with pytest.raises(TicketRefusal, match="is cut off or changed") as refused:
        verify(changed, DIGEST, "x", "1/a", NOW_NS)
    assert (refused.value.fault, refused.value.status) == ("malformed", 401)
    assert refused.value.detail.isascii()
    assert len(refused.value.detail) < 500


def test_gate_admits_each_ticket_once() -> None:
    """A second use is refused; another ticket of the same client is not."""
    gate = TicketGate("1/a", Clock(NOW_NS))
    gate.redeem(ticket(), "x", DIGEST)
    with pytest.raises(TicketRefusal, match="ticket was used before") as refused:
        gate.redeem(ticket(), "x", DIGEST)
    assert (refused.value.fault, refused.value.status) == ("used", 401)
    gate.redeem(ticket(nonce="n2"), "x", DIGEST)
    assert gate.refused == {"used": 1}


def test_refused_ticket_stays_valid_where_it_belongs() -> None:
    """Whoever presents it elsewhere, or changed, uses up nothing; refusals are counted by fault."""
    clock = Clock(NOW_NS)
    here, elsewhere = TicketGate("1/a", clock), TicketGate("1/b", clock)
    for gate, text, client_id in (
        (elsewhere, ticket(), "x"), (here, ticket(), "y"), (here, ticket()[:-1], "x"), (here, "", "x"),
    ):  # fmt: skip
        with pytest.raises(TicketRefusal):
            gate.redeem(text, client_id, DIGEST)
    here.redeem(ticket(), "x", DIGEST)
    assert elsewhere.refused == {"subscriber": 1}
    assert here.refused == {"client": 1, "malformed": 2}


def test_two_clients_with_the_same_nonce_both_get_in() -> None:
    """A client knows its own token, and so could choose the nonce of its tickets: that harms no other client."""
    gate = TicketGate("1/a", Clock(NOW_NS))
    gate.redeem(ticket(), "x", DIGEST)
    other = token_sha256("token-y")
    gate.redeem(issue(other, "y", "1/a", NOW_NS, "n1"), "y", other)


def test_memory_holds_no_more_than_lives() -> None:
    """A used ticket is forgotten when it would be refused as expired anyway."""
    clock = Clock(NOW_NS)
    gate = TicketGate("1/a", clock)
    for number in range(1000):
        gate.redeem(ticket(now_ns=clock.now_ns, nonce=f"n{number}"), "x", DIGEST)
        clock.advance(0.1)
        assert len(gate) <= 10 * LIFE_S
    last = ticket(now_ns=clock.now_ns, nonce="last")
    gate.redeem(last, "x", DIGEST)
    for _ in range(LIFE_S * 10 - 1):
        clock.advance(0.1)
        with pytest.raises(TicketRefusal, match="used before"):
            gate.redeem(last, "x", DIGEST)
    clock.advance(0.1)
    with pytest.raises(TicketRefusal, match="ticket is 10"):
        gate.redeem(last, "x", DIGEST)
    assert len(gate) == 0
