"""Sentences of the contract that mean something of their own where the store is Redis, and that no
other test would see broken."""

import re
import time

import pytest

import redisd
from agent import check_file, config, free_port, until
from redisd import admitted, hammer
from spop import message
from test_limits import DAY, EVERY, near, not_at_midnight, rule, rules  # noqa: F401
from wall import Wall

LONG = "300d"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    s = redisd.Server(tmp_path_factory.mktemp("c"))
    try:
        yield s.start()
    finally:
        s.finish()


@pytest.fixture
def redis(server):
    server("FLUSHALL")
    yield server


@pytest.fixture
def wire(redis, ends):
    return ends(redisd.Proxy(redis.address))


def nowhere(on_failure="local", **more):
    return redisd.group(f"127.0.0.1:{free_port()}", on_failure=on_failure, timeout="50ms", **more)


def script_calls(redis):
    return redis.calls().get("evalsha", 0)


# --- section 3: what it answers ----------------------------------------------------------------

@pytest.mark.parametrize("top, args, reason", [
    ("enabled = false;", {"user": "u"}, "disabled"),
    ('block = ( { user = "u"; } );', {"user": "u"}, "blocked"),
    ('allow = ( { user = "u"; } );', {"user": "u"}, "bypassed"),
    ("", {"nothing": "counted"}, "ok"),
    ("", {"user": "u", "cost": 6}, "oversize"),
], ids=lambda x: x if isinstance(x, str) and x.isalpha() and len(x) > 1 else "")
def test_what_needs_no_counter_writes_none(run, redis, top, args, reason):
    """And costs Redis at most the looking, for what is left."""
    before = script_calls(redis)
    a = run(rules=rule(), top=redis.group() + top, agent="threads = 1;")
    # A worker tries the script once, as it connects.
    until(lambda: script_calls(redis) == before + 1, "Redis")
    for _ in range(5):
        assert a.check(args)["reason"] == reason
    assert redis.keys() == []
    if reason != "oversize":
        assert script_calls(redis) == before + 1


def test_what_is_told_of_a_limit_is_of_all_agents_together(run, redis):
    """limit, remaining, reset, warn and the fields of the draft: what the other one admitted counts."""
    one, two = (run(rules=rule(rate="100/hour burst 10", warn_at="0.8"), top=redis.group(),
                    agent=EVERY) for _ in range(2))
    for used in range(1, 11):
        answer = (one, two)[used % 2].check(user="u")
        assert (answer["limit"], answer["remaining"], answer["warn"]) == (10, 10 - used, used > 8)
        assert near(answer["reset"], 36 * used) and answer["policy"] == '"r";q=10;w=360'
        assert answer["ratelimit"] == f'"r";r={10 - used};t={answer["reset"]}'
    for a in (one, two):
        answer = a.check(user="u")
        assert (answer["deny"], answer["reason"], answer["remaining"]) == (True, "limited", 0)
        assert 1 <= answer["retry_after"] <= 36


def test_a_denied_request_consumes_nothing_anywhere(run, redis):
    """All or nothing, also for a request whose limits were used up by different agents."""
    text = rules(rule("a", per='[ "a" ]', rate=f"3/{LONG}"),
                 rule("b", per='[ "b" ]', rate=f"9/{LONG}", algorithm='"sliding-window"'),
                 rule("c", per='[ "c" ]', rate=f"9/{LONG}", algorithm='"fixed-window"'))
    one, two = (run(rules=text, top=redis.group()) for _ in range(2))
    for _ in range(3):
        assert one.check(a="1")["reason"] == "ok"
    for _ in range(4):
        answer = two.check(a="1", b="1", c="1")
        assert (answer["deny"], answer["rule"]) == (True, "a")
    assert [two.check({f: "1"}, cost=0)["remaining"] for f in "bc"] == [9, 9]
    assert len(redis.keys()) == 1


# --- section 4: on_failure ----------------------------------------------------------------------

def test_the_share_of_a_burst(run):
    """Each limit / instances, rounded down: how many at once, and how fast they come back."""
    a = run(rules=rule(rate="30/day burst 16"), top=nowhere(instances=4), agent=EVERY)
    for left in (3, 2, 1, 0):
        answer = a.check(user="u")
        assert (answer["reason"], answer["limit"], answer["remaining"]) == ("degraded", 4, left)
    answer = a.check(user="u")
    # 30 / 4 is 7 a day.
    assert answer["reason"] == "limited" and near(answer["retry_after"], DAY / 7 + 1)


def test_the_share_of_each_limit(run):
    """Of a rule with several, and of several rules: each its own share."""
    a = run(rules=rules(rule("two", rate=f'[ "9/{LONG}", "20/365d" ]', algorithm='"fixed-window"'),
                        rule("all", per="[]", rate=f"7/{LONG}")), top=nowhere(instances=2))
    answers = [a.check(user="u") for _ in range(6)]
    assert [x["deny"] for x in answers] == [False] * 3 + [True] * 3
    assert {x["rule"] for x in answers} == {"all"}
    assert a.check(user="u", cost=0)["limit"] == 3


def test_count_denied_while_redis_is_away(run):
    a = run(rules=rule(rate=f"20/{LONG}", count_denied="true"), top=nowhere(instances=2))
    assert a.check(user="u", cost=7)["remaining"] == 3
    answer = a.check(user="u", cost=5)
    assert (answer["reason"], answer["remaining"]) == ("limited", 0), "charged with what was there"


def test_shadow_and_tag_while_redis_is_away(run):
    a = run(rules=rules(rule("dark", rate=f"2/{LONG}", mode='"shadow"'),
                        rule("slow", rate=f"3/{LONG}", action='"tag"', tag='"t"'),
                        rule("real", rate=f"9/{LONG}")), top=nowhere())
    got = [a.check(user="u") for _ in range(5)]
    assert {x["reason"] for x in got} == {"degraded"}
    assert [x["shadow"] for x in got] == ["", ""] + ["dark"] * 3
    assert [x["tag"] for x in got] == ["", "", ""] + ["t"] * 2


def test_what_stands_in_is_bounded_and_denies_nobody_for_want_of_room(run):
    """max_keys holds for the part in memory, too; one at its limit is not let go."""
    a = run(rules=rule(rate=f"100/{LONG}"),
            top=nowhere().replace('backend = "redis";', 'backend = "redis"; max_keys = 2000;'))
    assert a.check(user="heavy", cost=100)["remaining"] == 0
    answers = hammer([a], lambda n: [message("check", {"user": f"light-{n}-{i}"})
                                     for i in range(4000)], 2, settle=False)
    assert admitted(answers) == 8000 and {x["remaining"] for x in answers} == {99}
    assert a.check(user="heavy")["reason"] == "limited", "pushed out, though at its limit"
    until(lambda: "max_keys" in a.stderr, "a warning")


# --- section 4: reload, restart, state ----------------------------------------------------------

def test_what_of_redis_follows_a_reload(run, redis, wire):
    """The policy, the number of agents, and the deadline, also for a connection that is there."""
    def top(**more):
        return redisd.group(wire.address, **more)
    a = run(rules=rule(rate=f"100/{LONG}"), top=top(timeout="5s", on_failure="closed"))
    redisd.settled(a)
    wire.set("pass", 0.4)
    assert a.check(user="u")["reason"] == "ok", "0.4 s of 5"
    a.rewrite(rule(rate=f"101/{LONG}"), top=top(timeout="50ms", on_failure="closed"))
    a.reload(lambda: a.check(user="u", cost=0)["reason"] == "degraded", "the new deadline")
    assert a.check(user="u")["deny"] is True
    a.rewrite(rule(rate=f"101/{LONG}"), top=top(timeout="50ms", on_failure="open"))
    a.reload(lambda: not a.check(user="u")["deny"], "the new policy")
    a.rewrite(rule(rate=f"101/{LONG}"), top=top(timeout="50ms", instances=3))
    a.reload(lambda: a.check(user="u", cost=0).get("limit") == 33, "a third of it")
    a.rewrite(rule(rate=f"101/{LONG}"), top=top(timeout="5s"))
    wire.set("pass")
    a.reload(lambda: a.check(user="u", cost=0)["reason"] == "ok", "Redis")


@pytest.mark.parametrize("changed", [
    {"servers": "127.0.0.1:1"}, {"mode": "sentinel"}, {"master": "other"}, {"user": "other"},
    {"password": "other-Pw-3"}], ids=lambda c: next(iter(c)))
def test_where_it_is_reached_cannot_change(run, redis, changed):
    """Refused as a whole, and said so, without the secret."""
    a = run(rules=rule(), top=redis.group())
    a.check(user="u")
    a.rewrite(rule(rate='"7/day"'), top=redisd.group(**{"servers": f"127.0.0.1:{redis.port}",
                                                       **changed}))
    a.reload(lambda: "reload_refused" in a.stderr, "a refusal")
    refused = next(x for x in a.lines() if "reload_refused" in x)
    name = {"user": "username"}.get(*changed, next(iter(changed)))
    assert f"redis.{name}" in refused and "other-Pw-3" not in a.stderr
    answer = a.check(user="u")
    assert (answer["limit"], answer["remaining"]) == (5, 3)


def test_a_state_file_is_not_for_redis(run, redis, tmp_path):
    """A warning says so, and what stands in for Redis is not written."""
    state = tmp_path / "state"
    top = redis.group().replace('backend = "redis";', f'backend = "redis"; state_file = "{state}";')
    path = tmp_path / "state.cfg"
    path.write_text(config("127.0.0.1:9600", rule(), top=top))
    said = check_file(path)
    assert said.status == 0 and re.search(r"warning.*state_file", said.stderr), said
    a = run(rules=rule(), top=top)
    a.check(user="u")
    a.stop()
    assert not state.exists() or state.stat().st_size == 0


def test_an_agent_that_was_away_knows_nothing_better(run, redis):
    """What Redis has counts, also against what an agent remembers from before."""
    one, two = (run(rules=rule(rate=f"50/{LONG}"), top=redis.group()) for _ in range(2))
    for _ in range(10):
        one.check(user="u")
    for _ in range(30):
        two.check(user="u")
    assert one.check(user="u")["remaining"] == 9
    redis("FLUSHALL")
    assert one.check(user="u")["remaining"] == 49


@pytest.mark.parametrize("algorithm", ["token-bucket", "sliding-window", "fixed-window"])
def test_it_refills_by_the_servers_clock(run, redis, algorithm):
    """Two agents see it at the same moment, and only as much as the time is worth."""
    one, two = (run(rules=rule(rate="10/4s", algorithm=f'"{algorithm}"'), top=redis.group())
                for _ in range(2))
    began = time.monotonic()
    passed = 0
    while time.monotonic() - began < 6:
        for a in (one, two):
            passed += not a.check(user="u")["deny"]
        time.sleep(0.02)
    took = time.monotonic() - began
    windows = int(took / 4) + 2     # that this may have touched
    most = {"token-bucket": 10 + 10 * took / 4 + 1, "fixed-window": 10 * windows,
            "sliding-window": 10 * windows}[algorithm]
    # Of a sliding window that begins with the test: all 10, and in its successor's first 2 s what is below 5.
    least = {"token-bucket": 20, "fixed-window": 20, "sliding-window": 14}[algorithm]
    assert least <= passed <= most


# --- section 4: the clock is the server's -------------------------------------------------------

@pytest.fixture
def clocked(tmp_path, ends):
    """clocked(days): one and the same Redis, with its data, by a clock that is so far ahead."""
    wall = Wall(tmp_path)
    server = redisd.Server(tmp_path, "clocked", persist=True)

    def at(days):
        if server.running:
            server.kill()
        wall.ahead(days * DAY)
        server.env = wall.env
        server.start()
        seconds, _ = server("TIME")
        assert abs(int(seconds) - days * DAY - time.time()) < 60, "its clock is not the one it was given"
        return server
    ends(server)
    return at


THREE = rules(*(rule(x, per=f'[ "{x}" ]', rate="10/day", algorithm=f'"{x}"')
                for x in ("token-bucket", "sliding-window", "fixed-window")))
ALGORITHMS = ("token-bucket", "sliding-window", "fixed-window")


def test_windows_are_those_of_the_server(run, clocked):
    redis = clocked(40.25)
    a = run(rules=THREE, top=redis.group(), agent=EVERY)
    seconds, _ = redis("TIME")
    answer = a.check({"fixed-window": "u"})
    assert answer["reset_at"] == int(seconds) // DAY * DAY + DAY
    assert 0 < answer["reset"] <= DAY
    answer = a.check({"token-bucket": "u"}, cost=10)
    assert abs(answer["reset_at"] - int(seconds) - DAY) <= 60 and near(answer["reset"], DAY)


@pytest.mark.parametrize("days", [0.001, 1.5, 40])
def test_a_failover_to_a_slower_clock(run, clocked, days):
    """What lies in the future is read as now: nobody gets anything anew, nor waits for longer."""
    redis = clocked(days)
    a = run(rules=THREE, top=redis.group(on_failure="closed"))
    redisd.settled(a)
    for x in ALGORITHMS:
        assert a.check({x: "spent"}, cost=10)["remaining"] == 0
        assert a.check({x: "half"}, cost=5)["remaining"] == 5
    a.stop()
    clocked(0)
    b = run(rules=THREE, top=redis.group(on_failure="closed"))
    until(lambda: b.check({"token-bucket": "other"}, cost=0)["reason"] == "ok", "Redis")
    for x in ALGORITHMS:
        answer = b.check({x: "spent"})
        assert (answer["deny"], answer["reason"]) == (True, "limited"), x
        assert answer["retry_after"] <= {"token-bucket": DAY / 10 + 1}.get(x, 2 * DAY)
        assert answer["reset"] <= 2 * DAY
        assert b.check({x: "half"})["remaining"] == 4, x
    for key in redis.keys():
        # As long as it would have lived there, by a clock that is behind.
        assert 0 < redis("PTTL", key) <= (2 + days) * DAY * 1000
