"""The master is where the sentinels say, and a failover is followed without a restart."""

import concurrent.futures
import contextlib
import time

import pytest

import redisd
from agent import Agent, free_port, until
from redisd import Asker, admitted, hammer
from sentineld import Sentinel
from spop import message
from test_limits import rule
from test_redis_away import LONG, NOISE, said

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
                                               timeout="5s", on_failure="closed"))
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


@pytest.mark.parametrize("db", [0, 1])
def test_who_takes_a_sentinel_for_the_server_is_told(run, group_of_three, db):
    """Redis knows each of its own commands; what sentinels do not know tells who they are."""
    a = run(rules=rule(), top=redisd.group(group_of_three.addresses()[0], timeout="100ms",
                                           on_failure="closed", db=db, user="", password=""))
    line = until(lambda: said(a, "store_degraded"), "a line in the log")[0]
    assert 'redis.mode = \\"sentinel\\"' in line, line


def test_who_takes_the_server_for_a_sentinel_is_told(run, group_of_three):
    s = group_of_three
    a = run(rules=rule(), top=redisd.group(f"127.0.0.1:{s.servers[0].port}", mode="sentinel", master=s.MASTER,
                                           timeout="100ms", on_failure="closed"))
    line = until(lambda: said(a, "redis_sentinel_away"), "a line in the log")[0]
    assert "hint=" in line and 'hint=""' not in line, line


def test_a_sentinel_that_is_away_has_a_hint(run, group_of_three):
    a = run(rules=rule(), top=redisd.group([f"127.0.0.1:{free_port()}", group_of_three.addresses()[0]],
                                           mode="sentinel", master=group_of_three.MASTER, timeout="5s"))
    line = until(lambda: said(a, "redis_sentinel_away"), "a line in the log")[0]
    assert "can be reached from here" in line, line


# --- what they say by themselves ---------------------------------------------------------------

@pytest.fixture
def two(tmp_path, ends):
    """Masters that know nothing of each other."""
    return [ends(redisd.Server(tmp_path, f"m{i}")) for i in range(2)]


def sentinel(ends, of):
    return ends(Sentinel(("127.0.0.1", of.port)))


def group(*where, **more):
    """No deadline is to be missed: what sentinels do costs no check anything."""
    return redisd.group([x.address for x in where], mode="sentinel",
                        **{"timeout": "5s", "on_failure": "closed", **more})


def agents_of(server):
    return [f"user={redisd.USER}" in x for x in server("CLIENT", "LIST").decode().splitlines()]


def in_use(server):
    return any(agents_of(server))


def test_news_are_followed_at_once(run, ends, two):
    """Before they would have been asked again: that is seen by how much sooner they are asked."""
    s = sentinel(ends, two[0])
    a = run(rules=rule(), top=group(s))
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok" and s.listeners, "the master")
    took = []
    for i in range(6):
        before = len(s.asked)
        until(lambda: len(s.asked) > before, "a question")
        before, began = len(s.asked), time.monotonic()
        s.master = ("127.0.0.1", two[(i + 1) % 2].port)
        s.say()
        until(lambda: len(s.asked) > before, "a question")
        took.append(s.asked[before] - began)
        until(lambda: in_use(two[(i + 1) % 2]) and not in_use(two[i % 2]), "the other master")
    # As often as it is asked without.
    before = len(s.asked)
    until(lambda: len(s.asked) >= before + 3, "questions")
    usual = (s.asked[before + 2] - s.asked[before]) / 2
    assert sorted(took)[len(took) // 2] < usual / 2, (took, usual)


def test_a_failover_is_told_as_one(run, ends, two):
    """Not that one should see whether Redis runs: it does."""
    s = sentinel(ends, two[0])
    a = run(rules=rule(), top=group(s))
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok" and s.listeners, "the master")
    s.master = ("127.0.0.1", two[1].port)
    s.say()
    until(lambda: in_use(two[1]) and not in_use(two[0]), "the other master")
    (line,) = until(lambda: said(a, "store_degraded"), "a line")
    assert 'why="it has moved"' in line and f"server=127.0.0.1:{two[1].port} " in line
    assert "by the sentinels this is the master now" in line


def test_a_master_that_is_made_a_replica_by_hand(run, ends, two):
    """The mode that the hint would name is the one that is set; and it ends when the sentinels know."""
    s = sentinel(ends, two[0])
    a = run(rules=rule(rate=f"100/{LONG}"), top=group(s))
    until(lambda: a.check(user="u")["reason"] == "ok", "the master")
    two[0]("REPLICAOF", "127.0.0.1", two[1].port)
    until(lambda: a.check(user="u")["reason"] == "degraded", "an error")
    (line, *_) = until(lambda: said(a, "READONLY"), "a line")
    assert "a failover may be under way" in line and "redis.servers" not in line
    s.master = ("127.0.0.1", two[1].port)
    s.say()
    until(lambda: a.check(user="u")["reason"] == "ok", "the other master")


def test_who_says_too_much_and_who_says_nonsense(run, ends, two):
    """Nothing rests on what one of them pushes, and nobody waits for it."""
    good, loud, odd = (sentinel(ends, two[0]) for _ in range(3))
    odd.on_subscribe = b"*3\r\n$9\r\nsubscribe\r\n:7\r\n*0\r\n"
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(good, loud, odd))
    until(lambda: all(x.listeners for x in (good, loud, odd)), "them to be listened to")
    nonsense = [
        b"*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$-1\r\n",
        b"*3\r\n:1\r\n*0\r\n*-1\r\n", b"*0\r\n", b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"*-1\r\n",
        b"*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        b"*3\r\n$11\r\nunsubscribe\r\n$14\r\n+switch-master\r\n:0\r\n",
        b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:0\r\n", b"-ERR no\r\n", b"-\r\n",
        b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nx\r\n$1\r\ny\r\n",
        b">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\ny\r\n", b"$99999999\r\n", b"\0\r\n",
        b"*1000000\r\n", b"*2\r\n$4\r\npong\r\n$0\r\n\r\n" * 500]
    with Asker(a, {"user": "u"}) as asker:
        until(lambda: asker.reasons()["ok"] >= 20, "Redis")
        began = time.monotonic()
        for one in nonsense:
            odd.send(one)
            for _ in range(50):
                loud.say()
            odd.say("")
            odd.say("mymaster")
            odd.say("mymasters 192.0.2.1 1 192.0.2.1 1")
            time.sleep(0.1)
        over = time.monotonic()
    got = asker.since(began)
    assert {x["reason"] for _, _, x in got} == {"ok"}
    assert max(seconds for _, seconds, _ in got) < 0.2 + NOISE
    # 50 times each tenth of a second it was told to ask, and asked once at most, with some room.
    times = sum(began <= x <= over for x in loud.asked)
    assert 3 <= times <= 1.5 * 10 * (over - began), times
    # They are listened to once more.
    odd.on_subscribe = None
    until(lambda: odd.listeners and loud.listeners, "them to be listened to")


def test_a_subscription_that_hangs(run, ends, two, tmp_path):
    s = sentinel(ends, two[0])
    host, port = s.address.rsplit(":", 1)
    wire = ends(redisd.Proxy((host, int(port))))
    a = run(rules=rule(), top=redisd.group(wire.address, mode="sentinel", timeout="200ms"))
    until(lambda: s.listeners, "it to be listened to")
    first = s.listeners[0]
    wire.set("drop")
    # The proxy keeps what is open: only who looks finds that nothing comes any more.
    until(lambda: "it hangs" in a.stderr, "that to be found")
    wire.set("pass")
    until(lambda: any(x is not first for x in s.listeners), "it to be listened to again")
    before = len(s.asked)
    s.say()
    until(lambda: len(s.asked) > before, "a question")


def test_who_denies_a_subscription(run, tmp_path, ends, two):
    """It is asked all the same, and a line says what it is about."""
    s = ends(redisd.Server(tmp_path, "s", sentinel=True, auth=False, settings=[
        f"sentinel monitor m 127.0.0.1 {two[0].port} 1", f"sentinel auth-pass m {redisd.ADMIN}",
        f"user {redisd.USER} on >{redisd.PASSWORD} -@all +ping +sentinel|get-master-addr-by-name",
        "user default on nopass ~* &* +@all"]))
    a = run(rules=rule(), top=redisd.group(f"127.0.0.1:{s.port}", mode="sentinel", master="m",
                                           on_failure="closed"))
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "the master")
    assert not said(a, "redis_sentinel_silent"), "without a password it may"
    s("ACL", "SETUSER", "default", "-subscribe")
    b = run(rules=rule(), top=redisd.group(f"127.0.0.1:{s.port}", mode="sentinel", master="m",
                                           on_failure="closed"))
    until(lambda: b.check(user="u", cost=0)["reason"] == "ok", "the master")
    line, = until(lambda: said(b, "redis_sentinel_silent"), "a word about it")
    assert "NOPERM" in line and "+switch-master" in line


# --- masters with names ----------------------------------------------------------------------

def test_names_that_sentinels_say(run, ends, two):
    """One that says names, one that says names that nobody knows, and one of addresses."""
    named = ends(Sentinel(("localhost", two[0].port)))
    other = ends(Sentinel(("no-such-name.invalid", two[0].port)))
    a = run(rules=rule(), top=group(named, other))
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "the master")
    until(lambda: "no-such-name.invalid" in a.stderr, "a word about the other")
    # The same place by its address is the same place.
    plain = sentinel(ends, two[0])
    b = run(rules=rule(), top=group(other, plain, named))
    until(lambda: b.check(user="u", cost=0)["reason"] == "ok", "the master")
    # Another one, by its name.
    for s in (named, plain):
        s.master = ("localhost", two[1].port)
        s.say()
    for x in (a, b):
        x.check(user="u", cost=0)
    until(lambda: in_use(two[1]) and not in_use(two[0]), "the other master")
    # One of them may be there before the other.
    for x in (a, b):
        until(lambda x=x: x.check(user="u", cost=0)["reason"] == "ok", "the other master")
    for odd in ("", "a b", "x" * 300, "a/b", "a\0b", "\xff"):
        named.master = (odd, two[1].port)
        named.say()
        before = len(named.asked)
        until(lambda: len(named.asked) > before + 1, "questions")
        assert a.check(user="u", cost=0)["reason"] == "ok"
    assert len(said(a, "no host and port")) >= 1


def failover(directory, how):
    with contextlib.ExitStack() as ends:
        s = redisd.Sentinels(directory, names=how == "names")
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
        began = time.monotonic()
        if how in ("kill", "names"):
            old.kill()
        elif how == "stop":
            old.pause()
        else:
            s.sentinels[0]("SENTINEL", "FAILOVER", s.MASTER)
        new = s.failed_over(old)
        until(lambda: sum(agents_of(new)) >= 2 * len(some), "all workers to be there")
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
            assert max(seconds for _, seconds, _ in one) <= 0.2 + NOISE
            assert {a["reason"] for _, _, a in one} <= {"ok", "degraded"}
        assert new.keys()
        passed = sum(not a["deny"] for one in got for _, _, a in one)
        # Replication is asynchronous, and a master that was not asked to stop goes on until it is
        # told: the new one may lack what was admitted meanwhile, and never has more.
        meanwhile = sum(began - 0.5 <= when <= back for one in got for when, _, _ in one)
        consumed = 100000 - some[0].check(user="u", cost=0)["remaining"]
        unsure = sum(a["reason"] == "degraded" for one in got for _, _, a in one)
        assert passed - meanwhile <= consumed <= passed + unsure
        for a in some:
            assert len(said(a, "store_degraded")) <= 3, a.stderr


HOW = ("kill", "stop", "asked", "names")


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
    a = run(rules=rule(), top=s.group(timeout="5s", on_failure="closed"))
    assert a.check(user="u")["reason"] == "degraded"
    ends(s)
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "the master")
