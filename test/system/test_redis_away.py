"""Redis is slow, dead, full, lying, or was never there: every check is answered in time, by the
policy that was chosen, and it ends by itself when Redis is back.

Times are held only against bounds that are far beyond what is measured (TIMEOUT and NOISE), and
speed only against the memory store's in the same run.
"""

import concurrent.futures
import contextlib
import itertools
import os
import random
import re
import signal
import threading
import time

import pytest

import redisd
from agent import Agent, free_port, until
from redisd import Asker, admitted, hammer
from spop import message
from test_admin import Admin
from test_admin_changes import override
from test_ctl import call
from test_limits import rule, rules

LONG = "300d"
TIMEOUT = 0.05   # seconds; redis.timeout of these agents
NOISE = 2.5     # what a busy machine and a sanitizer may add
# Why the agent went without Redis, where nothing was wrong with it but that it took its time.
TOO_LATE = ("it does not answer within redis.timeout", "it answers later than redis.timeout", "it hangs")
PLAIN = {"deny", "reason", "tier", "shadow", "tag", "warn"}


@pytest.fixture
def redis(tmp_path, ends):
    return ends(redisd.Server(tmp_path))


@pytest.fixture
def wire(redis, ends):
    """What the agents are told is Redis."""
    return ends(redisd.Proxy(redis.address))


def group(where, on_failure="local", **more):
    where = where if isinstance(where, str) else where.address
    return redisd.group(where, **{"timeout": "50ms", "on_failure": on_failure, **more})


def nowhere():
    return f"127.0.0.1:{free_port()}"


def said(agent, what):
    return [x for x in agent.lines() if what in x]


def is_over(agent, before=0):
    """It has ended as often as it has begun, and more than `before` times."""
    return before < len(said(agent, "store_recovered")) == len(said(agent, "store_degraded"))


def began_and_ended(agent, before=0):
    """One line when it began, one when it ended, after so many of each. (50 ms are not much for a busy
    machine: it may begin once more, at any time after, and says that this was for an answer that came late.)"""
    until(lambda: is_over(agent, before), "a line when it ends")
    again = said(agent, "store_degraded")[before + 1:]
    assert all(any(why in x for why in TOO_LATE) for x in again), agent.stderr


def in_a_row(got, reason):
    """How many of the last answers are of this kind."""
    return sum(1 for _ in itertools.takewhile(lambda x: x[2]["reason"] == reason, reversed(got)))


def in_time(got):
    worst = max(seconds for _, seconds, _ in got)
    assert worst <= TIMEOUT + NOISE, f"one of {len(got)} took {worst:.3f} s"


# --- the policies ----------------------------------------------------------------------------

def test_open(run):
    a = run(rules=rule(rate="2/day"), top=group(nowhere(), "open"))
    for _ in range(5):
        answer = a.check(user="u")
        assert (answer["deny"], answer["reason"]) == (False, "degraded")


@pytest.mark.parametrize("policy", ["open", "closed"])
def test_what_could_never_pass_needs_no_store_to_be_denied(run, policy):
    a = run(rules=rules(rule("none", match='{ tier = "out"; }', rate="0/day"), rule(rate="9/day")),
            top=group(nowhere(), policy))
    for args, name in (({"cost": 10}, "r"), ({"tier": "out"}, "none"), ({"tier": "out", "cost": 0}, "none")):
        answer = a.check(args, user="u")
        assert (answer["deny"], answer["reason"], answer["rule"], answer["retry_after"]) == (
            True, "oversize", name, 0)
    assert a.check(user="u", cost=9)["reason"] == "degraded"


def test_closed(run):
    a = run(rules=rule(rate="2/day"), top=group(nowhere(), "closed"))
    for _ in range(3):
        answer = a.check(user="u")
        assert (answer["deny"], answer["reason"]) == (True, "degraded")
        assert set(answer) <= PLAIN
    # Where no limit applies there is nothing to be away.
    assert a.check(x="y")["reason"] == "ok"


@pytest.mark.parametrize("policy, denied", [("open", 0), ("closed", 5), ("local", 3)])
def test_who_is_answered_without_it_is_counted(run, tmp_path, policy, denied):
    """As often as it is said, and no more: a denial of the policy's own memory is "limited"."""
    a = Admin(run, tmp_path, rules=rule(rate=f"2/{LONG}"), top=group(nowhere(), policy))
    got = [a.agent.check(user="u") for _ in range(5)]
    degraded = [x for x in got if x["reason"] == "degraded"]
    assert len(degraded) == (2 if policy == "local" else 5), got
    assert a.value("ratelimit_checks_degraded_total") == len(degraded)
    assert a.value("ratelimit_checks_denied_total") == sum(x["deny"] for x in got) == denied


ALGORITHMS = ("token-bucket", "sliding-window", "fixed-window")


@pytest.mark.parametrize("instances, n, most", [(1, 10, 10), (2, 10, 5), (3, 10, 3), (4, 3, 1),
                                                (10000, 5, 1)])
def test_local(run, instances, n, most):
    a = run(rules=rules(*(rule(x, per=f'[ "{x}" ]', rate=f"{n}/{LONG}", algorithm=f'"{x}"')
                          for x in ALGORITHMS)), top=group(nowhere(), instances=instances))
    for x in ALGORITHMS:
        for left in range(most - 1, -1, -1):
            answer = a.check({x: "u"})
            assert (answer["deny"], answer["reason"], answer["remaining"]) == (
                False, "degraded", left)
        for _ in range(2):
            answer = a.check({x: "u"})
            assert (answer["deny"], answer["reason"], answer["remaining"]) == (True, "limited", 0)
            assert answer["retry_after"] >= 1 and answer["rule"] == x
        assert a.check({x: "v"})["reason"] == "degraded"


def test_local_nothing_stays_nothing(run):
    a = run(rules=rules(rule("none", rate="0/day"), rule("r", rate="9/day")),
            top=group(nowhere(), instances=3))
    answer = a.check(user="u")
    assert (answer["deny"], answer["reason"], answer["rule"]) == (True, "oversize", "none")


def test_local_costs(run):
    """More than could ever pass is oversize by the limit as it is configured; more than this
    agent's share alone is limited."""
    a = run(rules=rule(rate=f"10/{LONG}"), top=group(nowhere(), instances=2))
    answer = a.check(user="u", cost=11)
    assert (answer["deny"], answer["reason"]) == (True, "oversize")
    answer = a.check(user="u", cost=7)
    assert answer["deny"] and answer["reason"] in ("limited", "oversize")
    assert a.check(user="u", cost=5)["reason"] == "degraded"
    answer = a.check(user="u", cost=0)
    assert (answer["deny"], answer["reason"]) == (True, "limited")


@pytest.fixture(scope="module")
def several_policies(shared):
    text = rules(rule("open", per='[ "o" ]', on_failure='"open"'),
                 rule("closed", per='[ "c" ]', on_failure='"closed"'),
                 rule("local", per='[ "l" ]', rate=f"9/{LONG}", on_failure='"local"'),
                 rule("dark", per='[ "sh" ]', mode='"shadow"', on_failure='"closed"'),
                 rule("tagged", per='[ "t" ]', action='"tag"', on_failure='"closed"'))
    a = shared(rules=text, top=group(nowhere()))
    assert a.check(l="used", cost=9)["reason"] == "degraded"
    return a


@pytest.mark.parametrize("args, denied, reason", [
    ({"o": "1"}, False, "degraded"), ({"c": "1"}, True, "degraded"), ({"l": "1"}, False, "degraded"),
    ({"o": "1", "c": "1"}, True, "degraded"), ({"o": "1", "l": "1"}, False, "degraded"),
    ({"c": "1", "l": "1"}, True, "degraded"), ({"l": "used"}, True, "limited"),
    ({"o": "1", "l": "used"}, True, "limited"), ({"sh": "1"}, False, "degraded"),
    ({"t": "1"}, False, "degraded"), ({"sh": "1", "l": "1"}, False, "degraded"), ({}, False, "ok"),
])
def test_each_rule_its_own(several_policies, args, denied, reason):
    answer = several_policies.check(args)
    assert (answer["deny"], answer["reason"]) == (denied, reason)


def test_the_stores_policy_is_that_of_rules_without_one(run):
    a = run(rules=rules(rule("a", per='[ "a" ]'), rule("b", per='[ "b" ]', on_failure='"open"')),
            top=group(nowhere(), "closed"))
    assert a.check(a="1")["deny"] is True and a.check(b="1")["deny"] is False


def test_closed_charges_nobody(run):
    a = run(rules=rules(rule("closed", per='[ "c" ]', on_failure='"closed"'),
                        rule("local", rate=f"3/{LONG}")), top=group(nowhere()))
    for _ in range(5):
        assert a.check(user="u", c="1")["deny"]
    assert a.check(user="u")["remaining"] == 2


def test_closed_says_what_else_there_is_to_say(run):
    """Of no limit; but that much is used of one, and what would deny in the shadows."""
    a = run(rules=rules(rule("closed", per='[ "c" ]', on_failure='"closed"'),
                        rule("local", rate=f"4/{LONG}", warn_at="0.5"),
                        rule("dark", rate=f"2/{LONG}", mode='"shadow"')), top=group(nowhere()))
    assert a.check(user="u", cost=2)["warn"] is False
    assert a.check(user="u", c="1") == {"deny": True, "reason": "degraded", "tier": "anonymous",
                                        "shadow": "dark"}
    assert a.check(user="u")["warn"] is True
    assert a.check(user="u", c="1") == {"deny": True, "reason": "degraded", "tier": "anonymous",
                                        "shadow": "dark", "warn": True}


def test_block_allow_and_disabled_ask_nobody(run):
    a = run(rules=rule(), top=group(nowhere(), "closed") +
            'block = ( { user = "bad"; } ); allow = ( { user = "good"; } );')
    assert a.check(user="bad")["reason"] == "blocked"
    assert a.check(user="good")["reason"] == "bypassed"


def test_a_policy_follows_reload(run):
    top = group(nowhere())
    a = run(rules=rule(on_failure='"open"'), top=top)
    assert a.check(user="u")["deny"] is False
    a.rewrite(rule(on_failure='"closed"'), top=top)
    a.reload(lambda: a.check(user="u")["deny"])


# --- never there -----------------------------------------------------------------------------

def test_absent_at_the_start(run, tmp_path, ends):
    redis = redisd.Server(tmp_path)
    a = run(rules=rule(), top=redis.group(timeout="100ms", on_failure="closed"))
    assert a.check(user="u")["reason"] == "degraded"
    ends(redis)
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "Redis to be found")
    assert a.check(user="u")["remaining"] == 4
    began_and_ended(a)


def test_an_absent_unix_socket(run, tmp_path, ends):
    redis = redisd.Server(tmp_path)
    a = run(rules=rule(), top=group(redis.path, "open"))
    assert a.check(user="u")["reason"] == "degraded"
    ends(redis)
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "Redis to be found")


def test_a_name_that_is_nobodys(run):
    """Whatever a resolver does, and however long: nobody waits for it, nor does the stop."""
    a = run(rules=rule(), top=group("no-such-host.invalid:6379", "open"))
    with Asker(a, {"user": "u"}) as asker:
        until(lambda: len(asker.got) >= 50, "answers")
    in_time(asker.got)
    assert set(asker.reasons()) == {"degraded"}
    began = time.monotonic()
    assert a.stop() == 0 and time.monotonic() - began < 10


# --- faults ----------------------------------------------------------------------------------

@contextlib.contextmanager
def killed(redis, wire):
    redis.kill()
    yield
    redis.start()


@contextlib.contextmanager
def shut_down(redis, wire):
    assert redis.stop() == 0
    yield
    redis.start()


@contextlib.contextmanager
def stopped(redis, wire):
    redis.pause()
    yield
    redis.resume()


def wired(mode, delay=0.0):
    @contextlib.contextmanager
    def fault(redis, wire):
        wire.set(mode, delay)
        yield
        wire.set("pass")
    fault.__name__ = mode if not delay else f"late_{delay}"
    return fault


def asked(name, before, after):
    """A fault that Redis is asked for."""
    @contextlib.contextmanager
    def fault(redis, wire):
        with redis.client() as c:
            for args in before:
                c(*args)
            yield
            for args in after:
                c(*args)
    fault.__name__ = name
    return fault


def lost(name, *settings):
    return asked(name, [("CONFIG", "SET", *s[:2]) for s in settings],
                 [("CONFIG", "SET", s[0], s[2]) for s in settings])


@contextlib.contextmanager
def loading(redis, wire):
    with redis.client() as c:
        for i in range(3000):
            c("SET", f"other:{i}", "x" * 64)
        # (By a child: it would be away for that already, and come back, before it is away.)
        c("BGSAVE")
    until(lambda: redis.info("persistence")["rdb_bgsave_in_progress"] == "0", "what it will load")
    redis.kill()
    slow = "key-load-delay 500\nloading-process-events-interval-bytes 1024\n"
    with open(redis.conf, "a", encoding="ascii") as f:
        f.write(slow)
    redis.start(ready=False)

    def loads():
        try:
            redis("PING")
        except redisd.ReplyError as e:
            return str(e).startswith("LOADING")
        except OSError:
            return False
    until(loads, "LOADING")
    yield
    until(redis.answers, "the end of loading")


@contextlib.contextmanager
def busy(redis, wire):
    with redis.client() as c, redis.client() as other:
        other("CONFIG", "SET", "lua-time-limit", "1")
        c.send("EVAL", "while true do end", "0")

        def is_busy():
            try:
                other("PING")
            except redisd.ReplyError as e:
                return str(e).startswith("BUSY")
            return False
        until(is_busy, "BUSY")
        yield
        other("SCRIPT", "KILL")
        with pytest.raises(redisd.ReplyError):
            c.read()


@contextlib.contextmanager
def no_disk(redis, wire):
    """A save that failed: Redis refuses to write, MISCONF."""
    with redis.client() as c:
        c("SET", "other:1", "x")
        c("CONFIG", "SET", "save", "100000 1")
        c("CONFIG", "SET", "rdb-key-save-delay", "100000000")
        c("BGSAVE")
        with open(f"/proc/{redis.pid}/task/{redis.pid}/children", encoding="ascii") as f:
            (child,) = map(int, f.read().split())
        os.kill(child, signal.SIGKILL)
        until(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", "MISCONF")
        yield
        c("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")


USER = redisd.USER
AWAY = [
    killed, shut_down, stopped, wired("cut"), wired("hang"), wired("drop"), wired("mute"),
    wired("pass", 0.15), wired("pass", 0.3), loading, busy, no_disk,
    lost("oom", ("maxmemory", "1", "0")),
    lost("no_replicas", ("min-replicas-to-write", "1", "0")),
    asked("read_only", [("REPLICAOF", "127.0.0.1", "1")], [("REPLICAOF", "NO", "ONE")]),
    asked("master_down", [("CONFIG", "SET", "replica-serve-stale-data", "no"),
                          ("REPLICAOF", "127.0.0.1", "1")], [("REPLICAOF", "NO", "ONE")]),
    asked("user_off", [("ACL", "SETUSER", USER, "off"), ("CLIENT", "KILL", "USER", USER)],
          [("ACL", "SETUSER", USER, "on")]),
    asked("no_permission", [("ACL", "SETUSER", USER, "-evalsha")],
          [("ACL", "SETUSER", USER, "+evalsha")]),
    asked("no_keys", [("ACL", "SETUSER", USER, "resetkeys")],
          [("ACL", "SETUSER", USER, "~rl:2:*")]),
    asked("too_many_clients", [("CONFIG", "SET", "maxclients", "1"),
                               ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")],
          [("CONFIG", "SET", "maxclients", "100")]),
]


def named(name):
    return next(f for f in AWAY if f.__name__ == name)


def away_and_back(directory, fault):
    with contextlib.ExitStack() as ends:
        redis = redisd.Server(directory)
        ends.callback(redis.finish)
        redis.start()
        wire = redisd.Proxy(redis.address)
        ends.callback(wire.finish)
        a = Agent(directory, rules=rule(rate=f"1000000/{LONG}"), top=group(wire))
        ends.callback(a.finish)
        a.start()
        with Asker(a, {"user": "u"}) as one, Asker(a, {"user": "v"}) as two:
            both = (one, two)
            until(lambda: all(x.reasons()["ok"] >= 20 for x in both) and is_over(a, -1), "Redis")
            start, before = time.monotonic(), len(said(a, "store_degraded"))
            with fault(redis, wire):
                until(lambda: all(x.reasons(start)["degraded"] for x in both), "the failure")
                since = time.monotonic()
                time.sleep(0.4)
                until(lambda: all(len(x.since(since)) >= 20 for x in both), "answers")
                during = one.since(since) + two.since(since)
            back = time.monotonic()
            until(lambda: all(x.reasons(back)["ok"] for x in both), "recovery")
            until(lambda: is_over(a, before), "its own word of it")
            after = time.monotonic()
            until(lambda: all(in_a_row(x.since(after), "ok") >= 20 for x in both), "more")
        got = one.got + two.got
        in_time(got)
        assert {x["reason"] for _, _, x in got} == {"ok", "degraded"}
        assert not any(x["deny"] for _, _, x in got)
        # Nobody waits for a deadline after the first few.
        took = sorted(seconds for _, seconds, _ in during)
        assert took[len(took) // 2] < 0.6 * TIMEOUT, took
        bad = sum(x["reason"] == "degraded" for _, _, x in during)
        assert bad >= len(during) * 0.9, (
            f"{len(during) - bad} of {len(during)} were answered by a Redis that is away")
        # Who is degraded once more has waited for it, if he was the first: were Redis not asked, he would
        # not have.
        late = sorted((when, took) for when, took, x in got
                      if when + took > after - 0.5 and x["reason"] != "ok")
        assert not late or late[0][1] >= 0.8 * TIMEOUT, f"{late}\n{a.stderr}"
        began_and_ended(a, before)


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """What became of each fault that is asked for, several at a time: most of it is waiting."""
    wanted = [x.callspec.params["fault"] for x in request.session.items
              if getattr(x, "originalname", "") == "test_away_and_back"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield {f: pool.submit(away_and_back, tmp_path_factory.mktemp("f"), f) for f in wanted}


@pytest.mark.parametrize("fault", AWAY, ids=lambda f: f.__name__)
def test_away_and_back(outcomes, fault):
    """Answers in time throughout, at no cost after the first few; it begins, ends, and says both
    once."""
    outcomes[fault].result()


@pytest.mark.parametrize("fault, word", [
    (lost("oom", ("maxmemory", "1", "0")), "OOM"),
    (named("read_only"), "READONLY"), (named("master_down"), "MASTERDOWN"), (named("no_permission"), "NOPERM"), (busy, "BUSY"),
    # And what can be done about it, however this server words what a script's own command meets.
    (lost("oom", ("maxmemory", "1", "0")), "raise its maxmemory"),
    (named("read_only"), "redis.servers names a replica"),
    (asked("no_writes", [("ACL", "SETUSER", USER, "-set", "-setrange")],
           [("ACL", "SETUSER", USER, "+set", "+setrange")]), "its ACL denies"),
], ids=["oom", "read_only", "master_down", "no_permission", "busy", "oom_hint", "read_only_hint", "no_writes_hint"])
def test_what_redis_says_is_in_the_log(run, redis, wire, fault, word):
    a = redisd.settled(run(rules=rule(), top=group(wire)))
    with fault(redis, wire):
        until(lambda: a.check(user="u")["reason"] in ("degraded", "limited") and word in a.stderr,
              word)
    assert len(a.lines()) < 30


def test_another_behind_the_same_address(run, tmp_path, redis, wire, ends):
    """As behind a balancer that leaves alone what is connected already: who has become a replica is
    not stayed with."""
    other = ends(redisd.Server(tmp_path, "other", keys="rl:*", settings=[
        f"replicaof 127.0.0.1 {redis.port}", f"masterauth {redisd.ADMIN}", "repl-diskless-sync-delay 0"]))
    redis("CONFIG", "SET", "masterauth", redisd.ADMIN)
    redis("ACL", "SETUSER", redisd.USER, "~rl:*", *("+" + x for x in redisd.CHANGES_COMMANDS))
    until(lambda: other.info("replication")["master_link_status"] == "up", "the replica")
    a = Admin(run, tmp_path, rules=rule(rate=f"1000/{LONG}"), top=group(wire, timeout="5s"))
    redisd.settled(a.agent)
    assert a.agent.check(user="u")["remaining"] == 999
    until(lambda: other.keys() == redis.keys(), "it to be there")
    wire.target = other.address
    other("REPLICAOF", "NO", "ONE")
    redis("REPLICAOF", "127.0.0.1", other.port)
    until(lambda: a.agent.check(user="u")["reason"] == "ok" and other("EXISTS", *other.keys()), "the other")
    for _ in range(4):
        with a.agent.connect() as c:
            until(lambda c=c: c.check({"user": "u"}, cost=0)["reason"] == "ok", "the other")
    override(a, user="boss", bypass=True)
    until(lambda: other("HLEN", "rl:{changes}") == 1, "the change to be there")
    # Where there is no other one, it is not asked for ever more often.
    wire.target, before = redis.address, wire.accepted
    wire.cut()
    until(lambda: a.agent.check(user="u")["reason"] == "degraded" and "redis.servers names a replica" in
          a.agent.stderr, "the replica")
    with Asker(a.agent, {"user": "u"}) as asker:
        until(lambda: len(asker.got) >= 500, "answers")
        time.sleep(2)
    assert wire.accepted - before <= 60, wire.accepted - before


def test_a_command_that_is_not_there_is_no_server_that_is_away(run, tmp_path, ends):
    """Whoever answers runs, and can be reached: nobody is sent to look for that."""
    redis = ends(redisd.Server(tmp_path, settings=['rename-command EVALSHA ""']))
    a = run(rules=rule(), top=redis.group(timeout="5s"))
    line = until(lambda: a.check(user="u") and said(a, "store_degraded"), "a word on it")[0]
    hint = line.split("hint=")[1]
    assert "ERR unknown command" in line and "renamed" in hint and "reached" not in hint, line


def test_garbage(run, redis, wire):
    """A server that answers nonsense, whatever its shape, does not end the agent, nor confuse it
    for longer than it lasts."""
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(wire, timeout="50ms"))
    with Asker(a, {"user": "u"}) as asker:
        until(lambda: asker.reasons()["ok"] >= 10, "Redis")
        for one in redisd.GARBAGE:
            wire.garbage = iter(lambda one=one: one, None)
            wire.set("garbage")
            time.sleep(0.05)
            wire.set("pass")
            wire.cut()
            time.sleep(0.02)
        back = time.monotonic()
        until(lambda: asker.reasons(back)["ok"] >= 10, "recovery")
    in_time(asker.got)
    assert set(asker.reasons()) <= {"ok", "degraded", "limited"}
    assert len(a.lines()) < 200


def test_garbage_throughout(run, redis, wire):
    wire.set("garbage")
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(wire, "closed", timeout="50ms"))
    with Asker(a, {"user": "u"}) as asker:
        time.sleep(1)
        wire.set("pass")
        wire.cut()
        back = time.monotonic()
        until(lambda: asker.reasons(back)["ok"] >= 10, "recovery")
    in_time(asker.got)


def test_latency_below_the_timeout_is_no_failure(run, redis, wire):
    """And is had once for all that is under way, not once for each."""
    wire.set("pass", 0.05)
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(wire, "closed", timeout="5s"))
    until(lambda: a.check(user="u")["reason"] == "ok", "a connection")
    began = time.monotonic()
    answers = hammer([a], lambda n: [message("check", {"user": "u"})] * 200, 4)
    took = time.monotonic() - began
    assert {x["reason"] for x in answers} == {"ok"} and not said(a, "store_degraded ")[1:]
    # One after the other they would take 40 s.
    assert took < 20, took


def test_all_that_is_under_way_is_answered(run, redis, wire):
    """At its deadline, not when a connection is given up."""
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(wire, "closed", timeout="1s"))
    until(lambda: a.check(user="u")["reason"] == "ok", "Redis")
    wire.set("drop")
    cs = [a.connect() for _ in range(4)]
    began = time.monotonic()
    keys = [(c, c.notify(message("check", {"user": f"u{i}"}))) for i in range(45) for c in cs]
    assert {c.wait(k)["reason"] for c, k in keys} == {"degraded"}
    assert time.monotonic() - began <= 1.0 + NOISE  # given up: after 5 s
    for c in cs:
        c.silent()
        c.close()


def test_peers_that_leave_while_redis_hangs(run, redis, wire):
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(wire, "closed"))
    until(lambda: a.check(user="u")["reason"] == "ok", "Redis")
    wire.set("hang")
    for how in ("close", "reset"):
        c = a.connect()
        for _ in range(20):
            c.notify(message("check", {"user": "u"}))
        getattr(c, how)()
    assert a.check(user="u")["reason"] == "degraded"
    wire.set("pass")
    until(lambda: a.check(user="u")["reason"] == "ok", "recovery")


def test_stop_while_redis_hangs(run, redis, wire):
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(wire, "closed", timeout="500ms"),
            agent='drain = "1s";')
    until(lambda: a.check(user="u")["reason"] == "ok", "Redis")
    wire.set("hang")
    c = a.connect()
    keys = [c.notify(message("check", {"user": "u"})) for _ in range(10)]
    a.send_signal(signal.SIGTERM)
    assert {c.wait(k)["reason"] for k in keys} == {"degraded"}
    c.close()
    a.forget()
    assert a.wait() == 0


@pytest.mark.parametrize("takes, timeout, reason", [(0.8, "3s", "ok"), (2, "5s", "ok"), (9, "1s", "degraded")])
def test_a_stop_waits_for_what_redis_is_asked(run, redis, wire, takes, timeout, reason):
    """As long as a check may take: it is longer than a drain here."""
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(wire, "closed", timeout=timeout),
            agent='drain = "100ms";')
    until(lambda: a.check(user="u")["reason"] == "ok", "Redis")
    c = a.connect(bound=20)
    wire.set("pass", takes)
    keys = [c.notify(message("check", {"user": "u"})) for _ in range(10)]
    a.send_signal(signal.SIGTERM)
    assert {c.wait(k)["reason"] for k in keys} == {reason}
    a.forget()
    assert a.wait() == 0


def test_a_stop_does_not_wait_for_ever(run, redis, wire):
    """redis.timeout is bounded by a minute, a stop by some seconds: what is left then is let go."""
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(wire, "closed", timeout="1m"),
            agent='drain = "100ms";')
    until(lambda: a.check(user="u")["reason"] == "ok", "Redis")
    c = a.connect(bound=20)
    wire.set("hang")
    c.notify(message("check", {"user": "u"}))
    a.send_signal(signal.SIGTERM)
    a.forget()
    assert a.wait() == 0
    assert not said(a, "state_lost")
    c.close()


# --- what was consumed -----------------------------------------------------------------------

@pytest.mark.parametrize("algorithm", ["token-bucket", "sliding-window", "fixed-window"])
@pytest.mark.parametrize("instances, before, after", [(1, 60, 40), (1, 100, 0), (2, 20, 30),
                                                      (2, 60, 0), (4, 0, 25)])
def test_no_free_burst(run, redis, wire, algorithm, instances, before, after):
    """Memory is kept warm: what was consumed through Redis is not given again."""
    a = run(rules=rule(rate=f"100/{LONG}", algorithm=f'"{algorithm}"'),
            top=group(wire, instances=instances, timeout="5s"))    # no deadline is to be missed
    redisd.settled(a)
    assert all(not a.check(user="u")["deny"] for _ in range(before))
    wire.set("cut")
    answers = [a.check(user="u") for _ in range(after + 5)]
    assert {x["reason"] for x in answers} <= {"degraded", "limited"}
    assert admitted(answers) == after


def test_no_free_burst_under_load(run, redis, wire):
    """Killed in the middle of a flood: Redis and memory together give the limit, and no more."""
    a = run(rules=rule(rate=f"2000/{LONG}"), top=group(wire, timeout="1s"))
    until(lambda: a.check(user="x")["reason"] == "ok", "Redis")
    timer = threading.Timer(0.1, redis.kill)
    timer.start()
    answers = hammer([a], lambda n: [message("check", {"user": "u"})] * 800, 4, 40)
    timer.join()
    # What was charged there for answers that never came is used up as well.
    assert 2000 - 4 * 40 <= admitted(answers) <= 2000
    assert {x["reason"] for x in answers} <= {"ok", "degraded", "limited"}


def test_what_was_charged_is_not_charged_again(run, redis, wire):
    """An answer that was lost: its charge stands, once."""
    a = run(rules=rule(rate=f"100/{LONG}"), top=group(wire, "closed"))

    def by_redis():
        got = a.check(user="u", cost=0)
        return got["reason"] == "ok" and got
    until(by_redis, "Redis")
    for mode in ("mute", "drop"):
        wire.set(mode)
        assert a.check(user="u")["reason"] == "degraded"
        time.sleep(0.3)
        wire.set("pass")
        wire.cut()
        got = until(by_redis, "recovery")
    assert got["remaining"] == 99


def test_late_answers_are_nobodys(run, redis, wire):
    """What comes after its deadline is not taken for the answer to another."""
    text = rules(rule("u", rate=f"1000/{LONG}"), rule("x", per='[ "x" ]', rate=f"7/{LONG}"))
    a = run(rules=text, top=group(wire, "open", timeout="50ms"))
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "Redis")
    for delay in (0.06, 0.08, 0.15, 0.05, 0.045, 0.055):
        wire.set("pass", delay)
        with a.connect() as c:
            for _ in range(4):
                keys = [c.notify(message("check", {f: "a"})) for f in ("user", "x") * 3]
                for field, key in zip(("user", "x") * 3, keys):
                    answer = c.wait(key)
                    if answer["reason"] in ("ok", "limited"):
                        assert (answer["rule"], answer["limit"]) == (
                            ("u", 1000) if field == "user" else ("x", 7))
    wire.set("pass")
    # From here on no deadline is to be missed.
    a.rewrite(rules=text, top=group(wire, "open", timeout="5s"))
    a.reload(lambda: "generation=2" in a.stderr)
    until(lambda: a.check(user="new", cost=0)["reason"] == "ok", "recovery")
    for left in (999, 998):
        assert a.check(user="new")["remaining"] == left
    for left in (6, 5):
        assert a.check(x="new")["remaining"] == left


def test_never_more_than_the_limit_whatever_happens(run, redis, wire):
    """Closed: what Redis does not admit, nobody does. Faults of every kind, one after the other."""
    some = [run(rules=rule(rate=f"3000/{LONG}"), top=group(wire, "closed", timeout="50ms"))
            for _ in range(2)]
    random_ = random.Random(7)
    over = threading.Event()

    def trouble():
        while not over.wait(random_.uniform(0.02, 0.15)):
            wire.set(random_.choice(["pass", "pass", "hang", "drop", "mute", "cut", "pass"]),
                     random_.choice([0, 0, 0.03, 0.07]))
            if random_.random() < 0.3:
                redis("SCRIPT", "FLUSH")
        wire.set("pass")
    t = threading.Thread(target=trouble)
    t.start()
    got = []
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            got += hammer(some, lambda n: [message("check", {"user": "u"})] * 40, 2, 20)
    finally:
        over.set()
        t.join()
    until(lambda: all(a.check(user="v")["reason"] == "ok" for a in some), "recovery")

    def spent():
        """All of it, however many of these miss their deadline."""
        got.extend(hammer(some, lambda n: [message("check", {"user": "u"})] * 250, 2))
        return sum(x["reason"] == "limited" for x in got[-1000:]) >= 500
    until(spent, "the limit")
    assert admitted(got) <= 3000
    assert {x["reason"] for x in got} == {"ok", "degraded", "limited"}


# --- what it costs ---------------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["refuse", "hang"])
def test_a_dead_redis_costs_nothing(run, redis, wire, mode):
    """As fast as the memory store, by and large."""
    text = rule(rate=f"100000000/{LONG}")
    memory = run(rules=text, top='store: { backend = "memory"; };')
    if mode == "hang":
        wire.set("hang")
    away = run(rules=text, top=group(wire if mode == "hang" else nowhere()))
    with memory.connect() as m, away.connect() as r:
        def rate(c):
            began = time.monotonic()
            answers = c.batch([message("check", {"user": "u"})] * 1500)
            assert admitted(answers) == 1500
            return 1500 / (time.monotonic() - began)
        rate(m), rate(r)
        most = {c: max(x) for c, x in zip((m, r), zip(*((rate(m), rate(r)) for _ in range(3))))}
        assert most[r] >= 0.3 * most[m], (most[r], most[m])


def test_no_storm_of_connections(run, redis, wire):
    wire.set("cut")
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(wire), agent="threads = 2;")
    with Asker(a, {"user": "u"}, 0.001):
        time.sleep(1.5)
        tried = wire.accepted
        # Two workers, 50 ms apart at first, then twice as long each time.
        assert 1 <= tried <= 30, tried


def test_no_flood_of_log_lines(run, redis, wire):
    wire.set("cut")
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(wire))
    with Asker(a, {"user": "u"}, 0):
        time.sleep(1)
    assert len(said(a, "store_degraded")) == 1 and len(a.lines()) < 30
    # While it flickers, a line now and then.
    for _ in range(30):
        wire.set("pass")
        time.sleep(0.02)
        a.check(user="u")
        wire.set("cut")
        time.sleep(0.02)
        a.check(user="u")
    assert len(a.lines()) < 120


def test_status_says_why_since_when_and_which_server(run, tmp_path, redis, wire):
    """As the log does, once; and until it is over."""
    a = Admin(run, tmp_path, top=group(wire))
    until(lambda: a.agent.check(user="u")["reason"] in ("ok", "limited"), "Redis")
    store = a.ask("/api/v1/status").json["store"]
    assert store["state"] == "well" and not {"reason", "since", "server", "hint"} & store.keys(), store
    before = int(time.time())
    redis.kill()

    def degraded():
        s = a.ask("/api/v1/status").json["store"]
        return s["state"] == "degraded" and s
    store = until(degraded, "it is missed")
    assert store["reason"] and store["hint"] and store["server"] == wire.address, store
    assert before - 1 <= store["since"] <= time.time() + 1, store
    told = call("status", "--socket", a.socket)
    assert re.search(rf"(?m)^degraded +since .*{re.escape(store['server'])}; ", told.stdout), told
    redis.start()
    until(lambda: a.ask("/api/v1/status").json["store"]["state"] == "well", "it is back")
    assert "since" not in a.ask("/api/v1/status").json["store"]


def test_explain_says_that_checks_are_decided_otherwise(run, tmp_path, redis, wire):
    """Redis tells explain what it has, as nothing is written for that, and refuses the checks."""
    def explain():
        return a.ask("/api/v1/explain", "POST", headers={"Content-Type": "application/json"},
                     body='{"user": "u"}').json

    a = Admin(run, tmp_path, rules=rule(), top=group(wire, "closed"))
    until(lambda: a.agent.check(user="u")["reason"] == "ok", "Redis")
    until(lambda: explain()["threads_degraded"] == 0, "all is well")
    with lost("oom", ("maxmemory", "1", "0"))(redis, wire):
        until(lambda: a.agent.check(user="u")["reason"] == "degraded" and explain()["threads_degraded"],
              "it refuses")
        # A thread without checks soon takes Redis for well again, which answers all but writes.
        until(lambda: a.agent.check(user="u")["reason"] == "degraded" and
              "by the failure policy" in call("explain", "--socket", a.socket, "user=u").stdout, "ratelimitctl to say so")
    until(lambda: a.agent.check(user="u")["reason"] == "ok", "Redis again")
    until(lambda: explain()["threads_degraded"] == 0, "all is well again")
    assert "by the failure policy" not in call("explain", "--socket", a.socket, "user=u").stdout


def test_status_says_so_of_a_server_whose_name_is_no_utf8(run, tmp_path):
    a = Admin(run, tmp_path, top=group("${REDIS_AT}"), env={"REDIS_AT": "/nowhere/r\udce4.sock"})

    def told():
        s = a.ask("/api/v1/status").json["store"]
        return s["state"] == "degraded" and s
    store = until(told, "it is missed")
    assert store["reason"] and store["hint"] and store["server"].startswith("/nowhere/r"), store
