"""What Redis has denied is remembered: a flood of one client costs it nothing, and nobody is denied
for longer, or for more, than Redis would."""

import pytest

import redisd
from agent import until
from redisd import admitted, hammer
from spop import message
from test_limits import rule, rules
from wall import Wall

LONG = "300d"
FLOOD = 1000
# Two workers, which remember each for itself, and what was under way as it was denied first.
FEW = 2 + 2 * 50


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    s = redisd.Server(tmp_path_factory.mktemp("d"))
    try:
        yield s.start()
    finally:
        s.finish()


@pytest.fixture
def redis(server):
    server("FLUSHALL")
    yield server


@pytest.fixture
def asked(redis):
    """asked(f): how often f made the agents call their script, and what f gave."""
    def count(f):
        before = redis.calls().get("evalsha", 0)
        got = f()
        return redis.calls().get("evalsha", 0) - before, got
    return count


def flood(a, user="u", n=FLOOD, **more):
    return hammer([a], lambda _: [message("check", {"user": user, **more})] * (n // 2), 2,
                  settle=False)  # each call is counted


@pytest.mark.parametrize("algorithm", ["token-bucket", "sliding-window", "fixed-window"])
def test_a_flood_costs_redis_nothing(run, redis, asked, algorithm):
    a = run(rules=rule(rate=f"5/{LONG}", algorithm=f'"{algorithm}"'), top=redis.group())
    calls, answers = asked(lambda: flood(a))
    assert admitted(answers) == 5 and len(answers) == FLOOD
    assert calls <= 5 + FEW
    first = next(x for x in answers if x["deny"])
    calls, answers = asked(lambda: flood(a))
    assert calls <= 2, "one for each worker that had not heard of it"
    # And is told the same as Redis told the first.
    for x in answers:
        assert {k: x[k] for k in ("deny", "reason", "limit", "remaining", "rule", "scope")} == {
            k: first[k] for k in ("deny", "reason", "limit", "remaining", "rule", "scope")}
        assert abs(x["retry_after"] - first["retry_after"]) <= 60


def test_one_of_several_limits_is_enough(run, redis, asked):
    a = run(rules=rules(rule("user", rate=f"5/{LONG}"), rule("all", per="[]", rate=f"9000/{LONG}")),
            top=redis.group())
    flood(a)
    calls, answers = asked(lambda: flood(a))
    assert calls <= 2 and {x["rule"] for x in answers} == {"user"}
    # What denied consumed nothing of the other.
    assert a.check(x="y", cost=0)["remaining"] == 8995


def test_others_are_asked_for(run, redis, asked):
    a = run(rules=rule(rate=f"5/{LONG}"), top=redis.group())
    flood(a)
    calls, left = asked(lambda: [a.check(user=f"v{i}")["remaining"] for i in range(50)])
    assert left == [4] * 50 and calls == 50


def test_a_smaller_cost_is_asked_for(run, redis, asked):
    a = run(rules=rule(rate=f"10/{LONG}"), top=redis.group(), agent="threads = 1;")
    assert not a.check(user="u", cost=7)["deny"]
    assert a.check(user="u", cost=5)["deny"]
    calls, answers = asked(lambda: [a.check(user="u", cost=c) for c in (5, 6, 10)])
    assert calls == 0 and all(x["deny"] for x in answers)
    calls, answer = asked(lambda: a.check(user="u", cost=3))
    assert calls == 1 and (answer["deny"], answer["remaining"]) == (False, 0)


def test_another_tier_is_asked_for(run, redis, asked):
    a = run(rules=rule(rate='{ free = "5/300d"; paid = "9/300d"; }'), top=redis.group(),
            agent="threads = 1;")
    assert a.check(user="u", tier="free", cost=5)["remaining"] == 0
    assert a.check(user="u", tier="free")["deny"]
    calls, answer = asked(lambda: a.check(user="u", tier="paid"))
    assert calls == 1 and (answer["deny"], answer["remaining"]) == (False, 3)
    calls, answer = asked(lambda: a.check(user="u", tier="free"))
    assert calls == 0 and answer["deny"]


def test_where_denied_requests_count_redis_hears_of_each(run, redis, asked):
    a = run(rules=rules(rule(rate="5/300d"),
                        rule("counts", rate="8/300d", count_denied="true")), top=redis.group())
    for _ in range(5):
        a.check(user="u")
    calls, answers = asked(lambda: [a.check(user="u") for _ in range(20)])
    assert calls == 20 and all(x["deny"] for x in answers)
    assert a.check(user="u", cost=0)["remaining"] == 0


def test_it_is_forgotten_at_reload(run, redis, asked):
    """Also by one that changes nothing: as an operator expects who has emptied Redis."""
    text, top = rule(rate=f"5/{LONG}"), redis.group()
    a = run(rules=text, top=top)
    flood(a)
    redis("FLUSHALL")
    assert admitted(flood(a)) == 0
    a.rewrite(text, top=top)
    a.reload(lambda: a.stderr.count("reloaded") >= 1, "the reload")
    until(lambda: not a.check(user="u")["deny"], "the client to be let in")
    # And by one that raises the limit: each worker's word is the new one.
    flood(a)
    a.rewrite(rule(rate=f"50/{LONG}"), top=top)
    a.reload(lambda: a.check(user="u", cost=0)["limit"] == 50)
    assert admitted(flood(a)) == 45


def test_it_is_forgotten_when_redis_comes_back(run, tmp_path, ends):
    """It may have been emptied, or be one that lacks the last writes: it is asked."""
    server = ends(redisd.Server(tmp_path))
    a = run(rules=rule(rate=f"5/{LONG}"), top=server.group(on_failure="open"))
    flood(a)
    assert a.check(user="u")["reason"] == "limited"
    server.kill()
    until(lambda: a.check(user="u")["reason"] == "degraded", "its absence to be seen")
    server.start()
    until(lambda: a.check(user="u")["reason"] == "ok", "the client to be let in")


@pytest.mark.parametrize("algorithm", ["token-bucket", "sliding-window", "fixed-window"])
def test_it_ends_when_redis_would_let_pass(run, redis, asked, algorithm):
    a = run(rules=rule(rate="4/4s", algorithm=f'"{algorithm}"'), top=redis.group())
    while not a.check(user="u")["deny"]:
        pass
    calls, answers = asked(lambda: until(
        lambda: (x := a.check(user="u")) and (not x["deny"] or None) and x, "retry_after"))
    assert answers["reason"] == "ok"
    # Thousands were asked meanwhile: for each moment in which Redis would deny no longer, one call.
    assert calls <= 40


def test_an_agent_remembers_for_itself(run, redis, asked):
    one, two = (run(rules=rule(rate=f"5/{LONG}"), top=redis.group()) for _ in range(2))
    flood(one)
    calls, answers = asked(lambda: flood(two))
    assert admitted(answers) == 0 and 1 <= calls <= FEW


def test_many_denied_clients(run, redis, asked):
    """As many as an attack has: far fewer calls than requests, and every answer is right."""
    a = run(rules=rule(rate=f"1/{LONG}"), top=redis.group())
    several = [message("check", {"user": f"u{i % 500}"}) for i in range(2000)]
    answers = hammer([a], lambda _: several, 2, settle=False)
    assert admitted(answers) == 500
    calls, answers = asked(lambda: hammer([a], lambda _: several, 2, settle=False))
    assert admitted(answers) == 0 and calls <= 400


def test_a_step_of_the_clock_of_redis_is_followed(run, tmp_path, ends):
    """Tomorrow is another window, and it is the clock of Redis that says so: also where nobody asks
    but who is denied."""
    wall = Wall(tmp_path)
    server = redisd.Server(tmp_path)
    server.env = wall.env
    ends(server)
    a = run(rules=rule(rate="5/day", algorithm='"fixed-window"'), top=server.group())
    flood(a)
    assert a.check(user="u")["deny"]
    wall.ahead(86400)
    until(lambda: not a.check(user="u")["deny"], "the next window", 10)
    assert admitted(flood(a)) == 4
