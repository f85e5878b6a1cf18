"""The rule for web pages: the registry's own page, those in the setting `origins`, and no page with a similar name."""

from __future__ import annotations

import pytest

from pipeline import settings
from pipeline.origins import Origins, hostname, origin_of_url, parse_origin, parse_origins
from pipeline.problems import Refusal

RULE = Origins("http://localhost:3000, https://app.example/", "", 8080, ["live.example"])


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("live.example:8000", "live.example"),
        ("LIVE.example", "live.example"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[::1]:8080", "::1"),
        ("", ""),
        ("[::1", ""),
    ],
)
def test_hostname_has_no_port_and_no_brackets(host: str, name: str) -> None:
    """The name is in lower case; a malformed host gives an empty name."""
    assert hostname(host) == name


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("http://live.example", "http://live.example"),
        ("HTTP://Live.Example:80", "http://live.example"),
        ("https://live.example:443", "https://live.example"),
        ("https://live.example:80", "https://live.example:80"),
        ("http://[0:0::1]:08080", "http://[::1]:8080"),
        ("http://[2001:DB8::A]", "http://[2001:db8::a]"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("http://my_machine.local.", "http://my_machine.local."),
    ],
)
def test_origins_are_compared_in_one_form(text: str, canonical: str) -> None:
    """Letter case, a default port and the spelling of an IPv6 address make no difference."""
    assert str(parse_origin(text)) == canonical
    assert parse_origin(canonical) == parse_origin(text)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("*", "list each origin"),
        ("https://*.example.com", "list each origin"),
        ("null", "serve the page over HTTP"),
        ("localhost:3000", "it has no scheme: give http://host[:port]"),
        ("//live.example", "it has no scheme"),
        ("ftp://live.example", "its scheme is 'ftp': give the page's own scheme, http or https"),
        ("ws://live.example", "its scheme is 'ws'"),
        ("file:///index.html", "its scheme is 'file'"),
        ("http://live.example/app", "give http://live.example"),
        ("http://live.example//", "give http://live.example"),
        ("https://live.example?x=1", "give https://live.example"),
        ("https://live.example#top", "give https://live.example"),
        ("http://user@live.example", "it is not an origin"),
        ("http://live.example:", "it is not an origin"),
        ("http://", "it is not an origin"),
        ("http://:80", "it is not an origin"),
        ("http://live.example:0", "a port from 1 to 65535"),
        ("http://live.example:70000", "a port from 1 to 65535"),
        ("http://live.example:port", "it is not an origin"),
        ("http://[::1", "it is not an origin"),
        ("http://[1::2::3]", "is not an IP address"),
        ("http://127.1", "is not an IP address"),
        ("http://bücher.example", "begins with xn--"),
        ("http://a.example http://b.example", "it is not an origin"),
    ],
)
def test_bad_entry_is_named_with_its_remedy(entry: str, reason: str) -> None:
    """Each mistake has its sentence; the other entries do not hide it."""
    with pytest.raises(ValueError, match=r"^entry ") as raised:
        parse_origins(f"https://good.example, {entry}")
    assert str(raised.value).startswith(f"entry {entry!a}: ")
    assert reason in str(raised.value)


def test_list_is_separated_by_commas_and_may_be_empty() -> None:
    """Blanks around an entry and one slash at its end are dropped; an empty entry is an error."""
    assert parse_origins("") == parse_origins("  ") == frozenset()
    assert {str(origin) for origin in parse_origins(" http://a.example/ ,https://b.example")} == {
        "http://a.example",
        "https://b.example",
    }
    for text in (",", "http://a.example,", "http://a.example,,http://b.example"):
        with pytest.raises(ValueError, match="remove the extra comma"):
            parse_origins(text)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8000"),
        ("http://localhost:8080", "localhost:8000"),
        ("https://live.example:8080", "live.example:8000"),
        ("http://Live.Example:8080", "live.example"),
        ("http://[::1]:8080", "[::1]:8000"),
        ("http://machine:8080", "machine"),
        ("http://localhost:3000", "127.0.0.1:8000"),
        ("HTTP://LOCALHOST:3000", "127.0.0.1:8000"),
        ("https://app.example", "127.0.0.1:8000"),
        ("https://app.example:443", ""),
    ],
)
def test_the_registrys_page_and_listed_pages_are_allowed(origin: str, host: str) -> None:
    """The registry's page has this host and the registry's port; a listed page may be anywhere."""
    assert RULE.allows(origin, host)
    RULE.check(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "127.0.0.1:8000"),
        ("http://evil.example:8080", "127.0.0.1:8000"),
        ("http://127.0.0.1.evil.example:8080", "127.0.0.1:8000"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://127.0.0.1:3000", "127.0.0.1:8000"),
        ("http://127.0.0.1", "127.0.0.1:8000"),
        ("http://localhost:8080", "127.0.0.1:8000"),
        ("https://localhost:3000", "localhost:8000"),
        ("http://app.example", "app.example"),
        ("https://app.example/", "app.example"),
        ("https://app.example, https://app.example", "app.example"),
        ("https://app.example.", "app.example"),
        ("https://app.example\n", "app.example"),
        ("null", "127.0.0.1:8000"),
        ("null", ""),
        ("NULL", "127.0.0.1:8000"),
        ("file://", ""),
        ("", "127.0.0.1:8000"),
        ("", ""),
        ("http://:8080", ":8000"),
        ("ftp://127.0.0.1:8080", "127.0.0.1:8000"),
        ("http://[::1", "[::1"),
        ("http://[::1]:8080", "[::2]:8000"),
    ],
)
def test_other_pages_are_refused_by_name(origin: str, host: str) -> None:
    """Other hosts, ports and schemes, similar names, and what no browser sends: 403 with the setting and the value."""
    assert not RULE.allows(origin, host)
    with pytest.raises(Refusal) as raised:
        RULE.check(origin, host)
    assert (raised.value.status, raised.value.headers) == (403, {"Vary": "Origin"})
    assert "setting origins (EMOSTREAM_ORIGINS, --origins)" in raised.value.detail
    assert ascii(origin) in raised.value.detail


def test_refusal_names_the_entry_to_add() -> None:
    """The entry can be copied into the setting as it is; an origin that cannot be listed has another remedy."""
    with pytest.raises(Refusal, match=r"add http://evil\.example to the setting origins"):
        RULE.check("HTTP://evil.example:80", "127.0.0.1:8000")
    with pytest.raises(Refusal, match=r"cannot be listed .* serve the page over HTTP"):
        RULE.check("null", "127.0.0.1:8000")


@pytest.mark.parametrize(
    ("registry_url", "origin", "allowed"),
    [
        ("https://live.example", "https://live.example", True),
        ("https://live.example/emostream/", "https://live.example", True),
        ("https://Live.example:443", "https://live.example", True),
        ("https://live.example", "http://live.example", False),
        ("https://live.example", "https://live.example:8080", False),
        ("https://live.example", "https://www.live.example", False),
        ("http://[::1]:90", "http://[::1]:90", True),
        # The address behind the proxy keeps working.
        ("https://live.example", "http://127.0.0.1:8080", True),
    ],
)
def test_registry_url_is_the_pages_origin(registry_url: str, origin: str, allowed: bool) -> None:
    """Behind a proxy the page has the origin of `registry_url`, whatever the `Host` of the request is."""
    assert Origins("", registry_url, 8080).allows(origin, "127.0.0.1:8000") is allowed


@pytest.mark.parametrize(
    "url", ["live.example", "live.example:80", "ftp://live.example", "http://", "http:/live.example"]
)
def test_url_without_an_origin_is_refused(url: str) -> None:
    """A registry_url without scheme or host has no origin."""
    with pytest.raises(ValueError, match="give"):
        origin_of_url(url)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        # After a redirect from one origin to another.
        ("null", True),
        # The page was opened by another name of the machine than the one that this stage announces.
        ("http://localhost:8080", True),
        ("https://app.example", True),
        # The address of the request itself, as websocket-client sends it.
        ("http://127.0.0.1:41234", True),
        ("http://evil.example", False),
        ("http://evil.example:41234", False),
        ("http://127.0.0.1:3000", False),
        ("nonsense", False),
    ],
)
def test_ticket_allows_what_redirects_and_libraries_send(origin: str, allowed: bool) -> None:
    """The registry gave the ticket to a client that it allows; a page of another port is refused even with one."""
    assert RULE.allows(origin, "127.0.0.1:41234", ticket=True) is allowed


def test_default_port_of_the_requests_own_address_is_left_out() -> None:
    """Libraries and servers leave it out of `Origin` and `Host`."""
    rule = Origins("", "", 8080)
    assert rule.allows("https://sub.example", "sub.example", ticket=True)
    assert rule.allows("http://[::1]", "[::1]:80", ticket=True)
    assert not rule.allows("https://sub.example", "sub.example:80", ticket=True)
    assert not rule.allows("https://sub.example", "sub.example")
    assert not rule.allows("http://sub.example", "", ticket=True)


NAMES = {"host_names": "live.example, B.example", "registry_url": "http://r.example:8080",
         "ingest_url": "https://in.example/x", "subscriber_url": "http://s.example:1"}  # fmt: skip


@pytest.mark.parametrize(
    ("host", "own"),
    [
        # Programs of HTTP/1.0; browsers send one.
        ("", True),
        ("127.0.0.1:8000", True),
        ("192.0.2.7", True),
        ("[::1]:80", True),
        ("localhost:8080", True),
        ("a.localhost", True),
        # In a network of containers.
        ("registry:8080", True),
        ("printer.local", True),
        ("registry.emostream.svc.cluster.local:8080", True),
        ("machine.home.arpa", True),
        ("live.example", True),
        ("LIVE.example.:80", True),
        ("b.example", True),
        ("r.example", True),
        ("in.example", True),
        ("s.example:2", True),
        ("evil.example:8000", False),
        ("evil.example.", False),
        ("127.0.0.1.evil.example", False),
        ("www.live.example", False),
        ("evilhome.arpa", False),
        ("evillive.example", False),
        ("a b.example", False),
        ("[::1", False),
        (":80", False),
    ],
)
def test_names_that_a_stranger_can_own_are_refused(host: str, own: bool) -> None:
    """Whoever owns a domain can let it lead to this machine, and browsers then take its pages for the stage's own."""
    rule = settings.build(NAMES).page_rule()
    for _ in range(2):
        assert rule.has_name(host) is own


def test_page_of_a_strangers_name_is_not_the_registrys_own() -> None:
    """Its origin has the registry's port, and the host of the request: as the registry's own page has."""
    rule = settings.build(NAMES).page_rule()
    assert rule.allows("http://live.example:8080", "live.example:8000")
    assert not rule.allows("http://evil.example:8080", "evil.example:8000")


def test_refused_name_is_explained() -> None:
    """421 with the name, and where to list it."""
    with pytest.raises(Refusal, match=r"Host is 'evil\.example:80'.*host_names \(EMOSTREAM_HOST_NAMES") as raised:
        settings.build({}).page_rule().check_name("evil.example:80")
    assert raised.value.status == 421


def test_names_of_this_machine_are_known_and_so_is_the_one_that_it_listens_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`host` may be a name: stages listen on its address, and clients call it by its name."""
    monkeypatch.setattr("platform.node", lambda: "node.example")
    monkeypatch.setattr(settings, "local_address", lambda host: "127.0.0.2")
    line = settings.parser("x", "y", ("host", "host_names"))
    given, _ = settings.parse(line, ["--host", "name.example", "--host-names", "live.example"])
    rule = given.page_rule()
    for name in ("node.example", "name.example", "live.example"):
        assert rule.has_name(f"{name}:8080")
    assert given.host == "127.0.0.2"


def test_rule_remembers_a_bounded_number_of_names() -> None:
    """Each is chosen by who sends it."""
    rule = settings.build({}).page_rule()
    for number in range(3000):
        assert not rule.has_name(f"{number}.example")
    assert rule.has_name.cache_info().currsize <= 1000


def test_unknown_registry_port_allows_listed_pages_only() -> None:
    """A stage that was started alone with registry_port=0 cannot know the registry's page."""
    rule = Origins("http://localhost:3000", "", 0)
    assert rule.allows("http://localhost:3000", "localhost:8000")
    assert not rule.allows("http://localhost", "localhost:8000")
    assert not rule.allows("http://localhost:8000", "localhost:8000")
