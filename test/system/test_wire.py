"""The wire: HELLO, NOTIFY, fragments, garbage, and peers that behave badly beside good ones."""

import contextlib
import grp
import ipaddress
import os
import pwd
import random
import resource
import socket
import stat
import struct
import subprocess
import threading
import time

import pytest

import spop
from agent import free_port, has_ipv6, until
from spop import Closed, Connection, Disconnected, frame, message

RULES = """
	{ name = "per-user"; match = { message = [ "check", "check-*" ]; user = "*"; };
	  per = [ "user" ]; rate = "5/day"; },
	{ name = "per-ip"; match = { ip = "0.0.0.0/0"; }; per = [ "ip" ]; rate = "1000000/day"; }
"""


@pytest.fixture(scope="module")
def agent(shared):
    return shared(rules=RULES)


def someone(counter=iter(range(10**9))):
    return f"user-{next(counter)}"


def still_served(agent):
    with agent.connect() as c:
        answer = c.check(user=someone())
        assert answer["reason"] == "ok" and answer["remaining"] == 4


# --- HELLO -----------------------------------------------------------------------------------

def raw_hello(*items):
    return frame(spop.HAPROXY_HELLO, spop.kv(items))


SIZE = ("max-frame-size", spop.typed(spop.UINT32, 16380))
VERSIONS = ("supported-versions", "2.0")
CAPABILITIES = ("capabilities", "pipelining")

HELLOS = [
    ("HAProxy 2.6", spop.hello(engine_id="4a2e6e5f-0000-0000-0000-000000000001"),
     {"size": 16380, "capabilities": {"pipelining", "fragmentation"}}),
    ("HAProxy 3.5", spop.hello(capabilities="pipelining"), {"size": 16380}),
    ("no capability is offered", spop.hello(capabilities=""), {"capabilities": {"fragmentation"}}),
    ("only async is offered", spop.hello(capabilities="async"),
     {"capabilities": {"fragmentation"}}),
    ("unknown capabilities", spop.hello(capabilities="x, pipelining ,,y"),
     {"capabilities": {"pipelining", "fragmentation"}}),
    ("a capability that begins like one we know", spop.hello(capabilities="pipelining2"),
     {"capabilities": {"fragmentation"}}),
    ("several versions", spop.hello(versions="1.0, 2.0"), {}),
    ("several versions, ours first", spop.hello(versions="2.0,3.0"), {}),
    ("versions with blanks", spop.hello(versions=" 1.0 ,  2.0 "), {}),
    ("the smallest frame", spop.hello(size=256), {"size": 256}),
    ("a smaller frame than ours", spop.hello(size=1000), {"size": 1000}),
    ("a larger frame than ours", spop.hello(size=65532), {"size": 16380}),
    ("a much larger frame than ours", spop.hello(size=1020396), {"size": 16380}),
    ("unknown items", spop.hello(x=None, y=-1, z=b"\0\xff", v4=spop.ip("127.0.0.1"),
                                 v6=spop.ip("::1"), b=True, s="x" * 300), {}),
    ("no health check", spop.hello(healthcheck=False), {}),
    ("another order", raw_hello(CAPABILITIES, SIZE, VERSIONS), {}),
    ("reserved flags", frame(spop.HAPROXY_HELLO, spop.kv(spop.hello_items()),
                             flags=spop.FIN | 0xfffffffc), {}),
]


@pytest.mark.parametrize("said, expected", [h[1:] for h in HELLOS], ids=[h[0] for h in HELLOS])
def test_hello(agent, said, expected):
    with agent.connect(greet=False) as c:
        c.send(said)
        got = c.greeted(1020396, "pipelining")
        assert got["size"] == expected.get("size", 16380)
        if "capabilities" in expected:
            assert set(got["capabilities"]) == expected["capabilities"]
        assert "fragmentation" in got["capabilities"]
        assert c.check(user=someone())["reason"] == "ok"


BAD_HELLOS = [
    ("no version", spop.hello(versions=None), {5}),
    ("no frame size", spop.hello(size=None), {6}),
    ("no capabilities", spop.hello(capabilities=None), {7}),
    ("an old version", spop.hello(versions="1.0"), {8}),
    ("a new version", spop.hello(versions="3.0"), {8}),
    ("versions that only look alike", spop.hello(versions="2.01,12.0,2,2.0.0,20"), {8}),
    ("no version in the list", spop.hello(versions=""), {8}),
    ("a frame too small", spop.hello(size=255), {9}),
    ("a frame of nothing", spop.hello(size=0), {9}),
    ("nothing at all", raw_hello(), {5, 6, 7}),
    ("a version that is a number", raw_hello(("supported-versions", 2), SIZE, CAPABILITIES),
     {4, 5, 8}),
    ("a size that is a text", raw_hello(VERSIONS, ("max-frame-size", "16380"), CAPABILITIES),
     {4, 6, 9}),
    ("an unknown type", raw_hello(VERSIONS, SIZE, CAPABILITIES, ("x", spop.Raw(b"\x0b\0"))), {4}),
    ("a torn value", frame(spop.HAPROXY_HELLO, spop.kv([VERSIONS, SIZE, CAPABILITIES])[:-1]), {4}),
    ("a key without a value", frame(spop.HAPROXY_HELLO, spop.kv(spop.hello_items()) +
                                    spop.string("x")), {4}),
    ("NOTIFY before HELLO", frame(spop.NOTIFY, message("check"), 1, 1), {4}),
    ("an agent's frame", frame(spop.AGENT_HELLO, spop.kv([("version", "2.0")])), {4}),
    ("an ACK", frame(spop.ACK, b"", 1, 1), {4}),
    ("a fragment before HELLO", frame(spop.UNSET, b"", 1, 1), {4, 12}),
    ("ids in a HELLO", frame(spop.HAPROXY_HELLO, spop.kv(spop.hello_items()), 1, 1), {4}),
    ("a HELLO in pieces", frame(spop.HAPROXY_HELLO, spop.kv(spop.hello_items()), flags=0), {4, 10}),
]


@pytest.mark.parametrize("said, codes", [h[1:] for h in BAD_HELLOS],
                         ids=[h[0] for h in BAD_HELLOS])
def test_bad_hello(agent, said, codes):
    with agent.connect(greet=False) as c:
        c.send(said)
        assert c.ended() in codes
    still_served(agent)


def test_an_absurd_frame_size_is_not_believed(agent):
    with agent.connect(greet=False) as c:
        c.send(spop.hello(size=0xffffffff))
        try:
            assert c.greeted(0xffffffff)["size"] == 16380
        except Disconnected as end:
            assert end.code == 9
            return
        c.send(struct.pack(">I", 0xfffffff0) + b"\x03\0\0\0\1\1\1")
        assert c.ended() == 3


def test_a_second_hello_is_an_error(agent):
    with agent.connect() as c:
        c.send(spop.hello())
        assert c.ended() == 4


def test_notify_may_follow_hello_at_once(agent):
    with agent.connect(greet=False) as c:
        key = c.expect((1, 1))
        c.send(spop.hello() + frame(spop.NOTIFY, message("check", {"user": someone()}), *key))
        c.greeted()
        assert c.wait(key)["remaining"] == 4


def test_health_check_of_every_haproxy(agent):
    for _ in range(20):
        with agent.connect(greet=False) as c:
            c.send(spop.HEALTH_CHECK)
            assert c.greeted(16380, "")["size"] == 16380
            c.reset()
    still_served(agent)


def test_own_frame_size_is_answered(run):
    a = run(rules=RULES, agent="max_frame_size = 1024;")
    for theirs, answered in ((16380, 1024), (1024, 1024), (1025, 1024), (1023, 1023), (256, 256)):
        with a.connect(greet=False) as c:
            c.send(spop.hello(size=theirs))
            assert c.greeted(theirs)["size"] == answered


# --- frame sizes -----------------------------------------------------------------------------

def padded(length, user, key=(1, 1)):
    """A NOTIFY of exactly this length."""
    for fill in range(length, 0, -1):
        payload = message("check", {"user": user, "x": "x" * fill})
        f = frame(spop.NOTIFY, payload, *key)
        if len(f) - 4 == length:
            return f
    raise AssertionError(length)


@pytest.mark.parametrize("theirs", [256, 1000, 16380, 65532])
def test_frames_up_to_what_haproxy_announced(run, theirs):
    a = run(rules=RULES, agent="max_frame_size = 512;")
    with a.connect(size=theirs) as c:
        for sid in (1, 3):
            key = c.expect((sid, 1))
            c.send(padded(theirs, someone(), key))
            assert c.wait(key)["remaining"] == 4
        c.send(padded(theirs + 1, someone(), (5, 1)))
        assert c.ended() == 3


def test_a_long_frame_is_refused_by_its_length_alone(agent):
    with agent.connect(size=1000) as c:
        c.send(struct.pack(">I", 1001))
        assert c.ended() == 3


EVERY = ("deny reason limit remaining reset reset_at retry_after rule tier scope algorithm "
         "warn shadow tag policy ratelimit").split()


def wordy(run):
    """Its answers are long."""
    rules = ",".join(f"""{{ name = "{'n' * 60}{i}"; per = [ "user" ]; rate = "{i}00/day";
                           mode = "enforce"; }}""" for i in range(1, 9))
    return run(rules=rules, agent="variables = [ " + ", ".join(f'"{v}"' for v in EVERY) + " ];")


@pytest.mark.parametrize("size", [256, 300, 400, 16380])
def test_an_ack_drops_from_its_end(run, size):
    a = wordy(run)
    with a.connect() as c:
        whole = c.check(user="u", cost=0)
        assert list(whole)[0] == "deny" and set(whole) == set(EVERY)
    with a.connect(size=size) as c:
        answer = c.check(user="u", cost=0)
        assert answer.length <= size
        assert list(answer) == list(whole)[:len(answer)]
        assert len(answer) < len(whole) if size == 256 else len(answer) >= 2
        assert answer["deny"] is False
        if size == 16380:
            assert len(answer) == len(whole)


def test_an_ack_that_just_fits_is_whole(run):
    a = wordy(run)
    with a.connect() as c:
        whole = c.check(user="u", cost=0)
    for shorter in (0, 1):
        with a.connect(size=whole.length - shorter) as c:
            answer = c.check(user="u", cost=0)
            assert list(answer) == list(whole)[:len(whole) - shorter]
            assert answer.length <= whole.length - shorter


@pytest.mark.parametrize("size", [256, 16380])
def test_answers_that_do_not_fit_into_one_send(run, size):
    """What is asked at once is short, what is answered long: the rest is answered when that has gone."""
    a = wordy(run)
    with a.connect(size=size) as c:
        keys = [c.expect(c.ids()) for _ in range(400)]
        c.send(b"".join(frame(spop.NOTIFY, message("check", {"user": "u"}), *key) for key in keys))
        answers = [c.wait(key) for key in keys]
        assert [a["deny"] for a in answers] == [i >= 100 for i in range(400)]
        assert size == 256 or all(set(a) == set(EVERY) for a in answers)
        c.silent()


def test_long_strings_of_a_client_do_not_cost_the_decision(agent):
    with agent.connect(size=256) as c:
        answer = c.check(tier="t" * 180)
        assert answer["deny"] is False and answer["reason"] == "ok"
        user = "u" * 150
        for _ in range(5):
            c.check(user=user)
        assert c.check(user=user)["deny"] is True
    with agent.connect(size=16380) as c:
        for n in (254, 255, 256, 2000, 16000, 16320):
            answer = c.check(tier="t" * n)
            assert answer["deny"] is False and answer["reason"] == "ok"


# --- NOTIFY ----------------------------------------------------------------------------------

def test_the_captured_notify(agent):
    with agent.connect() as c:
        c.expect((0, 1))
        c.send(spop.NOTIFY_CAPTURED)
        answer = c.wait((0, 1))
        # No ip, user or key in it: no rule applies, and there is no limit to report.
        assert answer == {"deny": False, "reason": "ok", "tier": "anonymous"}


def test_an_empty_notify(agent):
    with agent.connect() as c:
        assert c.ask(b"") == {"ack": True}
        c.silent()


def test_unknown_messages_and_reports(agent):
    with agent.connect() as c:
        for name in ("nothing", "", "CHECK", "checks", "check_login", "chec", "x" * 200, "report",
                     "report-x", "re\0port", "\r\n"):
            assert c.ask(message(name, {"user": "nobody"})) == {"ack": True}, name
        assert c.check(user="nobody")["remaining"] == 4


def test_a_check_with_a_name_of_its_own(run):
    a = run(rules="""{ name = "logins"; match = { message = "check-login"; }; per = [ "user" ];
                       rate = "5/day"; },
                     { name = "others"; match = { message = "!check-login"; }; per = [ "user" ];
                       rate = "7/day"; }""")
    assert a.check(name="check-login", user="u")["rule"] == "logins"
    assert a.check(name="check-log", user="u")["rule"] == "others"
    assert a.check(name="check", user="u")["rule"] == "others"


def test_two_checks_the_first_decides(agent):
    with agent.connect() as c:
        one, two = someone(), someone()
        answer = c.ask(message("nothing", {"user": two}) + message("check", {"user": one}) +
                       message("check-b", {"user": two}) + message("report", {"user": two}))
        assert answer["remaining"] == 4
        assert c.check(user=one)["remaining"] == 3
        assert c.check(user=two)["remaining"] == 4
        c.silent()


def test_two_checks_do_not_mix(agent):
    with agent.connect() as c:
        user = someone()
        answer = c.ask(message("check", {"x": 1}) + message("check-b", {"user": user}))
        assert answer == {"deny": False, "reason": "ok", "tier": "anonymous"}
        assert c.check(user=user)["remaining"] == 4


def test_every_type_in_every_argument(agent):
    values = [None, True, False, 0, 1, -1, 2**63 - 1, -2**63, spop.typed(spop.INT32, -5),
              spop.typed(spop.UINT32, 2**32 - 1), spop.typed(spop.UINT64, 2**64 - 1),
              spop.typed(spop.INT32, 2**63), spop.ip("192.0.2.1"), spop.ip("2001:db8::1"), "", "x",
              "192.0.2.1", "\r\n\0\x1b", b"", b"\x01", b"\xc0\0\2\1", bytes(16), bytes(20),
              "é€\U0001f600", b"\xff\xfe" * 50, "x" * 5000, spop.Raw(b"\xf1"), spop.Raw(b"\x21"),
              spop.Raw(b"\xf0")]
    with agent.connect() as c:
        for name in ("ip", "user", "key", "tier", "method", "path", "host", "cost", "other", "",
                     "message", "endpoint", "n" * 300, "na\0me"):
            keys = [c.notify(message("check", [(name, v)])) for v in values]
            for key, v in zip(keys, values):
                assert "deny" in c.wait(key), (name, v)


def test_null_and_empty_are_absent(agent):
    absent = {"deny": False, "reason": "ok", "tier": "anonymous"}
    with agent.connect() as c:
        for v in (None, "", b""):
            for name in ("user", "key", "ip", "tier"):
                assert c.check([(name, v)]) == absent
        for v in ("no address", "1.2.3", "1.2.3.4.5", "::g", b"\1\2\3", b"12345", 7, True):
            assert c.check(ip=v) == absent, v


def test_of_duplicates_the_first_counts(agent):
    with agent.connect() as c:
        one, two = someone(), someone()
        assert c.check([("user", one), ("user", two)])["remaining"] == 4
        assert c.check(user=one)["remaining"] == 3
        assert c.check(user=two)["remaining"] == 4


def test_order_of_arguments_and_unknown_ones(run):
    a = run(rules="""{ name = "r"; match = { colour = "red"; n = "7"; b = "true"; };
                       per = [ "user", "shape" ]; rate = "9/day"; }""")
    args = [("user", "u"), ("shape", b"round"), ("colour", "red"), ("n", 7), ("b", True),
            ("unused", None)]
    for left in range(8, 2, -1):
        random.Random(left).shuffle(args)
        assert a.check(args)["remaining"] == left


def test_255_arguments(agent):
    with agent.connect() as c:
        user = someone()
        args = [(f"a{i}", i) for i in range(254)] + [("user", user)]
        assert c.check(args)["remaining"] == 4
        assert c.check([("user", user)] + [("a", "b")] * 254)["remaining"] == 3


def test_answers_are_not_paced(run):
    """BBR, where it is the machine's default, paces: its sockets here have another."""
    a = run(rules=RULES, listen=f"127.0.0.1:{free_port()}")
    host, port = a.address
    with Connection(a.address):
        shown = subprocess.run(["ss", "-Htin", "state", "established", f"( sport = :{port} )"],
                               check=True, capture_output=True, text=True).stdout
    assert f"{host}:{port}" in shown and " reno " in shown, shown


def test_ids_are_echoed(agent):
    ids = [(0, 0), (0, 1), (1, 0), (239, 240), (2287, 2288), (2**31 - 1, 2**31), (2**32, 2**32 - 1),
           (2**63 - 1, 2**63), (2**64 - 1, 2**64 - 1), (7, 10202)]
    with agent.connect() as c:
        keys = [c.notify(message("check", {"user": someone()}), *key) for key in ids]
        for key in keys:
            assert c.wait(key)["remaining"] == 4
        # The same ids once more: they are echoed, never interpreted.
        for key in ids:
            assert c.wait(c.notify(message("check", {"user": someone()}), *key))["remaining"] == 4


def test_pipelining_gives_every_answer(agent):
    user = someone()
    with agent.connect() as c:
        keys = [c.expect(c.ids()) for _ in range(1000)]
        c.send(b"".join(frame(spop.NOTIFY, message("check", {"user": user} if i % 2 else {}), *key)
                        for i, key in enumerate(keys)))
        answers = [c.wait(key) for key in keys]
        assert sum(a["reason"] == "limited" for a in answers) == 495
        assert sum("remaining" in a for a in answers) == 500
        c.silent()


def test_answers_are_what_the_request_was_on_every_connection(agent):
    users = [someone() for _ in range(20)]
    connections = [agent.connect() for _ in users]
    for turn in range(5):
        keys = [c.notify(message("check", {"user": u})) for c, u in zip(connections, users)]
        for c, key in zip(connections, keys):
            assert c.wait(key)["remaining"] == 4 - turn
    for c in connections:
        c.close()


BAD_NOTIFIES = [
    ("a name without arguments", spop.string("check")),
    ("a torn name", b"\x05che"),
    ("fewer arguments than said", spop.string("check") + b"\x02" + spop.kv({"user": "u"})),
    ("a torn argument name", spop.string("check") + b"\x01\x09us"),
    ("an argument without a value", spop.string("check") + b"\x01" + spop.string("user")),
    ("an unknown type", spop.string("check") + b"\x01" + spop.string("user") + b"\x0a\0"),
    ("the last unknown type", spop.string("check") + b"\x01" + spop.string("user") + b"\x0f"),
    ("an unknown type in a second message", message("check", {"x": 1}) + spop.string("y") +
     b"\x01" + spop.string("z") + b"\x0c"),
    ("a string beyond the frame", spop.string("check") + b"\x01" + spop.string("user") +
     b"\x08\x09u"),
    ("a string of 2^64 - 1 bytes", spop.string("check") + b"\x01" + spop.string("user") +
     b"\x08" + spop.varint(2**64 - 1) + b"u"),
    ("a name of 2^64 - 1 bytes", spop.varint(2**64 - 1) + b"check"),
    ("a torn IPv4 address", spop.string("check") + b"\x01" + spop.string("ip") + b"\x06\1\2\3"),
    ("a torn IPv6 address", spop.string("check") + b"\x01" + spop.string("ip") + b"\x07" +
     bytes(15)),
    ("a torn varint", spop.string("check") + b"\x01" + spop.string("cost") + b"\x04\xff\xff"),
    ("a varint without an end", spop.string("check") + b"\x01" + spop.string("cost") + b"\x04" +
     b"\xff" * 30),
    ("a varint beyond 64 bits", spop.string("check") + b"\x01" + spop.string("cost") +
     bytes.fromhex("04fff0fefefefefefefe0f")),
    ("one byte too many", message("check", {"user": "u"}) + b"\x01"),
]


@pytest.mark.parametrize("payload", [b[1] for b in BAD_NOTIFIES], ids=[b[0] for b in BAD_NOTIFIES])
def test_a_malformed_notify(agent, payload):
    with agent.connect() as c:
        # What came before it in the same write is answered first.
        keys = [c.expect(c.ids()) for _ in range(3)]
        good = [frame(spop.NOTIFY, message("check", {"user": someone()}), *k) for k in keys]
        c.send(b"".join(good) + frame(spop.NOTIFY, payload, *c.ids()))
        for key in keys:
            assert c.wait(key)["remaining"] == 4
        assert c.ended() == 4
    still_served(agent)


def test_every_cut_of_a_notify_payload(agent):
    """A frame whose payload ends early is an invalid frame, wherever the cut is."""
    whole = spop.NOTIFY_CAPTURED[11:]
    for cut in range(1, len(whole)):
        with agent.connect() as c:
            c.send(frame(spop.NOTIFY, whole[:cut], 1, 1))
            assert c.ended() == 4, cut


@pytest.mark.parametrize("body, codes", [
    (b"", {4}), (b"\x03", {4}), (b"\x03\0\0\0\1\1", {4}), (b"\x03\0\0\0\1\xff\xff", {4}),
    (b"\x03\0\0\0\1\1" + b"\xff" * 20, {4}),
    (b"\x03\0\0\0\1" + bytes.fromhex("fff0fefefefefefefe0f") + b"\1", {4}),
], ids=["length 0", "length 1", "length 6", "a torn id", "an endless id", "an id beyond 64 bits"])
def test_a_malformed_frame(agent, body, codes):
    with agent.connect() as c:
        c.send(struct.pack(">I", len(body)) + body)
        assert c.ended() in codes
    with agent.connect(greet=False) as c:
        c.send(struct.pack(">I", len(body)) + body)
        assert c.ended() in codes


def test_frames_of_unknown_types(agent):
    """Skipped or refused, as the specification allows; never answered with an ACK."""
    for kind in (4, 50, 100, 104, 255):
        with agent.connect() as c:
            c.send(frame(kind, b"x", 1, 1))
            try:
                c.sid = c.silent()
            except Disconnected as end:
                assert end.code == 4
            except (Closed, ConnectionError):
                pytest.fail("closed without a word")


def test_what_follows_the_end_is_ignored(agent):
    user = someone()
    with agent.connect() as c:
        c.send(frame(spop.NOTIFY, b"\xff", 1, 1) +
               frame(spop.NOTIFY, message("check", {"user": user}), 3, 1))
        assert c.ended() == 4
    assert agent.check(user=user)["remaining"] == 4


# --- fragments -------------------------------------------------------------------------------

def test_fragments_cut_everywhere(agent):
    user = someone()
    payload = message("check-f", {"user": user, "cost": 0, "x": "y" * 30})
    with agent.connect() as c:
        for cut in range(len(payload) + 1):
            key, frames = c.fragments(payload, [cut])
            c.send(b"".join(frames))
            assert c.wait(key)["remaining"] == 5, cut
        key, frames = c.fragments(payload, [1] * len(payload))
        c.send(b"".join(frames))
        assert c.wait(key)["remaining"] == 5
        key, frames = c.fragments(payload, [0, 10, 0, 0, 5])
        for piece in frames:
            c.send(piece)
        assert c.wait(key)["remaining"] == 5
        assert c.check(user=user)["remaining"] == 4


def test_a_notify_larger_than_one_frame(agent):
    user = someone()
    payload = message("check", {"x": "x" * 30000, "user": user})
    with agent.connect() as c:
        key, frames = c.fragments(payload, [16000, 8000])
        c.send(b"".join(frames))
        assert c.wait(key)["remaining"] == 4
        c.silent()


def test_a_notify_that_is_too_large_is_told_of(run):
    """Decided on its beginning; a client who can make an argument long could hide those behind it."""
    a = run(rules=RULES)
    user, late = someone(), someone()
    with a.connect() as c:
        for items in ({"user": user, "x": "x" * 70000}, {"x": "x" * 70000, "user": late}):
            key, frames = c.fragments(message("check", items), [16000] * 4)
            c.send(b"".join(frames))
            assert c.wait(key).get("remaining") == (4 if "user" in list(items)[0] else None)
    until(lambda: "notify_truncated" in a.stderr, "the line")
    line, = [x for x in a.stderr.splitlines() if "notify_truncated" in x]
    assert "peer=" in line and "bytes=65536" in line and "count as absent" in line, line
    assert user not in line and "xxx" not in line


def test_fragments_are_aborted(agent):
    user = someone()
    with agent.connect() as c:
        for _ in range(3):
            key = c.ids()
            c.send(frame(spop.NOTIFY, message("check", {"user": user})[:9], *key, flags=0))
            c.send(frame(spop.UNSET, b"", *key, flags=spop.FIN | spop.ABORT))
            assert c.check(user=user, cost=0)["remaining"] == 5
        c.silent()


def test_fragments_may_end_with_the_connection(agent):
    for _ in range(50):
        with agent.connect() as c:
            c.send(frame(spop.NOTIFY, message("check", {"x": "x" * 1000})[:500], 1, 1, flags=0))
    still_served(agent)


def test_a_malformed_notify_in_fragments(agent):
    with agent.connect() as c:
        _, frames = c.fragments(message("check", {"user": "u"}) + b"\x01", [4, 4])
        c.send(b"".join(frames))
        c.pending.clear()
        assert c.ended() == 4


@pytest.mark.parametrize("second, codes", [
    (frame(spop.NOTIFY, message("check"), 3, 1), {11}),
    (frame(spop.UNSET, b"", 3, 1), {11, 12}),
    (frame(spop.UNSET, b"", 1, 2), {11, 12}),
    (frame(spop.NOTIFY, message("check"), 1, 1), {11}),
], ids=["another NOTIFY", "another stream", "another frame", "the same ids anew"])
def test_interlaced_fragments(agent, second, codes):
    with agent.connect() as c:
        c.send(frame(spop.NOTIFY, message("check")[:3], 1, 1, flags=0) + second)
        assert c.ended() in codes


def test_a_fragment_of_nothing(agent):
    with agent.connect() as c:
        c.send(frame(spop.UNSET, b"", 1, 1))
        assert c.ended() in (4, 12)


def test_fragments_without_end_are_bounded_and_answered(agent):
    """Too much for any memory: yet one ACK, at its end, and the connection lives."""
    filler = b"x" * 16000
    payload = message("check", {"user": someone()}) + message("more", {"x": "x" * 16000})

    def resident():
        with open(f"/proc/{agent.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * resource.getpagesize()

    with agent.connect() as c:
        before = resident()
        key = c.expect((1, 1))
        c.send(frame(spop.NOTIFY, payload[:16000], *key, flags=0))
        for _ in range(4000):
            c.send(frame(spop.UNSET, filler, *key, flags=0))
        c.send(frame(spop.UNSET, filler, *key))
        c.wait(key)
        assert resident() - before < 32 << 20
        user = someone()
        assert c.check(user=user)["remaining"] == 4
        # The next one that is short enough is reassembled again.
        key, frames = c.fragments(message("check", {"user": user}), [7])
        c.send(b"".join(frames))
        assert c.wait(key)["remaining"] == 3
        c.silent()


# --- the end of a connection -----------------------------------------------------------------

@pytest.mark.parametrize("said", [
    spop.disconnect(), spop.disconnect(1, "I/O error"), spop.disconnect(2, "a timeout occurred"),
    spop.disconnect(200, "x" * 255),
    frame(spop.HAPROXY_DISCONNECT, spop.kv([("x", None), ("status-code", spop.typed(3, 0)),
                                            ("message", ""), ("y", b"\0")])),
], ids=["normal", "I/O error", "idle", "a free code", "unknown items"])
def test_a_disconnect_is_answered(agent, said):
    with agent.connect() as c:
        key = c.expect((1, 1))
        c.send(frame(spop.NOTIFY, message("check", {"user": someone()}), *key) + said)
        assert c.wait(key)["remaining"] == 4
        assert c.ended() == 0


def test_daily_goodbyes_are_no_warnings(run):
    """0, 1 and 2: a reload, the end of I/O, an idle timeout."""
    a = run(rules=RULES)
    for said in (spop.disconnect(), spop.disconnect(1, "I/O error"),
                 spop.disconnect(2, "a timeout occurred"), spop.disconnect(4, "invalid frame")):
        with a.connect() as c:
            c.send(said)
            assert c.ended() == 0
    until(lambda: "haproxy_disconnect" in a.stderr, "the one that is none")
    assert ["status=4" in x for x in a.lines() if "haproxy_disconnect" in x] == [True]


def test_resets_are_normal(agent):
    before = len(agent.lines())
    for _ in range(200):
        with agent.connect() as c:
            c.notify(message("check", {"user": someone()}))
            c.reset()
    still_served(agent)
    assert not [x for x in agent.lines()[before:] if "error" in x.lower() or "warn" in x.lower()]


def test_half_closed_by_the_peer(agent):
    with agent.connect() as c:
        key = c.notify(message("check", {"user": someone()}))
        c.sock.shutdown(socket.SHUT_WR)
        try:
            assert c.wait(key)["remaining"] == 4
            assert c.ended() in (None, 0, 1)
        except Closed:
            pass
    still_served(agent)


# --- garbage ---------------------------------------------------------------------------------

@pytest.mark.parametrize("greet", [False, True])
@pytest.mark.parametrize("garbage, code", [
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 3), (b"\xff" * 100, 3), (b"\0" * 100, 4),
    (b"\x7f\xff\xff\xff", 3), (b"\x80\0\0\0", 3), (b"\x16\x03\x01\x02\0\x01", 3),
], ids=["http", "ff", "00", "2^31-1", "2^31", "tls"])
def test_garbage(agent, garbage, code, greet):
    with agent.connect(greet=greet) as c:
        c.send(garbage)
        assert c.ended() == code
    still_served(agent)


def test_random_bytes(agent):
    rng = random.Random(1)
    for _ in range(150):
        with agent.connect(greet=rng.random() < .5) as c:
            try:
                c.send(rng.randbytes(rng.randint(1, 3000)))
                c.sock.shutdown(socket.SHUT_WR)
                c.ended()
            except (spop.Closed, ConnectionError):
                pass
    still_served(agent)


def test_damaged_frames(agent):
    """Good frames with a few bytes changed: answered or refused, never worse."""
    rng = random.Random(2)
    for _ in range(300):
        data = bytearray(spop.hello() + spop.NOTIFY_CAPTURED +
                         frame(spop.NOTIFY, message("check", {"ip": spop.ip("192.0.2.1")}), 3, 1))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with agent.connect(greet=False) as c:
            try:
                c.send(data)
                c.sock.shutdown(socket.SHUT_WR)
                while True:
                    c.read()
            except (Closed, Disconnected, ConnectionError):
                pass
    still_served(agent)


# --- slow peers, deaf peers, many peers ------------------------------------------------------

def test_byte_by_byte(agent):
    data = spop.hello() + b"".join(
        frame(spop.NOTIFY, message("check", {"user": f"slow-{i}"}), 2 * i + 1, 1) for i in range(3))
    with agent.connect(greet=False) as c:
        keys = [c.expect((2 * i + 1, 1)) for i in range(3)]
        for b in data:
            c.send(bytes([b]))
        c.greeted()
        for key in keys:
            assert c.wait(key)["remaining"] == 4


def test_frames_in_pieces_of_any_size(agent):
    rng = random.Random(3)
    with agent.connect() as c:
        keys = [c.expect(c.ids()) for _ in range(300)]
        data = b"".join(frame(spop.NOTIFY, message("check", {"ip": spop.ip("192.0.2.9"),
                                                            "x": "x" * rng.randint(0, 900)}), *key)
                        for key in keys)
        while data:
            n = rng.randint(1, 2000)
            c.send(data[:n])
            data = data[n:]
        for key in keys:
            assert c.wait(key)["reason"] == "ok"


def test_a_peer_that_never_reads(agent):
    """It is not read any further, or dropped; its neighbours do not notice."""
    deaf = agent.connect()
    deaf.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.sock.setblocking(False)
    data = b"".join(frame(spop.NOTIFY, message("check", {"user": "deaf"}), i, 1)
                    for i in range(2000))
    sent = 0
    at = 0
    quiet = 0
    while sent < 64 << 20 and quiet < 3:
        try:
            n = deaf.sock.send(data[at:])
            sent += n
            at = (at + n) % len(data)
            quiet = 0
        except BlockingIOError:
            # The neighbour is served for as long as it takes to be sure that it stays full.
            for _ in range(50):
                agent.check(ip=spop.ip("192.0.2.77"))
            quiet += 1
        except ConnectionError:
            break
    assert sent < 64 << 20, "everything is taken from a peer that never reads"
    still_served(agent)
    deaf.close()
    still_served(agent)


@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_a_peer_that_asks_on_and_never_reads_is_left(run, tmp_path, where):
    """As HAProxy 3.1 and newer, which would go on so for ever; it announces no async."""
    at = f"127.0.0.1:{free_port()}" if where == "tcp" else None
    a = run(rules=RULES, listen=at)
    # Not more than the sockets hold until then: who cannot ask any more is waited for longer.
    asked = b"".join(frame(spop.NOTIFY, message("check", {"user": "deaf"}), i, 1) for i in range(8))
    with a.connect(capabilities="pipelining") as deaf, a.connect(capabilities="pipelining") as c:
        def left():
            try:
                deaf.sock.sendall(asked)
            except OSError:
                return True
            assert c.check(user=someone())["deny"] is False
            time.sleep(0.05)
            return False
        until(left, "the deaf one to be left")
        assert c.check(user=someone())["deny"] is False
    assert "max-reuse 24" in a.stderr


def test_a_peer_that_reads_late_gets_every_answer(agent):
    with agent.connect() as c:
        keys = [c.expect(c.ids()) for _ in range(8000)]
        data = b"".join(frame(spop.NOTIFY, message("check", {"ip": spop.ip("192.0.2.78")}), *key)
                        for key in keys)
        sender = threading.Thread(target=c.sock.sendall, args=(data,))
        sender.start()
        for _ in range(20):
            agent.check(ip=spop.ip("192.0.2.79"))
        for key in keys:
            assert c.wait(key)["reason"] == "ok"
        sender.join()
        c.silent()


def test_silent_connections_do_no_harm(agent):
    silent = [spop.dial(agent.address) for _ in range(200)]
    half = [spop.dial(agent.address) for _ in range(50)]
    for s in half:
        s.sendall(spop.hello()[:20])
    still_served(agent)
    for s in silent + half:
        s.close()


def test_thousands_of_connections_at_once(run):
    a = run(rules=RULES, agent="max_connections = 4000; threads = 2;")
    connections = []
    try:
        for i in range(2500):
            connections.append(a.connect(greet=False))
            connections[-1].send(spop.hello())
        for c in connections:
            c.greeted()
        keys = [c.notify(message("check", {"user": f"u{i % 500}"}))
                for i, c in enumerate(connections)]
        answers = [c.wait(key) for c, key in zip(connections, keys)]
        # 500 users, five requests each, five allowed.
        assert all(answer["reason"] == "ok" for answer in answers)
        assert all(c.check(user=f"u{i % 500}")["reason"] == "limited"
                   for i, c in enumerate(connections[:500]))
    finally:
        for c in connections:
            c.close()
    still_served(a)


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_out_of_file_descriptors(run):
    """accept() fails: no spinning, no flood of messages, and it recovers."""
    a = run(rules=RULES, agent="max_connections = 16;",
            preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    kept = a.connect()
    assert kept.check(user="kept")["remaining"] == 4
    # The limit is lowered under the agent's feet, as no start could foresee.
    used = len(os.listdir(f"/proc/{a.pid}/fd"))
    resource.prlimit(a.pid, resource.RLIMIT_NOFILE, (used + 3, 64))
    before = len(a.lines())
    crowd = []
    for _ in range(12):
        s = spop.dial(a.address)
        crowd.append(s)
        try:
            s.sendall(spop.hello())
        except ConnectionError:
            pass # turned away already
    assert kept.check(user="kept")["remaining"] == 3
    began, ticks = time.monotonic(), cpu_ticks(a.pid)
    until(lambda: time.monotonic() - began > 0.5)
    busy = (cpu_ticks(a.pid) - ticks) / os.sysconf("SC_CLK_TCK")
    assert busy < 0.5 * (time.monotonic() - began), "it spins"
    assert kept.check(user="kept")["remaining"] == 2
    assert len(a.lines()) - before < 50, a.stderr
    for s in crowd:
        s.close()

    def recovered():
        try:
            with a.connect(bound=2) as c:
                return c.check(user=someone())["reason"] == "ok"
        except (TimeoutError, Closed, Disconnected, ConnectionError):
            return False
    until(recovered, "new connections to be served again")
    assert kept.check(user="kept")["remaining"] == 1
    kept.close()


def test_descriptors_for_max_connections(run):
    """The soft limit follows max_connections, at the start and at a reload."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    a = run(rules=RULES, agent="max_connections = 200;",
            preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard)))
    assert resource.prlimit(a.pid, resource.RLIMIT_NOFILE)[0] >= 200
    a.rewrite(RULES, agent="max_connections = 500;")
    a.reload(lambda: resource.prlimit(a.pid, resource.RLIMIT_NOFILE)[0] >= 500)


def test_max_connections(run):
    a = run(rules=RULES, agent="max_connections = 3;")

    def greeted():
        try:
            return a.connect(bound=1)
        except (TimeoutError, Closed, Disconnected, ConnectionError):
            return None
    served = []

    def fill():
        # The connection that found the agent ready may not be gone yet.
        c = greeted()
        if c:
            served.append(c)
        return len(served) == 3
    until(fill)
    with pytest.raises(Disconnected) as e, Connection(a.address):
        pass
    assert e.value.code == 13
    # HAProxy must not take it for DOWN: it serves all the others.
    assert all(spop.health_check(a.address) for _ in range(20))
    # Nor does who says no HELLO there keep its checks out for long.
    with contextlib.ExitStack() as mute:
        for _ in range(100):
            mute.enter_context(spop.dial(a.address))
        for c in served:
            assert c.check(user=someone())["remaining"] == 4
        until(lambda: spop.health_check(a.address), "a check to be answered")
    served.pop().close()
    served.append(until(greeted, "the place that became free"))
    for c in served:
        assert c.check(user=someone())["remaining"] == 4
        c.close()


def test_who_is_idle_makes_room_for_who_comes(run):
    """HAProxy up to 3.0 keeps what its bursts have opened, and another one would find no place."""
    a = run(rules=RULES, agent="max_connections = 3;")
    served = []

    def greeted():
        try:
            served.append(a.connect(bound=5))
            return True
        except (TimeoutError, Closed, Disconnected, ConnectionError):
            return False
    for _ in range(3):
        until(greeted)
    busy = served[-1]

    def finds_room():
        assert busy.check(user=someone())["remaining"] == 4     # who asks is left alone
        return greeted()
    until(finds_room, "a place")
    assert "connections_crowded" in a.stderr
    assert served[-1].check(user=someone())["remaining"] == 4
    assert busy.check(user=someone())["remaining"] == 4
    with pytest.raises((Closed, Disconnected, ConnectionError)):
        served[0].check(user=someone())
    for c in served:
        c.close()


# --- listeners -------------------------------------------------------------------------------

def refused(address, source=None):
    try:
        with Connection(address, bound=3, source=source):
            return False
    except (Closed, Disconnected, ConnectionError):
        return True


def test_allow_from(run, tmp_path):
    port = free_port()
    path = str(tmp_path / "l.sock")
    a = run(rules=RULES, listen=[f"127.0.0.1:{port}", path],
            agent='allow_from = [ "127.0.0.2", "127.0.1.0/24", "::1/128" ];')
    at = ("127.0.0.1", port)
    for source, served in (("127.0.0.1", False), ("127.0.0.2", True), ("127.0.0.3", False),
                           ("127.0.1.1", True), ("127.0.1.255", True), ("127.0.2.0", False)):
        assert refused(at, (source, 0)) is not served, source
    with a.connect(source=("127.0.0.2", 0)) as c:
        assert c.check(user="u")["remaining"] == 4
    with Connection(path) as c:     # which has its mode and owner for this
        assert c.check(user="u")["remaining"] == 3


def test_several_listeners(run, tmp_path):
    ports = [free_port(), free_port()]
    path = str(tmp_path / "l.sock")
    listen = [f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", path]
    addresses = [("127.0.0.1", ports[0]), ("127.0.0.1", ports[1]), path]
    if has_ipv6():
        port = free_port("::1")
        listen.append(f"[::1]:{port}")
        addresses.append(("::1", port))
    run(rules=RULES, listen=listen)
    for left, address in zip((4, 3, 2, 1), addresses):
        assert spop.health_check(address)
        with Connection(address) as c:
            assert c.check(user="u")["remaining"] == left


@pytest.mark.parametrize("setting, mode", [("", 0o660), ('socket_mode = "0600";', 0o600),
                                           ('socket_mode = "0666";', 0o666)])
def test_the_mode_of_a_unix_socket(run, setting, mode):
    a = run(rules=RULES, agent=setting, preexec=lambda: os.umask(0o077))
    assert stat.S_IMODE(os.stat(a.listen).st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_the_owner_of_a_unix_socket(run):
    nobody = pwd.getpwnam("nobody")
    group = grp.getgrgid(nobody.pw_gid).gr_name
    for i, (owner, its_group, wanted) in enumerate((("nobody", group, (nobody.pw_uid, nobody.pw_gid)),
                                                    ("54321", "54322", (54321, 54322)))):
        a = run(rules=RULES, name=f"a{i}", agent=f'socket_owner = "{owner}"; socket_group = "{its_group}";')
        found = os.stat(a.listen)
        assert (found.st_uid, found.st_gid) == wanted
        assert stat.S_IMODE(found.st_mode) == 0o660


def test_a_socket_file_goes_with_its_agent(run, tmp_path):
    path = str(tmp_path / "its.sock")
    a = run(rules=RULES, listen=path)
    assert a.stop() == 0
    assert not os.path.exists(path)
    a.start()
    os.rename(path, path + ".old")
    b = run(rules=RULES, listen=path, name="b")
    assert a.stop() == 0
    assert b.check(user="u")["remaining"] == 4
    assert not refused(path), "the file of another agent was taken away"


def test_a_stale_socket_file_is_replaced(run, tmp_path):
    path = str(tmp_path / "stale.sock")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
    a = run(rules=RULES, listen=path)
    assert a.check(user="u")["remaining"] == 4
    a.forget()
    a.kill()
    assert os.path.exists(path)
    b = run(rules=RULES, listen=path)
    assert b.check(user="u")["remaining"] == 4


def test_a_socket_in_use_is_not_taken_away(run, tmp_path):
    a = run(rules=RULES)
    b = run(rules=RULES, listen=a.listen, ready=False)
    assert b.wait() == 2
    assert a.listen in b.stderr
    still_served(a)


def test_a_file_that_is_no_socket_is_left_alone(run, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    a = run(rules=RULES, listen=str(path), ready=False)
    assert a.wait() == 2
    assert f"{path}: a file is there that is no socket" in a.stderr
    assert path.read_text() == "data"


def test_a_port_in_use(run):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        a = run(rules=RULES, listen=f"127.0.0.1:{port}", ready=False)
        assert a.wait() == 2
        assert f"127.0.0.1:{port}" in a.stderr


# --- what goes out ---------------------------------------------------------------------------

def test_line_breaks_never_go_out(run):
    """Whatever the client says: the strings of an answer cannot break a header."""
    a = run(rules="""{ name = "r"; per = [ "evil" ]; rate = "1/day"; }""")
    evil = ["a\r\nSet-Cookie: x=1", "a\nb", "a\rb", "a\0b", "\r\n\r\n", "\0", "a\u2028b\x85"]
    for text in evil:
        for v in (text, text.encode()):
            for name in ("tier", "user", "key", "host", "path", "method", "message", "ip"):
                a.check([(name, v), ("evil", v)])
                a.check([(name, v), ("evil", v), ("tier", v)])
    # The strictness is spop.py's: no answer above had CR, LF or NUL.
    assert a.check(tier="gold\r\nx", evil="e")["tier"].startswith("gold")


def test_the_same_address_in_every_type(run):
    a = run(rules="""{ name = "r"; per = [ "ip" ]; rate = "20/day"; }""")
    same = [spop.ip("192.0.2.1"), "192.0.2.1", spop.ip("::ffff:192.0.2.1"), "::ffff:192.0.2.1",
            "::ffff:c000:201", bytes([192, 0, 2, 1]),
            ipaddress.ip_address("::ffff:192.0.2.1").packed,
            "::FFFF:192.0.2.1"]
    for left, v in zip(range(19, 0, -1), same):
        assert a.check(ip=v)["remaining"] == left, v
    v6 = [spop.ip("2001:db8::1"), "2001:db8::1", "2001:DB8:0:0::0.0.0.1",
          ipaddress.ip_address("2001:db8::1").packed]
    for left, v in zip(range(19, 0, -1), v6):
        assert a.check(ip=v)["remaining"] == left, v
