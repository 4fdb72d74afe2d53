"""The counters of one client are forgotten through the admin interface: of him alone, at every agent that
shares the store, and nothing else is."""

import hashlib
import json
import re

import pytest

import redisd
from agent import ROOT, until
from test_admin import BEARER, Admin
from test_admin_changes import JSON, audit, change, override, passed, served

RULES = '''
{ name = "login"; match = { path = "/login"; }; per = [ "ip" ]; rate = [ "2/day", "3/week" ];
  algorithm = "fixed-window"; penalty = { after = "4/1d"; ban = "10m"; }; },
{ name = "api"; match = { path = "!/login"; }; per = [ "user" ];
  rate = { gold = "9/day"; default = "3/day"; }; algorithm = "sliding-window"; },
{ name = "key"; per = [ "key" ]; rate = "2/day"; },
{ name = "off"; per = [ "ip" ]; rate = "1/day"; mode = "off"; }
'''


def reset(admin, status=200, fields=None, **body):
    return change(admin, "/api/v1/reset", "POST", status, fields=fields, **body)


def rules_of(answer):
    return [(c["rule"], c["scope"], c["limit"]) for c in answer["counters"]]


@pytest.fixture
def admin(run, tmp_path):
    return Admin(run, tmp_path, rules=RULES)


def test_one_client_and_nobody_else(admin):
    for user in ("alice", "bob"):
        assert passed(admin, 5, user=user, path="/v1")[0] == 3
    told = reset(admin, fields={"user": "alice", "path": "/v1"}, reason="ticket 7")
    assert rules_of(told) == [("api", "user", "api")] and told["banned"] is None, told
    assert told["counters"][0]["counts_by"] == "user=alice"
    assert passed(admin, 5, user="alice", path="/v1")[0] == 3
    assert passed(admin, 1, user="bob", path="/v1")[0] == 0
    line, = until(lambda: [x for x in audit(admin) if "what=reset" in x], "its line")
    assert "user=alice" in line and "ticket 7" in line and "who=token" in line, line


def test_all_limits_of_a_rule_and_not_those_of_others(admin):
    assert passed(admin, 4, ip="10.0.0.1", path="/login")[0] == 2
    assert passed(admin, 4, user="carol", path="/v1")[0] == 3
    told = reset(admin, fields={"ip": "10.0.0.1", "user": "carol", "path": "/login"})
    assert rules_of(told) == [("login", "ip", "login:86400"), ("login", "ip", "login:604800")], told
    why = {u["rule"]: u["why"] for u in told["untouched"]}
    assert set(why) == {"api", "key", "off"} and "path" in why["api"] and "off" in why["off"], why
    assert passed(admin, 4, ip="10.0.0.1", path="/login")[0] == 2
    assert passed(admin, 1, user="carol", path="/v1")[0] == 0


def test_those_of_every_tier(run, tmp_path):
    """Whoever has changed his plan does not meet what he used up on another one."""
    tiers = ", ".join(f't{i} = "1/{i + 100}s"' for i in range(60)).replace(",", ";")
    admin = Admin(run, tmp_path, rules=f"""
    {{ name = "api"; per = [ "user" ]; rate = {{ gold = [ "9/day", "2/hour" ]; free = "3/day"; }};
      algorithm = "fixed-window"; }},
    {{ name = "pay"; per = [ "user" ]; rate = {{ gold = "1/week"; }}; algorithm = "fixed-window"; }},
    {{ name = "many"; match = {{ path = "/many"; }}; per = [ "user" ]; rate = {{ {tiers}; }};
      algorithm = "fixed-window"; }}""")
    gold, free = {"user": "alice", "tier": "gold"}, {"user": "alice", "tier": "free"}
    assert passed(admin, 4, **gold)[0] == 1                  # pay
    told = reset(admin, fields=free)
    assert [(c["rule"], c["limit"], c["rate"]) for c in told["counters"]] == [
        ("api", "api", "3/day"), ("api", "api:3600", "2/hour"), ("pay", "pay", "1/week")], told
    assert {u["rule"] for u in told["untouched"]} == {"many"}, told
    assert passed(admin, 4, **gold)[0] == 1
    # more of them than one call to the store takes
    for i in (0, 40, 59):
        assert passed(admin, 2, user="bob", path="/many", tier=f"t{i}")[0] == 1
    told = reset(admin, fields={"user": "bob", "path": "/many"}, rule="many")
    assert len(told["counters"]) == 60 and len({c["rate"] for c in told["counters"]}) == 60
    for i in (0, 40, 59):
        assert passed(admin, 2, user="bob", path="/many", tier=f"t{i}")[0] == 1
    line, = until(lambda: [x for x in audit(admin) if "many" in x], "its line")
    assert "what=reset" in line


SHARED = '''
{ name = "api"; per = [ "user|path" ]; rate = "5/day"; algorithm = "fixed-window"; },
{ name = "all"; per = []; rate = "100/day"; algorithm = "fixed-window"; },
{ name = "spot"; per = [ "endpoint", "host" ]; rate = "90/day"; algorithm = "fixed-window"; },
{ name = "pair"; per = [ "path", "ip" ]; rate = "80/day"; algorithm = "fixed-window"; }
'''


def test_what_all_clients_share_is_left(run, tmp_path):
    admin = Admin(run, tmp_path, rules=SHARED)
    fields = {"user": "alice", "ip": "10.0.0.1", "method": "GET", "host": "h", "path": "/v1"}

    def left():
        told = change(admin, "/api/v1/explain", "POST", fields=fields)
        return {r["name"]: r["limits"][0]["remaining_now"] for r in told["rules"]}

    assert passed(admin, 3, **fields)[0] == 3
    assert left() == {"api": 2, "all": 97, "spot": 87, "pair": 77}
    told = reset(admin, fields=fields)
    assert [c["rule"] for c in told["counters"]] == ["api", "pair"]
    assert [u["rule"] for u in told["left"]] == ["all", "spot"] and told["untouched"] == [], told
    assert "name the rule" in told["left"][0]["why"]
    assert left() == {"api": 5, "all": 97, "spot": 87, "pair": 80}
    told = reset(admin, fields=fields, rule="all")
    assert [c["rule"] for c in told["counters"]] == ["all"] and told["left"] == [], told
    assert left()["all"] == 100
    # of `user|path` it is the one that was found which counts
    nobody = {k: v for k, v in fields.items() if k not in ("user", "ip")}
    told = reset(admin, 422, fields=nobody)
    assert "no counter of this client" in told["detail"] and "name the rule" in told["detail"], told
    assert [c["scope"] for c in reset(admin, fields=nobody, rule="api")["counters"]] == ["path"]


def test_the_manual_s_example_does_what_it_says(run, tmp_path):
    """conf/admin.md's, on conf/ratelimit.cfg."""
    text = (ROOT / "conf/admin.md").read_text()
    bodies = [json.loads(x) for x in re.findall(r"(?m)-X POST \$a/reset -d '(\{.*fields.*\})'", text)]
    assert [b.get("rule") for b in bodies] == [None, "api"]
    config = (ROOT / "conf/ratelimit.cfg").read_text()
    admin = Admin(run, tmp_path, rules=re.search(r"(?s)\nrules = \(\n(.*)\n\);", config).group(1))
    for body in bodies:
        for user in ("alice", "bob"):
            for _ in range(3):
                admin.agent.check(user=user, path=body["fields"]["path"])
        told = reset(admin, **body)
        assert [(c["rule"], c["counts_by"]) for c in told["counters"]][0] == ("api", "user=alice"), told
        assert {c["counts_by"] for c in told["counters"]} == {"user=alice"}
        assert {u["rule"] for u in told["left"]} == ({"everything"} if "rule" not in body else set())
        for user, whole in ("alice", {"api"}), ("bob", set()):
            now = change(admin, "/api/v1/explain", "POST", fields={**body["fields"], "user": user})
            assert {r["name"] for r in now["rules"] for x in r["limits"]
                    if x["remaining_now"] == x["limit"]} == whole, now


def test_denials_that_a_penalty_counts_are_forgotten_and_a_ban_stays(admin):
    def denied(n):
        return [admin.agent.check(ip="10.0.0.2", path="/login")["reason"] for _ in range(n)]

    assert denied(5) == ["ok", "ok", "limited", "limited", "limited"]
    reset(admin, fields={"ip": "10.0.0.2", "path": "/login"})
    assert denied(5) == ["ok", "ok", "limited", "limited", "limited"]
    until(lambda: denied(1) == ["banned"])
    told = reset(admin, fields={"ip": "10.0.0.2", "path": "/login"})
    assert told["banned"]["until"] > 0
    assert denied(1) == ["banned"]


def test_denials_since_a_ban_was_lifted_are_forgotten_too(admin):
    def denied(n):
        return [admin.agent.check(ip="10.0.0.3", path="/login")["reason"] for _ in range(n)]

    assert denied(5)[4] == "limited"
    until(lambda: denied(1) == ["banned"])
    ban, = until(lambda: admin.ask("/api/v1/bans").json["bans"])
    change(admin, "/api/v1/bans", "DELETE", 200, id=ban["id"])
    assert denied(3) == ["limited"] * 3
    reset(admin, fields={"ip": "10.0.0.3", "path": "/login"})
    assert denied(5) == ["ok", "ok", "limited", "limited", "limited"]


def test_only_the_rule_that_is_named(admin):
    assert passed(admin, 4, user="dora", key="k", path="/v1")[0] == 2
    assert rules_of(reset(admin, fields={"user": "dora", "key": "k", "path": "/v1"}, rule="key")) == [
        ("key", "key", "key")]
    assert passed(admin, 4, user="dora", key="k", path="/v1")[0] == 1   # the third of api
    assert "nope" in reset(admin, 422, fields={"user": "dora"}, rule="nope")["detail"]
    assert "path" in reset(admin, 422, fields={"ip": "10.0.0.1"}, rule="login")["detail"]


def test_fields_without_a_wrapping(admin):
    def bare(body, status=200):
        a = admin.ask("/api/v1/reset", "POST", headers={**JSON, **BEARER}, body=json.dumps(body))
        assert a.status == status, (body, a)
        return a.json

    erin = {"user": "erin", "key": "k", "path": "/v1"}
    told = reset(admin, fields=erin)
    assert len(rules_of(told)) > 1
    assert rules_of(bare({**erin, "reason": "ticket 9"})) == rules_of(told)
    assert rules_of(bare({**erin, "rule": "key"})) == rules_of(reset(admin, fields=erin, rule="key"))
    for body in ({"resaon": "x"}, {"user": "erin", "all": True}, {"user": "erin", "fields": {}},
                 {"rule": "key", "usr": "erin"}, {"reason": "x"}):
        bare(body, 422)


def test_what_finds_no_counter_is_told(admin):
    assert "fields" in reset(admin, 422)["detail"]
    assert "usr" in reset(admin, 422, fields={"usr": "alice"})["detail"]
    assert "no counter" in reset(admin, 422, fields={"cost": 1})["detail"]
    reset(admin, 422, fields=["user"])
    reset(admin, 422, fields={"user": "a"}, all=True)
    assert audit(admin) == []


def test_whatever_is_set_for_the_client(admin):
    """His counters are there while an override, a list or the switch lets him by."""
    assert passed(admin, 4, user="emil", path="/v1")[0] == 3
    override(admin, user="emil", bypass=True)
    served(admin, "bypassed", user="emil", path="/v1")
    assert rules_of(reset(admin, fields={"user": "emil", "path": "/v1"})) == [("api", "user", "api")]
    override(admin, "DELETE", user="emil")
    served(admin, "ok", user="emil", path="/v1")
    assert passed(admin, 4, user="emil", path="/v1")[0] == 3


def test_a_key_is_nowhere_in_clear(admin):
    assert passed(admin, 4, key="topsecretkey")[0] == 2
    digest = "sha256:" + hashlib.sha256(b"topsecretkey").hexdigest()
    # a key that nobody has sent is not to be found by its hash
    other = "sha256:" + hashlib.sha256(b"anotherkey").hexdigest()
    for key in (other, other[:19]):
        assert "hash" in reset(admin, 422, fields={"key": key}, rule="key")["detail"]
    for key in ("topsecretkey", digest, digest[:19]):
        told = reset(admin, fields={"key": key})
        assert told["counters"][0]["counts_by"] == "key=" + digest[:19], told
        assert told["counters"][0]["held"] is True and "key" not in {u["rule"] for u in told["untouched"]}
        assert "topsecretkey" not in json.dumps(told) + admin.agent.stderr
        assert passed(admin, 4, key="topsecretkey")[0] == 2


def test_what_was_not_there_is_not_forgotten(run, tmp_path):
    """Nor is it told so: who is counted by his key has nothing under his name."""
    admin = Admin(run, tmp_path, rules='{ name = "api"; per = [ "key|user|ip" ]; rate = "2/day"; }')
    assert passed(admin, 4, key="topsecretkey", user="fred")[0] == 2
    for fields in ({"user": "fred"}, {"user": "nosuchuser"}):
        counter, = reset(admin, fields=fields)["counters"]
        assert counter["held"] is False and counter["only_without"] == ["key"], counter
    assert passed(admin, 1, key="topsecretkey", user="fred")[0] == 0
    assert passed(admin, 1, user="fred")[0] == 1
    counter, = reset(admin, fields={"user": "fred"})["counters"]
    assert counter["held"] is True
    counter, = reset(admin, fields={"key": "topsecretkey"})["counters"]
    assert counter["held"] is True and counter["only_without"] == []
    counter, = reset(admin, fields={"key": "topsecretkey"})["counters"]
    assert counter["held"] is False
    assert passed(admin, 1, key="topsecretkey", user="fred")[0] == 1


def test_who_may(admin):
    body = json.dumps({"fields": {"user": "alice", "path": "/v1"}})
    for headers in ({}, {"Authorization": "Bearer wrong"}, {**BEARER, "Origin": "http://evil.example"}):
        a = admin.ask("/api/v1/reset", "POST", False, {**JSON, **headers}, body)
        assert a.status in (401, 403), a
    assert audit(admin) == []


# --- two agents, one Redis -----------------------------------------------------------------------

LEASED = '''
{ name = "lease"; match = { path = "/hot"; }; per = [ "user" ]; rate = "10000/day";
  algorithm = "fixed-window"; lease = 0.2; }
'''


@pytest.fixture
def redis(tmp_path, ends):
    """One that was asked nothing but what the agent may."""
    server = ends(redisd.Server(tmp_path))
    yield server
    if server.running and not server.stopped:
        assert server.denied() == [], "beyond the ACL"


def two(run, tmp_path, redis, rules=RULES):
    agents = []
    for name in "ab":
        (tmp_path / name).mkdir()
        agents.append(Admin(run, tmp_path / name, rules=rules, top=redis.group()))
    return agents


def test_denied_reset_passes_at_both(run, tmp_path, redis):
    a, b = two(run, tmp_path, redis)
    for user in ("alice", "bob"):
        assert passed(a, 3, user=user, path="/v1")[0] == 3
    for _ in range(3):      # what was denied is remembered at both
        for at in (a, b):
            for user in ("alice", "bob"):
                assert at.agent.check(user=user, path="/v1")["reason"] == "limited"
    told = reset(a, fields={"user": "alice", "path": "/v1"})
    assert rules_of(told) == [("api", "user", "api")]
    served(b, "ok", user="alice", path="/v1")
    served(a, "ok", user="alice", path="/v1")
    assert sum(passed(at, 2, user="alice", path="/v1")[0] for at in (a, b)) == 3
    for at in (a, b):
        assert at.agent.check(user="bob", path="/v1")["reason"] == "limited"
    # the same once more, from the other one, within a second
    assert b.agent.check(user="alice", path="/v1").denied
    reset(b, fields={"user": "alice", "path": "/v1"})
    for at in (a, b):
        served(at, "ok", user="alice", path="/v1")
    until(lambda: redis("HLEN", "rl:{changes}") == 1)


def test_what_is_no_counter_goes_as_well(run, tmp_path, redis):
    """Something of another type stands where the counter was: it is not told what, and it goes."""
    admin = Admin(run, tmp_path, rules='{ name = "api"; per = [ "user" ]; rate = "2/300d"; }',
                  top=redis.group())
    assert passed(admin, 1, user="alice")[0] == 1
    key, = (x for x in redis.keys() if "changes" not in x)
    for args in (("RPUSH", key, "a"), ("HSET", key, "a", "b"), ("SADD", key, "m")):
        redis("DEL", key)
        redis(*args)
        counter, = reset(admin, fields={"user": "alice"})["counters"]
        assert counter["held"] is None, (args, counter)
        until(lambda: not redis("EXISTS", key), "it to go")


def test_what_stands_in_for_redis_forgets_it_too(run, tmp_path, redis):
    a, b = two(run, tmp_path, redis)
    for at in (a, b):
        for user in ("alice", "bob"):
            passed(at, 3, user=user, path="/v1")
    reset(a, fields={"user": "alice", "path": "/v1"})
    served(b, "ok", user="alice", path="/v1")
    redis.stop()
    for at in (a, b):
        until(lambda at=at: at.agent.check(cost=0, user="new", path="/v1")["reason"] == "degraded")
        assert passed(at, 4, user="alice", path="/v1")[0] == 3
        assert passed(at, 1, user="bob", path="/v1")[0] == 0
    told = reset(a, 503, fields={"user": "alice", "path": "/v1"})
    assert "Redis" in told["detail"]


def test_blocks_in_hand_are_dropped(run, tmp_path, redis):
    """What an agent has taken ahead was of the old counter: nothing of it comes back to the new one."""
    a, b = two(run, tmp_path, redis, LEASED)

    def counted(at, name):
        text = at.ask("/metrics").text
        return sum(float(x.split()[1]) for x in text.splitlines()
                   if x.startswith(f"ratelimit_redis_lease_{name}"))

    def use(at, n):
        return passed(at, n, user="hot", path="/hot")[0]

    def left():
        told = change(b, "/api/v1/explain", "POST", fields={"user": "hot", "path": "/hot"})
        return told["rules"][0]["limits"][0]["remaining_now"]

    until(lambda: use(a, 100) == 100 and counted(a, "held") > 20, "a block")
    reset(b, fields={"user": "hot", "path": "/hot"})
    until(lambda: counted(a, "dropped") > 20)
    assert counted(a, "held") == 0 and left() == 10000


def test_in_a_cluster_each_at_its_node(run, tmp_path):
    """Limits that lie at several nodes."""
    cluster = redisd.Cluster(tmp_path)
    try:
        cluster.start()
        a = Admin(run, tmp_path, rules=RULES, top=cluster.group())
        until(lambda: a.agent.check(user="new", path="/v1")["reason"] == "ok")
        users = [f"u{i}" for i in range(20)]
        for user in users:
            assert passed(a, 3, user=user, key=f"k-{user}", path="/v1")[0] == 2
        for user in users[1:]:
            told = reset(a, fields={"user": user, "key": f"k-{user}", "path": "/v1"})
            assert [c["rule"] for c in told["counters"]] == ["api", "key"]
            until(lambda u=user: not a.agent.check(cost=0, user=u, key=f"k-{u}", path="/v1").denied)
            assert passed(a, 3, user=user, key=f"k-{user}", path="/v1")[0] == 2
        assert passed(a, 1, user="u0", key="k-u0", path="/v1")[0] == 0
        assert all(n.denied() == [] for n in cluster.nodes), "beyond the ACL"
    finally:
        cluster.finish()
