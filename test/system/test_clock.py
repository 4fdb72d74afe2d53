"""The wall clock is set while the agent runs: what it follows, and that it says so."""

import re
import time

import pytest

from agent import until
from test_admin import Admin
from test_limits import DAY, not_at_midnight, rule, rules  # noqa: F401
from wall import Wall

KINDS = ("token-bucket", "sliding-window", "fixed-window")
RULES = rules(*(rule(x, per=f'[ "{x}" ]', rate="5/day", algorithm=f'"{x}"') for x in KINDS))


@pytest.fixture
def wall(tmp_path):
    return Wall(tmp_path)


def steps(a):
    return [int(x) for x in re.findall(r"warning clock_stepped by_seconds=(-?\d+)", a.stderr)]


def denied(a):
    return {x for x in KINDS if a.check({x: "u"}, cost=0)["deny"]
            or not a.check({x: "u"}, cost=0)["remaining"]}


@pytest.mark.parametrize("by, still, says", [
    (2 * DAY, {"token-bucket"}, "windows that the new time is beyond have ended"),
    (-30, set(KINDS), "windows stand still"),
    (-3 * DAY, set(KINDS), "what was counted before stays counted"),
])
def test_the_clock_is_set(run, store, wall, by, still, says):
    if store == "redis":
        pytest.skip("there the server's clock counts (test_redis_contract.py)")
    a = run(rules=RULES, env=wall.env)
    for x in KINDS:
        assert a.check({x: "u"}, cost=5)["deny"] is False
    assert denied(a) == set(KINDS)
    assert steps(a) == []
    wall.ahead(by)
    assert denied(a) == still
    until(lambda: steps(a), "the step to be told")
    assert says in a.stderr
    assert steps(a) == [by]
    assert denied(a) == still


def test_set_there_and_back(run, wall):
    """Each step is told, and connections live on."""
    a = run(rules=RULES, env=wall.env)
    with a.connect() as c:
        for n, ahead in enumerate((3600, 0, -3600, 0), 1):
            wall.ahead(ahead)
            until(lambda n=n: len(steps(a)) == n, "the step to be told")
            assert c.check(nobody="u")["reason"] == "ok"
    assert steps(a) == [3600, -3600, -3600, 3600]


@pytest.mark.parametrize("before, after", [(-365 * DAY, 0), (365 * DAY, 0)])
def test_how_long_it_is_up_is_of_no_wall_clock(run, tmp_path, wall, before, after):
    """Started by a wrong clock, which is mended later."""
    wall.ahead(before)
    admin = Admin(run, tmp_path, env=wall.env, rules=rule())
    assert admin.agent.check(user="u")["deny"] is False
    begun = time.monotonic()
    wall.ahead(after)
    until(lambda: steps(admin.agent), "the step to be told")
    # Two seconds more: what it says then is no clamp to 0.
    until(lambda: time.monotonic() - begun > 2)
    assert 2 <= admin.ask("/api/v1/status").json["uptime"] <= 60
    assert 2 <= admin.ask("/api/v1/top").json["clients"]["seconds"] <= 60


def test_a_ban_is_as_long_as_it_is(run, store, tmp_path, wall):
    """Whose clock was ahead when he was banned is not banned until then by the right one."""
    if store == "redis":
        pytest.skip("there others' clocks have their say")
    wall.ahead(7200)
    admin = Admin(run, tmp_path, env=wall.env, rules='''{ name = "login"; per = [ "ip" ]; rate = "1/day";
        penalty = { after = "2/1m"; ban = "10m"; factor = 1; max = "1d"; }; }''')
    until(lambda: admin.agent.check(ip="10.0.0.1")["reason"] == "banned")
    wall.ahead(0)
    until(lambda: admin.agent.check(ip="10.0.0.1")["retry_after"] <= 600, "the ban to follow")
    answer = admin.agent.check(ip="10.0.0.1")
    assert answer["reason"] == "banned" and answer["retry_after"] > 0
    assert admin.ask("/api/v1/bans").json["bans"][0]["until"] <= time.time() + 601
