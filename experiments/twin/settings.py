"""What is planted in a twin: delays, capacity and faults, read from YAML and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from pipeline.errors import SettingError

Share = Annotated[float, Meta(ge=0, le=1)]
Time = Annotated[float, Meta(ge=0, le=3_600_000)]
Span = tuple[Time, Time]
"""The least and the most of a delay, ms; each delay is drawn evenly between them."""
Number = Annotated[int, Meta(ge=0)]
"""A window's number: the twin counts from 0, the first micro-batch that reads something."""

REACTION_FATES = ("refuse", "lose", "duplicate", "alter")
DELIVERY_FATES = (
    *("lose_deliveries", "duplicate_deliveries", "alter_deliveries", "move_deliveries"),
    "hold_deliveries",
)


class Twin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A twin. Without changes it is clean: no fault, and constant, short delays."""

    seed: Annotated[int, Meta(ge=0)] = 1
    trigger_s: Annotated[float, Meta(ge=0.1, le=3600)] = 2.0
    flush_ms: Annotated[int, Meta(ge=10, le=60_000)] = 500
    flush_phase: Literal["aligned", "free"] = "aligned"
    flush_lead_ms: Annotated[int, Meta(ge=0, le=10_000)] = 50
    partitions: Annotated[int, Meta(ge=1, le=100)] = 2
    clusters: Annotated[int, Meta(ge=1, le=100)] = 2
    subscribers: Annotated[int, Meta(ge=1, le=100)] = 1
    group_size: Annotated[int, Meta(ge=1)] = 10
    policy: Literal["ceil", "floor", "carry", "stochastic"] = "ceil"

    # Delays: of a reaction; of a flush after its moment, and of its append; of a micro-batch and its commit; of a
    # window through the publishers; of a subscriber's window; of a delivery.
    accept_ms: Span = (0.0, 0.0)
    buffer_ms: Span = (0.0, 0.0)
    append_ms: Span = (3.0, 3.0)
    micro_batch_ms: Span = (150.0, 150.0)
    commit_ms: Span = (20.0, 20.0)
    publish_ms: Span = (5.0, 5.0)
    cluster_ms: Span = (5.0, 5.0)
    subscriber_ms: Span = (5.0, 5.0)
    network_ms: Span = (1.0, 1.0)
    late_windows_ms: dict[Number, Time] = {}
    """How much later than that these windows are emitted."""
    service_us: Annotated[float, Meta(ge=0)] = 0.0
    """Capacity: how much each reaction of a micro-batch adds to it, in microseconds."""

    # Faults of reactions, as shares: answered 503; answered 202 and never written; written twice; another emoji.
    refuse: Share = 0.0
    lose: Share = 0.0
    duplicate: Share = 0.0
    alter: Share = 0.0
    phantoms: dict[Number, Annotated[int, Meta(ge=1, le=100_000)]] = {}
    """Records that nobody sent, written before these windows are cut."""

    # Faults of windows: delivered and never in Kafka; in Kafka and never delivered; a count raised; counts moved from
    # one type to another, the total kept; representatives raised; records left out; emitted again with a count raised.
    unemitted: tuple[Number, ...] = ()
    undelivered: tuple[Number, ...] = ()
    added: dict[Number, Annotated[int, Meta(ge=1)]] = {}
    moved: dict[Number, Annotated[int, Meta(ge=1)]] = {}
    shown: dict[Number, Annotated[int, Meta(ge=1)]] = {}
    skipped: dict[Number, Annotated[int, Meta(ge=1)]] = {}
    repeated: dict[Number, Annotated[int, Meta(ge=1)]] = {}
    trigger_lies_ms: dict[Number, float] = {}
    """What is added to the trigger that these windows name."""
    append_time: Literal["planted", "broker"] = "planted"
    """Which clock stamps an append: the twin's, at the planned moment, or the broker's own."""
    broker_offset_ms: float = 0.0
    """What is added to the planted append time of every record."""

    # Faults of deliveries, as shares: never sent; sent twice; another total; another mix with the same total; sent
    # `held_ms` after the others.
    lose_deliveries: Share = 0.0
    duplicate_deliveries: Share = 0.0
    alter_deliveries: Share = 0.0
    move_deliveries: Share = 0.0
    hold_deliveries: Share = 0.0
    held_ms: Time = 1000.0
    lose_progress: Share = 0.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name.endswith("_ms") and isinstance(value, tuple) and value[0] > value[1]:
                raise SettingError(f"{name} is {list(value)}: give the least before the most")
        if self.flush_phase == "aligned" and self.flush_lead_ms > self.flush_ms:
            raise SettingError(f"flush_lead_ms is {self.flush_lead_ms}: give at most flush_ms, {self.flush_ms}")
        for names in (REACTION_FATES, DELIVERY_FATES):
            planted = {name: getattr(self, name) for name in names if getattr(self, name)}
            if sum(planted.values()) > 1 + 1e-9:
                shares = ", ".join(f"{name} {share:g}" for name, share in planted.items())
                raise SettingError(f"{shares}: together more than everything; give shares whose sum is at most 1")

    def reported(self) -> dict[str, Any]:
        """Return what the ready file says of the chain's settings."""
        names = ("clusters", "subscribers", "trigger_s", "policy", "group_size")
        return {name: getattr(self, name) for name in (*names, "flush_ms", "flush_phase", "flush_lead_ms")}


def build(values: dict[str, Any]) -> Twin:
    """Return the twin with these values. Raises SettingError naming a field that does not exist or is out of bounds."""
    try:
        return msgspec.convert(values, Twin)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `")
        name = place.strip("`").removeprefix("$").strip(".")
        field = name.partition(".")[0].partition("[")[0]
        if field in Twin.__struct_fields__ and field in values:
            raise SettingError(f"{name} of the twin is {values[field]!r}: {reason[:1].lower()}{reason[1:]}") from error
        raise SettingError(f"the twin is not as it must be: {reason[:1].lower()}{reason[1:]}") from error


def read(path: Path) -> Twin:
    """Return the twin that a YAML file describes. Raises SettingError naming the file, or the field and its value."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingError(f"the twin's file {path} cannot be read ({error}): give YAML in UTF-8") from error
    if not isinstance(values, dict):
        raise SettingError(f"the twin's file {path} holds {type(values).__name__}: give names and values")
    return build(values)


def to_yaml(twin: Twin) -> str:
    """Return the text from which `read` makes the same twin: only what differs from a clean one."""
    clean = Twin()
    changed = {name: getattr(twin, name) for name in twin.__struct_fields__}
    kept = {name: value for name, value in changed.items() if value != getattr(clean, name)}
    return yaml.safe_dump(msgspec.to_builtins(kept, builtin_types=()), sort_keys=False)
