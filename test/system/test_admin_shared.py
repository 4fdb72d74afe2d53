"""What an operator changes at one agent holds at all that share its Redis."""

import json

import pytest

import redisd
from agent import until
from test_admin import Admin
from test_admin_changes import JSON, change, override, served

RULES = '''
{ name = "api"; per = [ "user" ]; rate = "3/day"; algorithm = "fixed-window"; },
{ name = "login"; match = { path = "/login"; }; per = [ "ip" ]; rate = "1/day";
  penalty = { after = "2/1m"; ban = "10m"; }; }
'''


@pytest.fixture
def redis(tmp_path, ends):
    """One that was asked nothing but what the agent may."""
    server = ends(redisd.Server(tmp_path))
    yield server
    if server.running and not server.stopped:
        assert server.denied() == [], "beyond the ACL"


class Two:
    def __init__(self, run, tmp_path, redis):
        self.run, self.redis, self.tmp_path = run, redis, tmp_path
        self.at = [self.start(i) for i in range(2)]

    def start(self, i):
        folder = self.tmp_path / f"n{i}{len(list(self.tmp_path.iterdir()))}"
        folder.mkdir()
        return Admin(self.run, folder, rules=RULES, top=self.redis.group())


@pytest.fixture
def two(run, tmp_path, redis):
    return Two(run, tmp_path, redis)


def test_an_override_holds_at_both(two):
    a, b = two.at
    override(a, user="alice", bypass=True, reason="ticket 1")
    served(a, "bypassed", user="alice")
    served(b, "bypassed", user="alice")
    assert b.ask("/api/v1/overrides").json["overrides"][0]["reason"] == "ticket 1"
    override(b, "DELETE", user="alice")
    served(a, "ok", user="alice")
    served(b, "ok", user="alice")


def test_it_ends_at_both(two):
    a, b = two.at
    override(a, user="bob", block=True, **{"for": "3s"})
    served(b, "blocked", user="bob")
    served(a, "ok", user="bob")
    served(b, "ok", user="bob")
    until(lambda: two.redis("HLEN", "rl:{changes}") == 0)


def test_switches_and_resets(two):
    a, b = two.at
    for _ in range(4):
        b.agent.check(user="carol")
    assert a.agent.check(user="carol").denied
    change(a, "/api/v1/reset", "POST", rule="api")
    served(a, "ok", user="carol")
    served(b, "ok", user="carol")
    change(b, "/api/v1/enabled", mode="off")
    served(a, "disabled", user="carol")
    change(a, "/api/v1/enabled", mode="configured")
    served(b, "ok", user="carol")


def test_who_starts_later_knows(two):
    a, b = two.at
    override(a, user="dave", bypass=True)
    served(a, "bypassed", user="dave")
    b.agent.stop()
    c = two.start(2)
    served(c, "bypassed", user="dave")


def test_changes_made_while_redis_is_away(two):
    a, b = two.at
    two.redis.stop()
    override(a, user="erin", bypass=True)
    served(a, "bypassed", user="erin")
    two.redis.start()
    served(b, "bypassed", user="erin")
    served(a, "bypassed", user="erin")


def test_a_redis_without_its_data_hears_of_them_again(two):
    a, b = two.at
    override(a, user="erin", block=True)
    change(b, "/api/v1/enabled", rule="login", mode="off")
    served(b, "blocked", user="erin")
    until(lambda: two.redis("HLEN", "rl:{changes}") == 2)
    two.redis("FLUSHALL")  # one of the two may not have heard of the second yet
    until(lambda: two.redis("HLEN", "rl:{changes}") == 2)
    two.redis.stop()
    two.redis.start()
    until(lambda: two.redis("HLEN", "rl:{changes}") == 2)
    for at in (a, b, two.start(2)):
        served(at, "blocked", user="erin")
    override(b, "DELETE", user="erin")
    for at in (a, b):
        served(at, "ok", user="erin")


def test_bans(two):
    a, b = two.at

    def login(at):
        return at.agent.check(ip="10.0.0.1", path="/login")

    until(lambda: login(a)["reason"] == "banned")
    until(lambda: login(b)["reason"] == "banned")
    ban, = b.ask("/api/v1/bans").json["bans"]
    assert ban["client"] == "ip=10.0.0.1"
    lifted = b.ask("/api/v1/bans", "DELETE", headers={**JSON, "Authorization": f"Bearer {b.token}"},
                   body=json.dumps({"id": ban["id"]}))
    assert lifted.status == 200, lifted
    assert login(b)["reason"] == "limited"
    until(lambda: a.ask("/api/v1/bans").json["count"] == 0)
    assert login(a)["reason"] in ("limited", "banned")


def test_without_the_acl_each_is_alone_and_says_so(run, tmp_path, ends):
    redis = ends(redisd.Server(tmp_path))
    redis("ACL", "SETUSER", redisd.USER, *("-" + c for c in redisd.CHANGES_COMMANDS))
    two = Two(run, tmp_path, redis)
    override(two.at[0], user="frank", bypass=True)
    served(two.at[0], "bypassed", user="frank")
    until(lambda: "changes_not_shared" in two.at[0].agent.stderr)
    assert "+hgetall" in two.at[0].agent.stderr
    assert two.at[1].agent.check(user="frank")["reason"] == "ok"
