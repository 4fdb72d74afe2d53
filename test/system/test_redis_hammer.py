"""Agents as processes of their own, 1 to 4, hammered at once over many keys and rules: what the client
counts is the limit. And while Redis is killed, stopped, started again or slow: every check is answered
by its deadline, none is lost, and the agents go on as they are."""

import collections
import random
import signal
import threading
import time

import pytest

import redisd
from agent import BOUND, until
from redisd import admitted
from spop import message
from test_limits import rule, rules
from test_redis_away import NOISE

LONG = "300d"
# Rule -> the field it counts by, its algorithm, its limit.
LIMITS = {"user": ("user", "token-bucket", 80), "org": ("org", "fixed-window", 150),
          "site": ("site", "sliding-window", 190), "pair": ("user+site", "token-bucket", 14),
          "key": ("key", "sliding-window", 60), "all": ("", "fixed-window", 1000)}


def text():
    def per(field):
        return "[ " + ", ".join(f'"{f}"' for f in field.split("+") if f) + " ]"
    return rules(*(rule(name, per=per(field), algorithm=f'"{algorithm}"', rate=f"{n}/{LONG}")
                   for name, (field, algorithm, n) in LIMITS.items()))


def keys_of(request):
    """The counters of a request."""
    return {(name, tuple(request[f] for f in field.split("+") if f))
            for name, (field, _, _) in LIMITS.items()}


class Flood(threading.Thread):
    """Requests on one connection, `window` of them under way; keeps what was asked, the answer, and
    the seconds that it took. Given no requests it goes on until it is told to stop."""

    def __init__(self, agent, requests=None, window=40, seed=0):
        super().__init__(daemon=True)
        self.agent, self.requests, self.window = agent, requests, window
        self.random = random.Random(seed)
        self.got, self.wrong = [], None
        self.over = threading.Event()

    def some(self):
        if self.requests is not None:
            yield from self.requests
            return
        while not self.over.is_set():
            yield {"user": f"u{self.random.randrange(1000)}"}

    def run(self):
        try:
            with self.agent.connect() as c:
                waiting = collections.deque()

                def finish():
                    request, began, key = waiting.popleft()
                    answer = c.wait(key)
                    self.got.append((request, answer, time.monotonic() - began, began))
                for request in self.some():
                    waiting.append((request, time.monotonic(),
                                    c.notify(message("check", request))))
                    if len(waiting) >= self.window:
                        finish()
                while waiting:
                    finish()
                c.silent()
        except Exception as e:      # pylint: disable=broad-except
            self.wrong = e

    def reasons(self, since=0.0):
        return collections.Counter(a["reason"] for _, a, _, began in list(self.got) if began >= since)


def finish(floods):
    for f in floods:
        f.over.set()
    for f in floods:
        f.join(3 * BOUND)
        assert not f.is_alive(), "an answer is missing"
        assert f.wrong is None, repr(f.wrong)
    return [x for f in floods for x in f.got]


@pytest.fixture
def redis(tmp_path, ends):
    return ends(redisd.Server(tmp_path))


@pytest.fixture
def wire(redis, ends):
    return ends(redisd.Proxy(redis.address))


# --- exactly the limit -------------------------------------------------------------------------

@pytest.mark.parametrize("most", [1, 3], ids=["ones", "costs"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_exactly_the_limit(run, redis, count, most):
    """Six rules of three algorithms that cut across each other, all or nothing: no counter is above its
    limit, every denial was for a counter that had no room, and each holds what the client counted."""
    some = [run(rules=text(), top=redis.group()) for _ in range(count)]
    rand = random.Random(count * 10 + most)
    # Some ask far more often than others.
    requests = [{**{f: f"{f}{int(30 * rand.random() ** 2)}" for f in ("user", "org", "site", "key")},
                 "cost": rand.randint(1, most)} for _ in range(2400)]
    n = 3 * count
    floods = [Flood(a, requests[i * count + j::n]) for j, a in enumerate(some) for i in range(3)]
    for f in floods:
        f.start()
    got = finish(floods)
    assert len(got) == len(requests)
    assert {a["reason"] for _, a, _, _ in got} == {"ok", "limited"}

    used = collections.Counter()
    for request, answer, _, _ in got:
        if not answer["deny"]:
            used.update({key: request["cost"] for key in keys_of(request)})
    over = {key: n for key, n in used.items() if n > LIMITS[key[0]][2]}
    assert not over, "above the limit"
    # Nothing refills: what had no room for a cost then has none for it now.
    for request, answer, _, _ in got:
        if answer["deny"]:
            full = {name for name, value in keys_of(request)
                    if used[name, value] + request["cost"] > LIMITS[name][2]}
            assert answer["rule"] in full, (request, answer)
    full = {LIMITS[name][1] for (name, _), n in used.items() if n + most > LIMITS[name][2]}
    assert len(full) == 3, "limits that are never reached tell nothing"
    # And Redis holds just that, key by key.
    for name, (field, _, limit) in LIMITS.items():
        assert sum(used[k] for k in used if k[0] == name) == sum(
            r["cost"] for r, a, _, _ in got if not a["deny"])
        alone = run(rules=rule(name, per="[ " + ", ".join(
            f'"{f}"' for f in field.split("+") if f) + " ]", rate=f"{limit}/{LONG}",
            algorithm=f'"{LIMITS[name][1]}"'), top=redis.group())
        for key in [k for k in used if k[0] == name]:
            args = dict(zip(field.split("+"), key[1])) if field else {"x": "y"}
            assert alone.check(args, cost=0)["remaining"] == limit - used[key], key
        alone.stop()


# --- in time -----------------------------------------------------------------------------------

def judged(some, floods, timeout, most=0):
    """The agents are those that were started, and every check was answered in time."""
    pids = [a.pid for a in some]
    got = finish(floods)
    worst = max(took for _, _, took, _ in got)
    assert worst <= timeout + NOISE, f"one of {len(got)} took {worst:.3f} s"
    assert all(a.running for a in some) and pids == [a.pid for a in some]
    assert {a["reason"] for _, a, _, _ in got} <= {"ok", "degraded", "limited"}
    return got


def killed(redis):
    redis.kill()
    time.sleep(0.3)
    redis.start()


def stopped(redis):
    redis.pause()
    time.sleep(4)         # far more than the deadline and what a machine may add
    redis.resume()


def restarted(redis):
    redis.send_signal(signal.SIGTERM)
    redis.wait()
    redis.start()


def flickering(redis):
    for _ in range(5):
        redis.pause()
        time.sleep(0.06)
        redis.resume()
        time.sleep(0.04)


@pytest.mark.parametrize("trouble", [killed, stopped, restarted, flickering],
                         ids=lambda f: f.__name__)
def test_four_agents_with_hundreds_under_way(run, redis, trouble):
    some = [run(rules=rule(rate=f"1000000/{LONG}"), top=redis.group(timeout="100ms"))
            for _ in range(4)]
    floods = [Flood(a, seed=i) for i, a in enumerate(some * 2)]
    for f in floods:
        f.start()
    until(lambda: all(f.reasons()["ok"] >= 50 for f in floods), "Redis")
    for _ in range(2):
        trouble(redis)
        back = time.monotonic()
        until(lambda at=back: all(f.reasons(at)["ok"] >= 50 for f in floods), "recovery")
    got = judged(some, floods, 0.1)
    assert not any(a["deny"] for _, a, _, _ in got)


# --- a reload while Redis is slow --------------------------------------------------------------

def test_a_reload_while_redis_is_slow(run, redis, wire):
    """Hundreds of checks wait for Redis as the rules they were planned by are replaced: each is
    answered by the rules it began with, and charged once; counters stay."""
    def some_rules(n):
        # Rules come and go around the one that stays, and its limit changes.
        more = [rule(f"r{i}", per='[ "x" ]', rate=f"{900 + n}/{LONG}") for i in range(n % 4)]
        return rules(*more, rule("user", rate=f"{100000 + n}/{LONG}"),
                     *([rule("last", per="[]", rate=f"1000000/{LONG}")] if n % 2 else []))
    top = redisd.group(wire.address, timeout="5s", on_failure="closed")
    a = run(rules=some_rules(0), top=top)
    redisd.settled(a)
    wire.set("pass", 0.15)
    floods = [Flood(a, [{"user": "u"}] * 600, seed=i) for i in range(4)]
    for f in floods:
        f.start()
    generations = 0
    while any(f.is_alive() for f in floods):
        generations += 1
        a.rewrite(some_rules(generations), top=top)
        a.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    got = finish(floods)
    assert len(got) == 2400 and generations >= 5
    assert {x["reason"] for _, x, _, _ in got} == {"ok"} and "store_degraded" not in a.stderr
    assert {x["rule"] for _, x, _, _ in got} == {"user"}
    limits = {x["limit"] - 100000 for _, x, _, _ in got}
    assert len(limits) >= 3 and limits <= set(range(generations + 1))
    # Each was charged once, whatever the limit was: another unit is left of it.
    used = sorted(x["limit"] - x["remaining"] for _, x, _, _ in got)
    assert used == list(range(1, 2401))
    wire.set("pass")
    until(lambda: a.check(user="u", cost=0)["limit"] == 100000 + generations, "the last reload")
    assert a.check(user="u", cost=0)["remaining"] == 100000 + generations - 2400


@pytest.mark.parametrize("mode, delay", [("pass", 0.2), ("hang", 0)], ids=["slow", "hangs"])
def test_a_reload_keeps_what_stands_in_for_redis(run, redis, wire, mode, delay):
    """What a client has used is remembered through reloads while Redis does not answer in time, and is
    what Redis has when it does."""
    def top():
        return redisd.group(wire.address, timeout="60ms", instances=2)
    a = run(rules=rule(rate=f"100/{LONG}"), top=top())
    redisd.settled(a)
    for left in range(99, 79, -1):
        assert a.check(user="u")["remaining"] == left
    wire.set(mode, delay)
    until(lambda: a.check(user="x")["reason"] == "degraded", "the failure")
    until(lambda: a.check(user="u", cost=0)["reason"] == "degraded", "the failure")
    assert a.check(user="u", cost=0)["remaining"] == 30
    for i in range(4):
        a.rewrite(rule(rate=f"{100 + 20 * (i + 1)}/{LONG}"), top=top())
        a.reload(lambda n=50 + 10 * (i + 1): a.check(user="u", cost=0)["limit"] == n)
        # Half of the limit, less the 20 that Redis had told, and one for each turn.
        assert a.check(user="u")["remaining"] == 50 + 10 * (i + 1) - 20 - (i + 1)
    assert admitted([a.check(user="u") for _ in range(100)]) == 90 - 24
    wire.set("pass")
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "recovery")
    assert a.check(user="u", cost=0)["limit"] == 180
