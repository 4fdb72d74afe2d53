"""Counters on several masters: never more than the limit, also while slots move and nodes die."""

import threading
import time

import pytest

import redisd
from agent import until
from redisd import Asker, admitted, hammer
from spop import message
from test_admin import Admin
from test_admin_changes import override, served
from test_limits import rule, rules
from test_redis_away import LONG, NOISE

NESTED = rules(rule("user", rate=f"400/{LONG}"),
               rule("org", per='[ "org" ]', rate=f"700/{LONG}", algorithm='"fixed-window"'),
               rule("all", per="[]", rate=f"1000/{LONG}", algorithm='"sliding-window"'))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    if not redisd.knows("cluster"):
        pytest.skip("this agent does not know redis.mode cluster")
    c = redisd.Cluster(tmp_path_factory.mktemp("c"))
    try:
        yield c.start()
    finally:
        c.finish()


@pytest.fixture
def cluster(whole):
    for n in whole.nodes:
        n("FLUSHALL")
    return whole


def test_one_limit_is_exact(run, cluster):
    some = [run(rules=rule(rate=f"300/{LONG}"), top=cluster.group()) for _ in range(3)]
    answers = hammer(some, lambda n: [message("check", {"user": f"u{i % 5}"}) for i in range(300)])
    assert admitted(answers) == 5 * 300


def test_all_nodes_are_used(run, cluster):
    a = run(rules=rule(), top=cluster.group())
    for i in range(60):
        assert a.check(user=f"u{i}")["remaining"] == 4
    assert all(n.keys() for n in cluster.nodes) and len(cluster.keys()) == 60


def test_one_node_is_enough_to_find_the_others(run, cluster):
    a = run(rules=rule(), top=redisd.group(f"127.0.0.1:{cluster.nodes[1].port}", mode="cluster"))
    for i in range(30):
        assert a.check(user=f"u{i}")["reason"] == "ok"


def test_limits_on_several_nodes(run, cluster):
    """Never more than a limit; and once nobody competes, what is left can be had."""
    some = [run(rules=NESTED, top=cluster.group()) for _ in range(3)]
    asked = [("u0", "o0"), ("u1", "o0"), ("u2", "o1")]
    answers = hammer(some, lambda n: [message("check", {"user": u, "org": o}) for u, o in
                                      redisd.shuffled(asked * 100, n)])
    assert admitted(answers) <= 1000
    more = hammer(some[:1], lambda n: [message("check", {"user": "u2", "org": "o1"}),
                                       message("check", {"user": "u0", "org": "o0"})] * 400, 1)
    assert admitted(answers) + admitted(more) <= 1000
    assert admitted(answers) + admitted(more) >= 990


def test_a_slot_moves_under_load(run, cluster):
    some = [run(rules=rule(rate=f"3000/{LONG}"), top=cluster.group(on_failure="closed"))
            for _ in range(2)]
    assert some[0].check(user="u")["reason"] == "ok"
    slot = cluster.slot(cluster.keys()[0])
    over = threading.Event()
    moved = []

    def move():
        while not over.is_set():
            to = next(n for n in cluster.nodes if n is not cluster.owner(slot))
            cluster.migrate(slot, to, 0.02)
            moved.append(to)
    t = threading.Thread(target=move)
    t.start()
    try:
        answers = hammer(some, lambda n: [message("check", {"user": "u"})] * 1000, 2)
    finally:
        over.set()
        t.join()
    assert moved and admitted(answers) + 1 == 3000
    assert {a["reason"] for a in answers} == {"ok", "limited"}


def test_a_node_that_joins_and_takes_slots(run, cluster):
    a = run(rules=rule(rate=f"100/{LONG}"), top=cluster.group())
    with Asker(a, lambda i: {"user": f"u{i % 50}"}) as asker:
        until(lambda: len(asker.got) >= 100, "answers")
        node = cluster.add()
        since = time.monotonic()
        for key in cluster.keys()[:10]:
            cluster.migrate(cluster.slot(key), node)
        until(lambda: len(asker.since(since)) >= 200, "answers")
    assert set(asker.reasons()) <= {"ok", "limited"}
    assert node.keys()


def test_a_node_that_dies_and_comes_back(run, cluster):
    """Keys of the others go on; its own follow the failure policy."""
    a = run(rules=rule(rate=f"100000/{LONG}"),
            top=cluster.group(timeout="200ms", on_failure="closed"))
    users = [f"u{i}" for i in range(40)]
    with Asker(a, lambda i: {"user": users[i % 40]}) as asker:
        until(lambda: asker.reasons()["ok"] >= 100, "the cluster")
        cluster.nodes[2].kill()
        since = time.monotonic()
        until(lambda: asker.reasons(since)["degraded"], "the failure")
        cluster.nodes[2].start()
        until(lambda: all(cluster.whole(n) for n in cluster.nodes[:3]), "the cluster")
        back = time.monotonic()
        until(lambda: asker.reasons(back)["ok"] >= 100, "recovery")
    assert max(seconds for _, seconds, _ in asker.got) <= 0.2 + NOISE
    assert set(asker.reasons()) <= {"ok", "degraded"}


def in_time(got, timeout):
    """Every check was answered within its deadline, and what a busy machine adds."""
    assert max(seconds for _, seconds, _ in got) <= timeout + NOISE


def test_limits_on_several_nodes_while_slots_move(run, cluster):
    """Parts that are sent on, or have to come again: never more than any of the limits."""
    some = [run(rules=NESTED, top=cluster.group(on_failure="closed")) for _ in range(2)]
    assert some[0].check(user="u0", org="o0")["reason"] == "ok"
    slots = [cluster.slot(k) for k in cluster.keys()]
    over = threading.Event()
    moved = []

    def move():
        while not over.is_set():
            for slot in slots:
                to = next(n for n in cluster.nodes if n is not cluster.owner(slot))
                cluster.migrate(slot, to, 0.005)
                moved.append(slot)
    t = threading.Thread(target=move)
    t.start()
    asked = [("u0", "o0"), ("u1", "o0"), ("u2", "o1"), ("u0", "o1")]
    try:
        answers = hammer(some, lambda n: [message("check", {"user": u, "org": o}) for u, o in
                                          redisd.shuffled(asked * 100, n)], 2)
    finally:
        over.set()
        t.join()
    assert moved and {a["reason"] for a in answers} <= {"ok", "limited"}
    assert 900 <= admitted(answers) + 1 <= 1000


def test_a_replica_takes_over(run, tmp_path):
    """Its slots are found at another address, without a restart; others never miss them."""
    c = redisd.Cluster(tmp_path)
    try:
        c.start()
        replica = c.replica(c.nodes[0])
        a = run(rules=rule(rate=f"100000/{LONG}"), top=c.group(timeout="200ms", on_failure="closed"))
        users = [f"u{i}" for i in range(30)]
        with Asker(a, lambda i: {"user": users[i % 30]}) as asker:
            until(lambda: asker.reasons()["ok"] >= 100, "the cluster")
            c.nodes[0].kill()
            until(lambda: replica.info("replication")["role"] == "master", "a failover", 30)
            until(lambda: len(asker.got) and {x["reason"] for _, _, x in asker.got[-60:]} == {"ok"},
                  "the new master", 30)
        in_time(asker.got, 0.2)
        assert set(asker.reasons()) <= {"ok", "degraded"}
        assert replica.keys()
    finally:
        c.finish()


def test_only_who_needs_the_node_misses_it(run, cluster):
    a = run(rules=rule(rate=f"100000/{LONG}"), top=cluster.group(timeout="200ms", on_failure="closed"))
    users = {f"u{i}": None for i in range(30)}
    for u in users:
        before = {n.port: set(n.keys()) for n in cluster.nodes}
        assert a.check(user=u)["reason"] == "ok"
        users[u] = next(n for n in cluster.nodes if set(n.keys()) != before[n.port])
    lost = users["u0"]
    lost.pause()
    try:
        until(lambda: a.check(user="u0")["reason"] == "degraded", "the failure")
        for u, node in users.items():
            assert (a.check(user=u)["reason"] == "degraded") == (node is lost)
    finally:
        lost.resume()
    until(lambda: all(a.check(user=u)["reason"] == "ok" for u in users), "recovery")


def test_a_part_comes_back_when_its_policy_is_no_more(run, tmp_path):
    """A check is over when one of its nodes dies; another one's word on it comes when an operator has
    changed something, twice, and what the first policy was has gone."""
    c = redisd.Cluster(tmp_path)
    try:
        c.start()
        text = rules(rule("user", rate=f"400/{LONG}"), rule("org", per='[ "org" ]', rate=f"700/{LONG}"))
        a = Admin(run, tmp_path, rules=text, top=c.group(timeout="1m"))

        def found_at(node, **fields):
            before = set(node.keys())
            assert a.agent.check(**fields)["reason"] == "ok"
            return set(node.keys()) != before
        dies, waits = c.nodes[:2]
        user = next(u for u in (f"u{i}" for i in range(1000)) if found_at(dies, user=u))
        org = next(o for o in (f"o{i}" for i in range(1000)) if found_at(waits, org=o))
        dies.pause()
        waits.pause()
        calls = a.value("ratelimit_redis_call_duration_seconds_count")
        got = []
        asking = threading.Thread(target=lambda: got.append(a.agent.check(user=user, org=org)))
        asking.start()
        until(lambda: a.value("ratelimit_checks_waiting") == 1, "the check")
        dies.kill()
        dies.stopped = False
        asking.join()
        for who in ("one", "two"):
            override(a, user=who, bypass=True)
            served(a, "bypassed", user=who)
        waits.resume()
        until(lambda: a.value("ratelimit_redis_call_duration_seconds_count") > calls, "the late word")
    finally:
        c.finish()


def test_what_is_no_cluster_says_so(run, tmp_path, ends):
    """And a node of one that is taken for a single server."""
    single = ends(redisd.Server(tmp_path, "single"))
    a = run(rules=rule(), top=single.group(mode="cluster"))
    until(lambda: "cluster support disabled" in a.stderr, "a word on it")
    assert 'set redis.mode = \\"single' in a.stderr
    assert a.check(user="u")["reason"] == "degraded"


def test_a_node_taken_for_a_single_server_says_so(run, cluster):
    a = run(rules=rule(), top=cluster.nodes[0].group(on_failure="closed"))
    until(lambda: [a.check(user=f"u{i}") for i in range(20)] and "MOVED" in a.stderr, "a word on it")
    assert 'redis.mode = \\"cluster\\"' in a.stderr


def test_the_documented_acl_is_enough(cluster):
    """After all of this: nothing was refused to the agent's user."""
    for n in cluster.nodes:
        assert not [e for e in n.denied() if redisd.USER.encode() in e]
