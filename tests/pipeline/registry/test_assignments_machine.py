"""The registry's assignments under any order of events, compared with what each event says, and with a restart."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from pipeline.addresses import SubscriberId
from pipeline.messages import Announcement, Registration
from pipeline.registry.assignments import Assignments, subscriber_of

S = 1_000_000_000
SILENT_S = 5
ALL = [SubscriberId(cluster, name) for cluster in "12" for name in "ab"]
SUBSCRIBERS = st.sampled_from(ALL)


class Registry(RuleBasedStateMachine):
    """`topic` is the compacted topic of registrations; `heard_ns` when each subscriber announced itself last."""

    clients = Bundle("clients")

    @initialize()
    def start(self) -> None:
        """Begin without anything."""
        self.now_ns = 1_000 * S
        self.assignments = Assignments(SILENT_S, self.now_ns)
        self.topic: dict[str, Registration] = {}
        self.heard_ns: dict[SubscriberId, int] = {}
        self.seen_ns: dict[str, int] = {}
        self.opened: set[str] = set()
        self.asked: set[str] = set()
        self.count = 0

    def live(self, cluster: str | None = None) -> set[SubscriberId]:
        """Who is live by the model."""
        return {
            one
            for one, heard_ns in self.heard_ns.items()
            if self.now_ns - heard_ns < SILENT_S * S and cluster in (None, one.cluster)
        }

    @rule(seconds=st.sampled_from([1, 3, 6]))
    def passes(self, seconds: int) -> None:
        """Let time pass."""
        self.now_ns += seconds * S

    @rule(cluster=st.sampled_from("12"))
    def cluster_announces(self, cluster: str) -> None:
        """All subscribers of a cluster announce themselves."""
        for one in ALL:
            if one.cluster == cluster:
                self._announce(one, 0, ())

    @rule(one=SUBSCRIBERS, load=st.integers(0, 9), data=st.data())
    def announces(self, one: SubscriberId, load: int, data: st.DataObject) -> None:
        """A subscriber announces itself, and names some clients."""
        held = tuple(data.draw(st.lists(st.sampled_from([*sorted(self.topic), "nobody"]), max_size=3, unique=True)))
        self._announce(one, load, held)

    def _announce(self, one: SubscriberId, load: int, held: tuple[str, ...]) -> None:
        announcement = Announcement(one.subscriber, one.cluster, f"http://{one.key}", load, self.now_ns, None, held)
        self.assignments.apply_announcement(one, announcement)
        self.heard_ns[one] = self.now_ns
        for client in held:
            if client in self.topic:
                self.seen_ns[client] = self.now_ns
                self.opened.add(client)

    @rule(one=SUBSCRIBERS)
    def withdraws(self, one: SubscriberId) -> None:
        """A subscriber leaves."""
        self.assignments.apply_announcement(one, None)
        self.heard_ns.pop(one, None)

    @rule(target=clients, cluster=st.sampled_from([None, "1", "2"]), count=st.integers(1, 3))
    def register(self, cluster: str | None, count: int) -> MultipleResults[str]:
        """Clients register: at a live subscriber of the cluster that they ask for, or not at all."""
        names = [f"c{self.count + number}" for number in range(count)]
        self.count += count
        for client in names:
            made = self.assignments.register(client, "token", self.now_ns, cluster)
            assert (made is None) == (not self.live(cluster))
            if made is not None:
                assert subscriber_of(made) in self.live(cluster)
                self.topic[client], self.seen_ns[client] = made, self.now_ns
        return multiple(*names)

    @rule(client=clients)
    def asks(self, client: str) -> None:
        """A client asks for its stream: it stays with a subscriber that is live, or moves to one, if there is one."""
        if client not in self.topic:
            return
        before = self.topic[client]
        found = self.assignments.assign(client, self.now_ns)
        self.asked.add(client)
        self.seen_ns[client] = self.now_ns
        if found is None:
            assert not self.live()
            return
        assert subscriber_of(found.registration) in self.live()
        assert found.moved == (subscriber_of(before) not in self.live())
        wanted = before.asked or before.cluster
        if found.moved and self.live(wanted):
            assert found.registration.cluster == wanted
        self.topic[client] = found.registration

    @rule(client=clients)
    def is_removed(self, client: str) -> None:
        """A client is removed, and an older record that comes back from the topic does not bring it back."""
        if client not in self.topic:
            return
        old = self.topic.pop(client)
        assert self.assignments.remove(client) == old
        self.assignments.apply_registration(client, old)
        assert self.assignments.client(client) is None
        self.assignments.apply_registration(client, None)

    @rule(client=clients, age=st.sampled_from([0, 1, 5 * S]))
    def record_comes_back(self, client: str, age: int) -> None:
        """The registry reads its own record, or an older one, from the topic: nothing changes."""
        if client in self.topic:
            mine = self.topic[client]
            self.assignments.apply_registration(
                client, msgspec.structs.replace(mine, registered_ns=mine.registered_ns - age, subscriber="old")
            )

    @invariant()
    def all_registrations_are_known_once(self) -> None:
        """Each with the subscriber that the topic names; the sums by subscriber and by cluster agree."""
        assert {each.client_id: each for each in self.assignments.clients("", 999)} == self.topic
        assert len(self.assignments) == sum(self.assignments.by_cluster().values()) == len(self.topic)
        assert sum(map(self.assignments.registered, ALL)) == len(self.topic)

    @invariant()
    def those_who_are_idle_or_never_came_are_known(self) -> None:
        """By when each was seen last, and by whom a subscriber has held."""
        idle = set(self.assignments.idle_clients(self.now_ns, 999))
        expected = {client for client in self.topic if self.seen_ns[client] < self.now_ns}
        assert idle == (expected if self.now_ns > 1_000 * S else set())
        unopened = set(self.assignments.unopened_clients(2**62, 999))
        assert unopened == self.topic.keys() - self.opened
        unasked = set(self.assignments.unasked_clients(2**62, 999))
        assert unasked == self.topic.keys() - self.opened - self.asked

    @invariant()
    def restart_knows_the_same_registrations(self) -> None:
        """From the compacted topic alone."""
        again = Assignments(SILENT_S, self.now_ns)
        for client, registration in self.topic.items():
            again.apply_registration(client, registration)
        assert again.clients("", 999) == self.assignments.clients("", 999)


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)
