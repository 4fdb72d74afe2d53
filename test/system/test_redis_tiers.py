"""Tiers that stand in Redis: who is on which one, seen by every agent soon after it changes, and what
holds while Redis does not say.

`soon` is the contract's second; it is waited for within a bound that is much longer, for what a busy
machine adds, and so shows that it comes, not how fast.
"""

import hashlib
import re
import time

import pytest

import redisd
from agent import until
from spop import message
from test_limits import rule

RATES = ('{ anonymous = "1/day"; free = "2/day"; premium = "3/day"; gold = "4/day"; '
         'default = "9/day"; }')
PREMIUM, FREE, GOLD = 3, 2, 4
HASH = "rl:tiers"


def tiered(**more):
    return rule(per='[ "key|user|ip" ]', rate=RATES, **more)


def sha256(key):
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def tier(agent, **who):
    """As a request of no cost sees it."""
    return agent.check(cost=0, **who)["tier"]


def becomes(agents, wanted, **who):
    agents = agents if isinstance(agents, list) else [agents]
    until(lambda: all(tier(a, **who) == wanted for a in agents), f"{who} to be {wanted}")


def said(agent, what):
    return [x for x in agent.lines() if what in x]


def watched(agent):
    until(lambda: said(agent, "tiers_watched"), "a subscription")
    return agent


@pytest.fixture
def redis(tmp_path, ends):
    """One that was asked nothing but what the agent may."""
    server = ends(redisd.Server(tmp_path))
    yield server
    if server.running and not server.stopped:
        assert server.denied() == [], "beyond the ACL"


def looked_up(redis):
    return redis.calls().get("hmget", 0)


# --- who is on which tier --------------------------------------------------------------------

def test_a_user_and_a_key(run, redis):
    redis("HSET", HASH, "alice", "premium", sha256("k-1"), "gold")
    a = run(rules=tiered(), top=redis.group())
    assert tier(a, user="alice") == "premium"
    assert tier(a, key="k-1") == "gold"
    assert tier(a, key="k-1", user="alice") == "gold", "by key before by user"
    assert tier(a, key="k-2", user="alice") == "premium"
    assert tier(a, key="k-2") == "anonymous"
    assert tier(a, user="bob") == "anonymous"
    assert tier(a, ip="192.0.2.1") == "anonymous"


def test_rules_see_it(run, redis):
    redis("HSET", HASH, "alice", "premium", "bob", "free")
    text = ", ".join([tiered(), '{ name = "vip"; match = { tier = "premium"; }; per = [ "user" ]; '
                                'rate = "2/day"; }'])
    a = run(rules=text, top=redis.group())
    assert [a.check(user="alice")["deny"] for _ in range(3)] == [False, False, True]
    assert a.check(user="alice")["rule"] == "vip"
    assert a.check(user="bob")["limit"] == FREE


def test_message_then_redis_then_file_then_default(run, redis, tmp_path):
    (tmp_path / "tiers.map").write_text("alice free\nbob free\n" + sha256("k-1") + " free\n")
    redis("HSET", HASH, "alice", "premium", "empty", "")
    a = run(rules=tiered(),
            top=redis.group() + 'identity: { tiers_file = "tiers.map"; };')
    assert tier(a, user="alice", tier="gold") == "gold"
    assert tier(a, user="alice", tier="") == "premium", "an empty one counts as absent"
    assert tier(a, user="alice") == "premium"
    assert tier(a, user="bob") == "free"
    assert tier(a, key="k-1") == "free"
    assert tier(a, key="k-1", user="alice") == "premium", "Redis has the user, the file the key"
    assert tier(a, user="empty") == "anonymous"


@pytest.mark.parametrize("name", ["unheard-of", "x" * 64, "x" * 300, "a\r\nb\0c", "\xff"])
def test_a_tier_that_no_rule_knows_is_as_one_in_a_message(run, redis, name):
    redis("HSET", HASH, "alice", name.encode("latin-1"))
    a = run(rules=tiered(), top=redis.group())
    found = a.check(user="alice", cost=0)
    brought = a.check(user="bob", tier=name.encode("latin-1"), cost=0)
    assert found["tier"] == brought["tier"] and found["limit"] == brought["limit"] == 9


def test_a_tier_is_not_cut_into_another(run, redis):
    long = "p" * 63
    redis("HSET", HASH, "alice", long, "bob", long + "x")
    a = run(rules='{ name = "r"; per = [ "user" ]; rate = ( { tier = "%s"; rate = "3/day"; }, '
                  '{ tier = "default"; rate = "9/day"; } ); }' % long, top=redis.group())
    assert a.check(user="alice", cost=0)["limit"] == 3
    assert a.check(user="bob", cost=0)["limit"] == 9


# --- what is secret --------------------------------------------------------------------------

def test_a_hash_is_no_key(run, redis):
    """Who has learnt of what stands there cannot use it, as key or as user; and a secret that stands
    there in clear is not found."""
    redis("HSET", HASH, sha256("k-1"), "gold", "k-2", "gold")
    a = run(rules=tiered(), top=redis.group())
    assert tier(a, key="k-1") == "gold"
    assert tier(a, key=sha256("k-1")) == "anonymous"
    assert tier(a, user=sha256("k-1")) == "anonymous"
    assert tier(a, key="k-2") == "anonymous"
    assert tier(a, user="k-2") == "gold"


def test_no_secret_is_sent(run, redis):
    seen = []
    with redis.client() as c:
        assert c("MONITOR") == "OK"
        redis("HSET", HASH, "alice", "premium")
        a = run(rules=tiered(), top=redis.group() + 'identity: { secret = [ "user" ]; };')
        tier(a, key="key-in-clear", user="user-in-clear")
        redis("PING", "the end")
        while not seen or "the end" not in seen[-1]:
            seen.append(c.read())
    seen = "\n".join(seen)
    assert sha256("key-in-clear") in seen and sha256("user-in-clear") in seen
    assert "in-clear" not in seen.lower()


# --- changes ---------------------------------------------------------------------------------

@pytest.mark.parametrize("started", ["before", "after"])
def test_a_change_is_seen_by_all_agents(run, redis, started):
    """By a plain HSET, HDEL or DEL; where the hash was there, and where it comes to be."""
    if started == "after":
        redis("HSET", HASH, "carol", "free")
    some = [watched(run(rules=tiered(), top=redis.group(tiers_age="1h"))) for _ in range(2)]
    for a in some:
        assert tier(a, user="alice") == "anonymous"
        assert tier(a, key="k-1", user="alice") == "anonymous"
    redis("HSET", HASH, "alice", "premium")
    becomes(some, "premium", user="alice")
    redis("HSET", HASH, sha256("k-1"), "gold")
    becomes(some, "gold", key="k-1", user="alice")
    redis("HDEL", HASH, sha256("k-1"))
    becomes(some, "premium", key="k-1", user="alice")
    redis("HSET", HASH, "alice", "free")
    becomes(some, "free", user="alice")
    redis("DEL", HASH)
    becomes(some, "anonymous", user="alice")
    redis("HSET", HASH, "alice", "gold")
    becomes(some, "gold", user="alice")
    redis("FLUSHALL")
    becomes(some, "anonymous", user="alice")


def test_it_is_told_by_publish_too(run, redis):
    """A server that cannot tell by itself (before Redis 6)."""
    redis("ACL", "SETUSER", redisd.USER, "-client|tracking")
    redis("HSET", HASH, "alice", "free")
    a = watched(run(rules=tiered(), top=redis.group(tiers_age="1h")))
    assert "PUBLISH" in said(a, "tiers_watched")[0]
    assert tier(a, user="alice") == "free"
    redis("HSET", HASH, "alice", "premium")
    assert tier(a, user="alice") == "free"
    redis("PUBLISH", HASH, "alice")
    becomes(a, "premium", user="alice")
    redis("ACL", "LOG", "RESET")


def test_asking_whether_it_is_told_costs_nothing_that_is_known(run, redis):
    """Beside the subscription, which stays as it is; and as soon as the ACL allows it, the server tells."""
    redis("ACL", "SETUSER", redisd.USER, "-client|tracking")
    redis("HSET", HASH, "alice", "free")
    a = watched(run(rules=tiered(), top=redis.group(tiers_age="1h")))
    assert tier(a, user="alice") == "free"
    before, asked = looked_up(redis), opened(redis)
    until(lambda: opened(redis) >= asked + 2, "it asks again, and once more")
    assert len(redis("ACL", "LOG")) and len(said(a, "tiers_watched")) == 1, a.stderr
    assert tier(a, user="alice") == "free" and looked_up(redis) == before, "it is remembered"
    redis("ACL", "SETUSER", redisd.USER, "+client|tracking")
    until(lambda: any("the server" in x for x in said(a, "tiers_watched")), "the server's own word")
    redis("HSET", HASH, "alice", "premium")
    becomes(a, "premium", user="alice")
    redis("ACL", "LOG", "RESET")


def test_a_hash_that_comes_is_found_without_being_told(run, redis):
    redis("ACL", "SETUSER", redisd.USER, "-client|tracking")
    a = watched(run(rules=tiered(), top=redis.group(tiers_age="1h")))
    assert tier(a, user="alice") == "anonymous"
    redis("HSET", HASH, "alice", "premium")
    becomes(a, "premium", user="alice")
    redis("ACL", "LOG", "RESET")


def test_many_changes_at_once(run, redis):
    """A load of the whole table while requests come: each is answered, and the end is seen."""
    redis("HSET", HASH, "alice", "free")
    a = watched(run(rules=tiered(), top=redis.group(tiers_age="1h")))
    with redisd.Asker(a, {"user": "alice", "cost": 0}, pause=0) as asker, redis.client() as c:
        for i in range(3000):
            c("HSET", HASH, f"u{i}", "free")
        c("HSET", HASH, "alice", "premium")
        becomes(a, "premium", user="alice")
        becomes(a, "free", user="u2999")
    assert asker.got


# --- what it costs ---------------------------------------------------------------------------

def test_what_is_known_is_not_asked_again(run, redis):
    """Nor what is known not to be there."""
    redis("HSET", HASH, "alice", "premium")
    a = watched(run(rules=tiered(), agent="threads = 1;", top=redis.group(tiers_age="1h")))
    names = [{"user": "alice"}, {"user": "nobody"}, {"key": "none", "user": "nobody"},
             {"key": "none"}]
    until(lambda: [tier(a, **n) for n in names] and
          [looked_up(redis) for n in names if not tier(a, **n)] == [], "all known")
    before = looked_up(redis)
    for _ in range(50):
        for n in names:
            tier(a, **n)
    assert looked_up(redis) == before


def test_age(run, redis):
    """What was not told is asked for when it is old."""
    redis("ACL", "SETUSER", redisd.USER, "-client|tracking")
    redis("HSET", HASH, "alice", "free")
    a = watched(run(rules=tiered(), top=redis.group(tiers_age="100ms")))
    assert tier(a, user="alice") == "free"
    redis("HSET", HASH, "alice", "premium")
    becomes(a, "premium", user="alice")
    redis("ACL", "LOG", "RESET")


def test_without_a_hash_nothing_is_looked_up(run, redis):
    a = watched(run(rules=tiered(), top=redis.group()))
    until(lambda: redis.calls().get("exists", 0) >= 1, "the question whether there is one")
    a.check(user="alice")
    until(lambda: (looked_up(redis), a.check(user="bob"))[0] == looked_up(redis), "no look-up")
    before = looked_up(redis)
    for i in range(100):
        a.check(user=f"u{i}", key=f"k{i}")
    assert looked_up(redis) == before


def test_the_same_name_in_one_turn_is_asked_for_once(run, redis):
    redis("HSET", HASH, "alice", "premium")
    a = watched(run(rules=tiered(), agent="threads = 1;", top=redis.group(tiers_age="1h")))
    before = looked_up(redis)
    with a.connect() as c:
        answers = c.batch([message("check", {"user": "alice"})] * 200, window=200)
    assert sum(not x["deny"] for x in answers) == PREMIUM
    assert looked_up(redis) - before <= 20


def test_more_names_than_are_remembered(run, redis):
    """Names without end: each gets its own tier, and the agent goes on."""
    with redis.client() as c:
        for i in range(0, 600, 2):
            c("HSET", HASH, f"u{i}", "premium")
    a = run(rules=tiered(), top=redis.group(tiers_cache=64))
    for _ in range(2):
        with a.connect() as c:
            answers = c.batch([message("check", {"user": f"u{i}", "cost": 0})
                               for i in range(600)], window=100)
        assert [x["tier"] for x in answers] == ["premium", "anonymous"] * 300


def test_names_that_come_one_by_one_while_replies_take_long(run, redis, ends):
    """More turns of the loop than there are look-ups under way: later names gather."""
    wire = ends(redisd.Proxy(redis.address))
    for i in range(60):
        redis("HSET", HASH, f"u{i}", "premium")
    a = run(rules=tiered(), agent="threads = 1;", top=redisd.group(wire.address, timeout="10s"))
    until(lambda: a.check(user="warm")["reason"] == "ok", "Redis")
    wire.set("pass", 0.3)
    with a.connect() as c:
        keys = []
        for i in range(60):
            keys.append(c.notify(message("check", {"user": f"u{i}", "cost": 0})))
            time.sleep(0.002)
        assert [c.wait(k)["tier"] for k in keys] == ["premium"] * 60


def test_a_long_notify_loses_nothing_while_it_waits(run, redis):
    redis("HSET", HASH, "alice", "premium")
    long = "/" + "x" * 9000 + "/end"
    text = ", ".join([tiered(), '{ name = "end"; match = { path = "*/end"; last = "yes"; }; '
                                'per = [ "user" ]; rate = "1/day"; }'])
    a = run(rules=text, top=redis.group())
    first = a.check({"user": "alice", "path": long, "last": "yes"})
    assert (first["tier"], first["rule"], first["deny"]) == ("premium", "end", False)
    assert a.check({"user": "alice", "path": long, "last": "yes"})["rule"] == "end"


# --- while Redis does not say ----------------------------------------------------------------

def test_while_redis_is_away_what_was_known_holds(run, redis, tmp_path):
    (tmp_path / "tiers.map").write_text("bob free\nalice free\n")
    redis("HSET", HASH, "alice", "premium")
    a = watched(run(rules=tiered(), top=redis.group(timeout="100ms", tiers_age="100ms") +
                    'identity: { tiers_file = "tiers.map"; };'))
    assert tier(a, user="alice") == "premium"
    redis.pause()
    until(lambda: a.check(user="alice", cost=0)["reason"] != "ok" or True, "an answer")
    for _ in range(5):
        assert tier(a, user="alice") == "premium", "older than tiers_age, and the best there is"
        assert tier(a, user="bob") == "free", "the file"
        assert tier(a, user="carol") == "anonymous"
    redis.resume()
    redis("HSET", HASH, "carol", "gold")
    becomes(a, "gold", user="carol")
    redis.kill()
    for _ in range(5):
        assert tier(a, user="alice") == "premium"
        assert tier(a, user="bob") == "free"


def test_a_lookup_and_the_limits_wait_for_one_timeout_together(run, redis, ends):
    """Replies that take a little less than the timeout: the look-up's comes in time, and what is left
    is too little for the other."""
    wire = ends(redisd.Proxy(redis.address))
    redis("HSET", HASH, "alice", "premium")
    reply = 2.1
    a = run(rules=tiered(), top=redisd.group(wire.address, timeout="3s"))
    until(lambda: a.check(user="warm")["reason"] == "ok", "Redis")
    wire.set("pass", reply)
    begun = time.monotonic()
    answer = a.check(user="alice")
    took = time.monotonic() - begun
    assert answer["tier"] == "premium"
    assert took < 2 * reply, f"{took:.3f} s: twice {reply} s were waited for"


def test_a_subscription_that_is_killed_comes_back(run, redis):
    redis("HSET", HASH, "alice", "free")
    a = watched(run(rules=tiered(), top=redis.group(tiers_age="1h")))
    assert tier(a, user="alice") == "free"
    assert redis("CLIENT", "KILL", "TYPE", "pubsub") == 1
    redis("HSET", HASH, "alice", "premium")     # while nobody listens, perhaps
    becomes(a, "premium", user="alice")
    until(lambda: len(said(a, "tiers_watched")) == 2, "another subscription")
    redis("HSET", HASH, "alice", "gold")
    becomes(a, "gold", user="alice")


def test_one_subscription_for_each_process(run, redis):
    redis("HSET", HASH, "alice", "free")
    some = [watched(run(rules=tiered(), agent="threads = 3;", top=redis.group())) for _ in range(2)]
    for a in some:
        tier(a, user="alice")
    assert len(redis("CLIENT", "LIST", "TYPE", "pubsub").splitlines()) == 2
    # one for each worker, one of each process for what operators change, and that which asks
    assert len(redis("CLIENT", "LIST", "TYPE", "normal").splitlines()) == 2 * (3 + 1) + 1


def test_a_restart_of_redis(run, tmp_path, ends):
    redis = ends(redisd.Server(tmp_path, persist=True))
    redis("HSET", HASH, "alice", "premium")
    a = watched(run(rules=tiered(), top=redis.group(tiers_age="1h")))
    assert tier(a, user="alice") == "premium"
    redis.kill()
    redis.start()
    redis("HSET", HASH, "alice", "gold")
    becomes(a, "gold", user="alice")
    until(lambda: len(said(a, "tiers_watched")) == 2, "another subscription")


def test_one_that_is_no_hash(run, redis):
    redis("SET", HASH, "no hash")
    a = watched(run(rules=tiered(), top=redis.group()))
    until(lambda: (a.check(user="alice"), said(a, "WRONGTYPE"))[1], "a warning")
    assert a.check(user="bob")["reason"] in ("ok", "limited")
    assert len(said(a, "WRONGTYPE")) == 1
    assert f"DEL {HASH}" in said(a, "WRONGTYPE")[0] and "ACL" not in said(a, "WRONGTYPE")[0]
    redis("DEL", HASH)
    redis("HSET", HASH, "alice", "gold")
    becomes(a, "gold", user="alice")


def test_errors_are_no_reason_to_ask_without_end(run, redis):
    """A replica without its master has an error for whoever asks it. Each of its turns asked again."""
    a = watched(run(rules=tiered(), agent="threads = 2;", top=redis.group()))
    redis("CONFIG", "SET", "replica-serve-stale-data", "no")
    redis("REPLICAOF", "127.0.0.1", "1")

    def refused():
        stats = redis("INFO", "errorstats").decode()
        return int((re.search(r"errorstat_MASTERDOWN:count=(\d+)", stats) or ["", 0])[1])
    until(refused, "a refusal")
    before, began = refused(), time.monotonic()
    time.sleep(1)
    assert refused() - before < 100 * (1 + time.monotonic() - began)
    redis("REPLICAOF", "NO", "ONE")
    redis("HSET", HASH, "alice", "gold")
    becomes(a, "gold", user="alice")


def opened(client):
    """Connections since Redis began."""
    return int(re.search(r"total_connections_received:(\d+)", client("INFO", "stats").decode())[1])


def test_values_that_are_no_tiers_names(run, redis):
    """As many as are looked up at once, of some thousand bytes each: tiers that no rule knows, and the
    connection stays."""
    redis("HSET", HASH, "alice", "premium", *sum(([f"u{i}", "x" * 3900] for i in range(128)), []))
    a = watched(run(rules=tiered(), agent="threads = 1;", top=redis.group()))
    assert tier(a, user="alice") == "premium"
    with redis.client() as look, a.connect() as c:
        before = opened(look)
        acks = c.batch([message("check", {"user": f"u{i}", "cost": 0}) for i in range(128)], 128)
        assert opened(look) == before
    assert {x["tier"] for x in acks} == {"x" * 63} and {x["limit"] for x in acks} == {9}
    assert {x["reason"] for x in acks} == {"ok"}
    lines = said(a, "tier_too_long")
    assert len(lines) == 1 and "bytes=3900" in lines[0] and "field=u" in lines[0]


def test_one_that_no_rule_lists(run, redis):
    """As `HSET rl:tiers tina fre`: it is told, once, with what may be meant."""
    redis("HSET", HASH, "tina", "fre", "alice", "free")
    a = watched(run(rules=tiered(), top=redis.group()))
    for _ in range(20):
        assert tier(a, user="tina") == "fre" and tier(a, user="alice") == "free"
    assert a.stop() == 0
    line, = said(a, "tier_unlisted")
    assert "tier=fre nearest=free user=tina from=redis" in line, line


def test_values_without_end(run, redis):
    """What is no tier's name, but a megabyte, ends the connection. Then nobody is asked for tiers for a
    while: limits are not away for long, and the next connection does not end by the same."""
    redis("HSET", HASH, "mad", "x" * 1000000, "alice", "premium")
    a = watched(run(rules=tiered(), agent="threads = 1;", top=redis.group()))
    assert tier(a, user="alice") == "premium"
    with redis.client() as look:
        before = opened(look)
        a.check(user="mad", cost=0)
        for i in range(20):
            until(lambda: a.check(user=f"u{i}", cost=0)["reason"] == "ok", "Redis")
            assert tier(a, user="mad") == "anonymous"
        assert opened(look) - before == 1
    assert tier(a, user="alice") == "premium", "as it was remembered"
    assert "HSTRLEN" in said(a, "store_degraded")[0]


# --- what it may -----------------------------------------------------------------------------

@pytest.mark.parametrize("without", [
    "all", "-hmget", "-exists", "-subscribe", "-client|id", "-client|tracking", "resetchannels"])
def test_an_acl_of_before(run, tmp_path, ends, without):
    """Limits go on; one warning says what to do; and who does it need not restart."""
    redis = ends(redisd.Server(tmp_path, tiers=None if without == "all" else "rl:tiers"))
    if without != "all":
        redis("ACL", "SETUSER", redisd.USER, without)
    redis("HSET", HASH, "alice", "premium")
    a = run(rules=tiered(), agent="threads = 2;", top=redis.group())
    for i in range(30):
        assert a.check(user=f"u{i}")["reason"] == "ok"
    assert [a.check(user="alice")["deny"] for _ in range(4)][-1]
    until(lambda: said(a, "tiers_refused"), "a warning")
    a.check(user="alice")
    assert len(said(a, "tiers_refused")) == 1, a.stderr
    assert "ACL SETUSER" in said(a, "tiers_refused")[0] and "NOPERM" in said(a, "tiers_refused")[0]
    assert not said(a, "store_degraded")
    # As the warning says it.
    hint = said(a, "tiers_refused")[0].split("ACL SETUSER ", 1)[1].rstrip('"').split()
    redis("ACL", "SETUSER", *hint)
    until(lambda: tier(a, user="alice") == "premium", "the tier", 30)


def test_an_older_server(run, tmp_path, ends):
    """Tiers are nothing that limits depend on: a server that knows none of the commands."""
    redis = ends(redisd.Server(tmp_path, settings=[
        "rename-command CLIENT xclient", "rename-command SUBSCRIBE xsubscribe"]))
    redis("HSET", HASH, "alice", "free")
    a = run(rules=tiered(), top=redis.group())
    until(lambda: tier(a, user="alice") == "free", "the tier")
    redis("HSET", HASH, "alice", "premium")
    becomes(a, "premium", user="alice")
    assert a.check(user="alice")["reason"] == "ok"


# --- a cluster -------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    c = redisd.Cluster(tmp_path_factory.mktemp("c"))
    try:
        yield c.start()
    finally:
        c.finish()


def ask_cluster(cluster, *args):
    return cluster.owner(cluster.slot(HASH))(*args)


def test_the_hash_is_on_one_node_of_a_cluster(run, cluster):
    ask_cluster(cluster, "HSET", HASH, "alice", "free", sha256("k-1"), "gold")
    some = [watched(run(rules=tiered(), top=cluster.group(tiers_age="1h"))) for _ in range(2)]
    for a in some:
        assert tier(a, user="alice") == "free"
        assert tier(a, key="k-1") == "gold"
        assert tier(a, key="k-2") == "anonymous"
    ask_cluster(cluster, "HSET", HASH, "alice", "premium")
    becomes(some, "premium", user="alice")
    ask_cluster(cluster, "DEL", HASH)
    becomes(some, "anonymous", user="alice")


def test_the_hash_moves_to_another_node(run, cluster):
    """Asked all the while for names that it has not heard of yet: none is lost on the way; and the
    subscription follows."""
    ask_cluster(cluster, "DEL", HASH)
    ask_cluster(cluster, "HSET", HASH, "alice", "gold",
                *(x for i in range(20000) for x in (f"u{i}", "gold")))
    a = run(rules=tiered(), top=cluster.group(timeout="5s"))
    b = watched(run(rules=tiered(), top=cluster.group(tiers_age="1h")))
    assert tier(b, user="alice") == "gold"
    with redisd.Asker(a, lambda i: {"user": f"u{i}", "cost": 0}) as asker:
        for _ in range(3):
            slot = cluster.slot(HASH)
            to = next(n for n in cluster.nodes if n is not cluster.owner(slot))
            cluster.migrate(slot, to, pause=0.5)
    assert 100 < len(asker.got) < 20000
    assert {x["tier"] for _, _, x in asker.got} == {"gold"}
    ask_cluster(cluster, "HSET", HASH, "alice", "premium")
    becomes([a, b], "premium", user="alice")
    for n in cluster.nodes:
        assert n.denied() == []


def test_a_sentinel_names_another_master(run, tmp_path_factory):
    s = redisd.Sentinels(tmp_path_factory.mktemp("s"))
    try:
        s.start()
        old = s.master()
        old("HSET", HASH, "alice", "free")
        old("WAIT", 2, 5000)
        a = watched(run(rules=tiered(), top=s.group(tiers_age="1h")))
        assert tier(a, user="alice") == "free"
        old.kill()
        new = s.failed_over(old)
        until(lambda: a.check(user="bob", cost=0)["reason"] == "ok", "the new master")
        assert tier(a, user="alice") == "free"
        new("HSET", HASH, "alice", "premium")
        becomes(a, "premium", user="alice")
        until(lambda: len(said(a, "tiers_watched")) >= 2, "a subscription there")
    finally:
        s.finish()
