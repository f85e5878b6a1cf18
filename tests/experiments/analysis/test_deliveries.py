"""The delivery audit: each kind of fault is counted for its client, and for no other."""

from __future__ import annotations

import pandas as pd
import pytest

from experiments.analysis import deliveries as audit
from experiments.analysis import latency
from experiments.synthetic import run

RUN = run.make_run(rate_per_s=10.0)
DELIVERIES = RUN.frames["deliveries"]
LAST_NS = int(RUN.frames["windows"]["emitted_ns"].max())
NOTHING = dict.fromkeys(audit.FAULTS, 0)


def audited(deliveries):
    """Return the audit of the synthetic run with these deliveries, one row per client."""
    frames = RUN.frames
    due = latency.receipts(frames["windows"], frames["clients"], deliveries, grace_s=2.0, last_ns=LAST_NS)
    return audit.audit(frames["windows"], due, deliveries, frames["clients"], late_s=2.0)


def at(client, window):
    """Return the index of one delivery."""
    rows = (DELIVERIES["client_id"] == client) & (DELIVERIES["window"] == window)
    return DELIVERIES.index[rows][0]


def test_a_faultless_run_has_no_faults():
    """Every client received what it was due, once and in order."""
    result = audited(DELIVERIES)
    count = len(RUN.frames["windows"])
    assert (result["due"] == count).all()
    assert (result["received"] == count).all()
    assert audit.totals(result) == NOTHING | {"due": count * 6, "received": count * 6}


def missing():
    """Drop one delivery."""
    return DELIVERIES.drop(index=at("client-001", 4))


def duplicate():
    """Repeat one delivery at the end."""
    return pd.concat([DELIVERIES, DELIVERIES.loc[[at("client-001", 4)]]])


def out_of_order():
    """Swap two neighbouring deliveries."""
    order = list(DELIVERIES.index)
    a, b = order.index(at("client-001", 4)), order.index(at("client-001", 5))
    order[a], order[b] = order[b], order[a]
    return DELIVERIES.loc[order]


def late():
    """Delay one delivery by 3 s."""
    changed = DELIVERIES.copy()
    changed.loc[at("client-001", 4), "received_ns"] += 3 * 10**9
    return changed


def altered():
    """Change the total of one delivery."""
    changed = DELIVERIES.copy()
    changed.loc[at("client-001", 4), "total"] += 1
    return changed


def misnamed():
    """Change the event id of one delivery."""
    changed = DELIVERIES.copy()
    changed.loc[at("client-001", 4), "event_id"] = "other:4"
    return changed


def unknown():
    """Add a window that was never emitted."""
    row = DELIVERIES.loc[[at("client-001", 4)]]
    return pd.concat([DELIVERIES, row.assign(window=77, event_id=f"{run.EPOCH}:77")])


@pytest.mark.parametrize(
    ("fault", "fault_of"),
    [
        ("missing", missing),
        ("duplicate", duplicate),
        ("out_of_order", out_of_order),
        ("late", late),
        ("altered", altered),
        ("altered", misnamed),
        ("unknown", unknown),
    ],
)
def test_each_fault_is_its_clients_and_its_only(fault, fault_of):
    """One injected fault is one count, in its column, at its client."""
    result = audited(fault_of()).set_index("client_id")
    assert result.loc["client-001", list(audit.FAULTS)].to_dict() == NOTHING | {fault: 1}
    assert (result.drop(index="client-001")[list(audit.FAULTS)] == 0).all(axis=None)


def test_a_client_without_any_delivery_misses_all():
    """Silence is a fault, not an absence from the table."""
    result = audited(DELIVERIES[DELIVERIES["client_id"] != "client-003"]).set_index("client_id")
    assert result.loc["client-003", "missing"] == len(RUN.frames["windows"])
    assert result.loc["client-003", "received"] == 0


def test_a_client_without_due_windows_is_listed():
    """A client that joined after the last window has a row of zeros."""
    clients = RUN.frames["clients"].copy()
    clients.loc[2, "joined_ns"] = clients.loc[2, "left_ns"]
    frames = RUN.frames
    due = latency.receipts(frames["windows"], clients, DELIVERIES, grace_s=2.0, last_ns=LAST_NS)
    result = audit.audit(frames["windows"], due, DELIVERIES, clients).set_index("client_id")
    assert len(result) == 6
    assert (result.loc["client-002", "due"], result.loc["client-002", "missing"]) == (0, 0)
