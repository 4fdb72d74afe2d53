"""The master is where the sentinels say, and a failover is followed without a restart."""

import concurrent.futures
import contextlib
import time

import pytest

import redisd
from agent import Agent, free_port, until
from redisd import Asker, admitted, hammer
from spop import message
from test_limits import rule
from test_redis_away import LONG, said

@pytest.fixture(scope="module")
def group_of_three(tmp_path_factory):
    """For tests that leave the servers alone."""
    s = redisd.Sentinels(tmp_path_factory.mktemp("s"))
    try:
        yield s.start()
    finally:
        s.finish()


def test_the_master_is_found(run, group_of_three):
    s = group_of_three
    some = [run(rules=rule(rate=f"300/{LONG}"), top=s.group()) for _ in range(2)]
    answers = hammer(some, lambda n: [message("check", {"user": "u"})] * 100, 3)
    assert admitted(answers) == 300 and {a["reason"] for a in answers} == {"ok", "limited"}
    assert len(s.master().keys()) == 1


def test_dead_and_lying_sentinels(run, group_of_three):
    """One that is gone, one that hangs, one that answers nonsense, and one that knows no such
    master: as long as one other tells the truth."""
    s = group_of_three
    s.servers[0]("FLUSHALL")
    s.sentinels[0].kill()
    s.sentinels[1].pause()
    liar = redisd.Proxy(s.sentinels[2].address)
    liar.set("garbage")
    try:
        where = [s.addresses()[0], s.addresses()[1], liar.address, f"127.0.0.1:{free_port()}",
                 f"127.0.0.1:{s.servers[1].port}", s.addresses()[2]]
        a = run(rules=rule(), top=redisd.group(where, mode="sentinel", master=s.MASTER,
                                               timeout="200ms", on_failure="closed"))
        until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "the master")
        assert a.check(user="u")["remaining"] == 4
    finally:
        liar.close()
        s.sentinels[1].resume()
        s.sentinels[0].start()


def test_a_master_that_is_nobodys(run, group_of_three):
    s = group_of_three
    a = run(rules=rule(), top=redisd.group(s.addresses(), mode="sentinel", master="other",
                                           timeout="100ms", on_failure="closed"))
    assert a.check(user="u")["reason"] == "degraded"
    until(lambda: "redis.master" in a.stderr, "a word about the name")


def failover(directory, how):
    with contextlib.ExitStack() as ends:
        s = redisd.Sentinels(directory)
        ends.callback(s.finish)
        s.start()
        some = []
        for i in range(2):
            a = Agent(s.directory, rules=rule(rate=f"100000/{LONG}"), name=f"a{i}",
                      top=s.group(timeout="200ms", on_failure="closed"))
            ends.callback(a.finish)
            some.append(a.start())
        old = s.master()
        askers = [Asker(a, {"user": "u"}) for a in some]
        for x in askers:
            x.start()
        until(lambda: all(x.reasons()["ok"] >= 50 for x in askers), "Redis")
        if how == "kill":
            old.kill()
        elif how == "stop":
            old.pause()
        else:
            s.sentinels[0]("SENTINEL", "FAILOVER", s.MASTER)
        new = s.failed_over(old)
        back = time.monotonic()
        until(lambda: all(x.reasons(back)["ok"] >= 50 for x in askers), "the new master")
        if how == "stop":
            # The old one comes back as one that believes itself the master: nobody asks it.
            old.resume()
            time.sleep(0.5)
            again = time.monotonic()
            until(lambda: all(x.reasons(again)["ok"] >= 50 for x in askers), "the new master still")
        got = [x.stop() for x in askers]
        for one in got:
            assert max(seconds for _, seconds, _ in one) <= 0.2 + 1.0
            assert {a["reason"] for _, _, a in one} <= {"ok", "degraded"}
        assert new.keys()
        passed = sum(not a["deny"] for one in got for _, _, a in one)
        # Replication is asynchronous: the new master may lack the last few, and never has more.
        consumed = 100000 - some[0].check(user="u", cost=0)["remaining"]
        assert consumed >= passed - 500
        for a in some:
            assert len(said(a, "store_degraded")) <= 3, a.stderr


HOW = ("kill", "stop", "asked")


@pytest.fixture(scope="module")
def failovers(tmp_path_factory):
    """All at once: most of it is waiting."""
    with concurrent.futures.ThreadPoolExecutor(len(HOW)) as pool:
        yield {how: pool.submit(failover, tmp_path_factory.mktemp(how), how) for how in HOW}


@pytest.mark.parametrize("how", HOW)
def test_failover(failovers, how):
    """Under load: every check is answered in time, it ends by itself, and counters are where the
    new master has them."""
    failovers[how].result()


def test_sentinels_that_come_late(run, tmp_path, ends):
    s = redisd.Sentinels(tmp_path)
    a = run(rules=rule(), top=s.group(timeout="200ms", on_failure="closed"))
    assert a.check(user="u")["reason"] == "degraded"
    ends(s)
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "the master")
