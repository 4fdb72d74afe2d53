"""Leases: agents that take units ahead admit together never more than the limit, and at least all but
what they may hold; what they do not spend comes back, or comes free."""

import re
import signal
import struct
import threading
import time

import pytest

import redisd
from agent import until
from redisd import admitted, hammer
from spop import Closed, message
from test_limits import rule, rules

# Long enough that nothing refills, and no window ends, while a test runs.
LONG = "300d"
LIMIT, LEASE = 3000, 0.1


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    s = redisd.Server(tmp_path_factory.mktemp("r"))
    try:
        yield s.start()
    finally:
        s.finish()


@pytest.fixture
def redis(server):
    """A Redis that is up, empty, and at the test's end was asked nothing but what the agent may."""
    if server.stopped:
        server.resume()
    server("FLUSHALL")
    server("ACL", "LOG", "RESET")
    yield server
    assert server.denied() == [], "beyond the ACL"


def leased(name="r", rate=f"{LIMIT}/{LONG}", lease=LEASE, **more):
    return rule(name, rate=rate, lease=str(lease), **more)


def asked(n, **fields):
    return [message("check", {"user": "u", **fields})] * n


def value(redis):
    """The one bucket that is there, as (used, units out)."""
    (key,) = redis.keys()
    v = redis("GET", key)
    fresh, stale = struct.unpack_from("<II", v, 16)
    return struct.unpack("<d", v[:8])[0], fresh + stale


def window(redis):
    """Of a window: what was counted in it."""
    (key,) = redis.keys()
    v = redis("GET", key)
    assert len(v) == 28
    return struct.unpack("<I", v[:4])[0]


def stopped(agent):
    """The totals that it leaves in its log as it ends."""
    assert agent.stop() == 0
    totals = re.findall(r"redis_(\w+)=(\d+)", agent.stderr)
    return {k: int(v) for k, v in totals}


# --- never more, and not much less -----------------------------------------------------------

@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("algorithm", ["token-bucket", "fixed-window", "sliding-window"])
def test_agents_admit_together_nearly_the_limit(run, redis, algorithm, count):
    text = leased(algorithm=f'"{algorithm}"')
    some = [run(rules=text, top=redis.group()) for _ in range(count)]
    for a in some:
        redisd.settled(a)
    answers = hammer(some, lambda n: asked(6000 // (3 * count)))
    assert len(answers) == 6000
    assert LIMIT - count * LEASE * LIMIT <= admitted(answers) <= LIMIT
    assert {a["reason"] for a in answers} == {"ok", "limited"}
    totals = [stopped(a) for a in some]
    assert sum(t["lease_blocks"] for t in totals) > 0, "nobody took a block"
    assert sum(t["lease_spent"] for t in totals) > LIMIT / 4


def test_what_one_holds_the_others_do_not_have(run, redis):
    """All of it asked for twice, a second apart: what went back in between was had after."""
    some = [run(rules=leased(), top=redis.group()) for _ in range(2)]
    for a in some:
        redisd.settled(a)
    answers = hammer(some, lambda n: asked(400))
    until(lambda: value(redis) == (pytest.approx(admitted(answers), abs=0.01), 0),
          "blocks to come back")
    answers += hammer(some, lambda n: asked(400))
    assert LIMIT - 2 * LEASE * LIMIT <= admitted(answers) <= LIMIT


def test_with_a_rule_that_asks_each_time(run, redis):
    """Who is denied by a rule without a lease has spent nothing of one with."""
    text = rules(leased("ahead", rate=f"100000/{LONG}", algorithm='"fixed-window"'),
                 rule("exact", per='[ "x" ]', rate=f"1000/{LONG}"))
    a = redisd.settled(run(rules=text, top=redis.group()))
    answers = hammer([a], lambda n: asked(800, x="x"))
    assert admitted(answers) == 1000
    assert {x["rule"] for x in answers if x["deny"]} == {"exact"}
    totals = stopped(a)
    assert totals["lease_spent"] >= 300, totals
    lost = totals["lease_dropped"]
    there = {struct.unpack("<I", redis("GET", k)[:4])[0] for k in redis.keys()
             if struct.unpack("<q", redis("GET", k)[8:16])[0] % 1000000 == 0}
    assert any(1000 <= n <= 1000 + lost for n in there), (there, totals)


def test_shadow_and_tag(run, redis):
    text = rules(leased("dark", rate=f"1000/{LONG}", mode='"shadow"'),
                 leased("slow", rate=f"600/{LONG}", action='"tag"', tag='"t"'))
    a = redisd.settled(run(rules=text, top=redis.group()))
    answers = hammer([a], lambda n: asked(600))
    assert admitted(answers) == 1800, "neither denies"
    dark = sum(x["shadow"] == "dark" for x in answers)
    tagged = sum(x["tag"] == "t" for x in answers)
    assert 800 <= dark <= 800 + 100 and 1200 <= tagged <= 1200 + 60


@pytest.mark.parametrize("delay", [0, 0.02], ids=["near", "far"])
def test_costs_and_what_is_left(run, redis, ends, delay):
    top = redis.group()
    if delay:
        wire = ends(redisd.Proxy(redis.address))
        wire.set("pass", delay)
        top = redisd.group(wire.address)
    a = redisd.settled(run(rules=leased(rate=f"100000/{LONG}"), top=top, agent="threads = 1;"))
    with a.connect() as c:
        answers = c.batch([message("check", {"user": "u", "cost": 3})] * 1000, 1)
        assert all(not x["deny"] and x["limit"] == 100000 for x in answers)
        # One connection, one after the other: each sees its own and those before, and of a block that
        # is just on its way that it is taken.
        exact = [100000 - 3 * (i + 1) for i in range(1000)]
        got = [x["remaining"] for x in answers]
        assert all(e - LEASE * 100000 <= g <= e for g, e in zip(got, exact))
        # It asks, and nothing is spent.
        until(lambda: c.check(user="u", cost=0)["remaining"] == 97000, "what is left")
        assert c.check(user="u", cost=100001)["reason"] == "oversize"
    spent = stopped(a)["lease_spent"]
    assert spent > 2000
    # How many were spent from a block depends on how fast they came; each of these was exact.
    assert sum(g == e for g, e in zip(got, exact)) >= spent / 3


def test_agents_that_are_killed_and_stopped(run, redis):
    """Whatever happens to some, all together never admit more; what is lost is at most what they
    held."""
    some = [run(rules=leased(rate=f"20000/{LONG}"), top=redis.group()) for _ in range(4)]
    for a in some:
        redisd.settled(a)
    passed = []

    def one(agent):
        try:
            with agent.connect() as c:
                for _ in range(400):
                    passed.append(admitted(c.batch(asked(25), 25)))
        except (Closed, ConnectionError, AssertionError):
            assert agent.killed
    threads = [threading.Thread(target=one, args=(a,)) for a in some for _ in range(2)]
    for t in threads:
        t.start()
    until(lambda: sum(passed) > 2000, "some requests")
    some[0].kill()
    some[1].send_signal(signal.SIGSTOP)
    until(lambda: sum(passed) > 5000, "more requests")
    some[2].kill()
    some[1].send_signal(signal.SIGCONT)
    for t in threads:
        t.join(60)
    passed.append(admitted(hammer([some[1], some[3]], lambda n: asked(3000))))
    # Answers to 50 requests may have been on their way from each that was killed.
    assert 20000 - 4 * LEASE * 20000 - 100 <= sum(passed) <= 20000


def test_a_cluster(run, tmp_path):
    c = redisd.Cluster(tmp_path)
    try:
        c.start()
        text = rules(leased("user"), leased("all", per="[]", rate=f"{2 * LIMIT}/{LONG}"))
        some = [run(rules=text, top=c.group()) for _ in range(2)]
        for a in some:
            redisd.settled(a)
        answers = hammer(some, lambda n: asked(900))
        assert LIMIT - 2 * LEASE * LIMIT - LIMIT * LEASE <= admitted(answers) <= LIMIT
        assert sum(stopped(a)["lease_spent"] for a in some) > 100
    finally:
        c.finish()


def test_what_the_failure_policy_denies_spends_nothing(run, tmp_path):
    """One node of a cluster is away, and who needs it is denied: from the block of a counter that is on
    another one, which goes on giving them, that takes nothing."""
    c = redisd.Cluster(tmp_path)
    try:
        c.start()
        for n in c.nodes:
            n("CONFIG", "SET", "cluster-require-full-coverage", "no")
        text = rules(leased("org", rate=f"100000/{LONG}", per='[ "org" ]', algorithm='"fixed-window"',
                            on_failure='"closed"'),
                     rule("user", rate=f"100000/{LONG}", on_failure='"closed"'))
        a = run(rules=text, top=c.group(timeout="200ms"), agent="threads = 1;")

        def node_of(**fields):
            before = {n: n.keys() for n in c.nodes}
            until(lambda: a.check(fields)["reason"] == "ok", "the cluster")
            return next(n for n in c.nodes if n.keys() != before[n])
        there = node_of(org="o")
        user, other = next((u, n) for u, n in ((f"u{i}", node_of(user=f"u{i}")) for i in range(100))
                           if n is not there)
        other.pause()
        until(lambda: a.check(user=user)["reason"] == "degraded", "the failure")
        answers = hammer([a], lambda n: [message("check", {"org": "o"}),
                                         message("check", {"org": "o", "user": user})] * 500, 1,
                         settle=False)
        other.resume()
        assert sum(x["reason"] == "degraded" for x in answers) > 400
        totals = stopped(a)
        assert totals["leased"] > 100
        counted = max(struct.unpack_from("<I", there("GET", k))[0] for k in there.keys())
        # What was in hand as the node went is not given back.
        unsure = totals["timed_out"] + totals["failed"] + totals["lease_dropped"]
        assert counted <= 1 + admitted(answers) + unsure <= 1 + admitted(answers) + 200
    finally:
        c.finish()


# --- few calls -------------------------------------------------------------------------------

def test_a_hot_key_is_hardly_asked_for(run, redis):
    a = redisd.settled(run(rules=leased(rate=f"1000000/{LONG}"), top=redis.group(),
                           agent="threads = 1;"))
    with a.connect() as c:
        c.batch(asked(500), 10)
        before = redis.calls()["evalsha"]
        begin = time.monotonic()
        answers = c.batch(asked(5000), 10)
        took = time.monotonic() - begin
    assert admitted(answers) == 5000
    # Without, each ten would be one. A block lasts for an eighth of a second.
    assert redis.calls()["evalsha"] - before <= 10 + 20 * took < 400


def test_a_cold_key_is_asked_for_each_time(run, redis):
    a = redisd.settled(run(rules=leased(), top=redis.group()))
    for left in range(5):
        assert a.check(user="u")["remaining"] == LIMIT - 1 - left
        time.sleep(0.15)
    assert value(redis)[1] == 0
    assert stopped(a)["lease_blocks"] == 0


# --- how blocks end --------------------------------------------------------------------------

@pytest.mark.parametrize("algorithm", ["token-bucket", "fixed-window", "sliding-window"])
@pytest.mark.parametrize("how", ["drain", "idle", "reload"])
def test_what_is_not_spent_comes_back(run, redis, how, algorithm):
    text = leased(rate=f"100000/{LONG}", algorithm=f'"{algorithm}"')
    a = redisd.settled(run(rules=text, top=redis.group()))
    answers = hammer([a], lambda n: asked(333))
    assert admitted(answers) == 999
    if how == "drain":
        assert a.stop() == 0
    elif how == "reload":
        a.rewrite(rules=text.replace("0.1", "0.05"), top=redis.group())
        a.reload(lambda: "reloaded" in a.stderr or "generation=2" in a.stderr)

    def is_back():
        if algorithm == "token-bucket":
            used, out = value(redis)
            return out == 0 and abs(used - 999) < 0.01
        return window(redis) == 999
    until(is_back, "what was not spent to come back")


def test_a_dead_agent_frees_itself(run, redis):
    """What it had is debited, and the bucket refills without that; then it does with it."""
    # Refills within 50 ms, but for what is out.
    a = redisd.settled(run(rules=leased(rate="100000/second burst 5000", lease=0.5), top=redis.group()))
    b = redisd.settled(run(rules=rule(rate="100000/second burst 5000"), top=redis.group()))
    for _ in range(20):
        hammer([a], lambda n: asked(200))
        a.send_signal(signal.SIGSTOP)
        (key,) = redis.keys()
        if redis("GET", key)[16:24].strip(b"\0"):
            break
        a.send_signal(signal.SIGCONT)
    a.kill()
    # (Other agents' takes leave what is out as it is.)
    assert b.check(user="u")["reason"] == "ok"
    # All of it can be had only when nothing is out any more.
    until(lambda: not b.check(user="u", cost=5000)["deny"], "a bucket that is full")
    assert value(redis)[1] == 0


def test_a_block_in_hand_while_redis_is_away(run, redis):
    a = redisd.settled(run(rules=leased(rate=f"1000000/{LONG}", on_failure='"closed"'),
                           top=redis.group(timeout="500ms"), agent="threads = 1;"))
    with a.connect() as c:
        c.batch(asked(3000), 10)
        redis.pause()
        try:
            # Some are in hand, and when these are spent the failure policy denies.
            answers = []
            while len(answers) < 100000 and not (answers and answers[-1]["deny"]):
                answers.append(c.check(user="u"))
        finally:
            redis.resume()
    reasons = [x["reason"] for x in answers]
    assert reasons[0] == "ok" and reasons[-1] == "degraded"
    assert reasons.count("ok") >= 10
