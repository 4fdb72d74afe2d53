"""POST /api/v1/explain of a real agent: says what the next check then gets, and consumes nothing."""

import hashlib
import json
import random

import pytest

import agent as agents
from agent import until
from test_admin import BEARER, Admin

JSON = {"Content-Type": "application/json"}
STORES = ("memory", "redis")
RULES = '''
{ name = "api"; per = [ "user" ]; rate = { gold = "40/day"; free = [ "10/day", "4/hour" ]; default = "6/day"; };
  algorithm = "fixed-window"; warn_at = 0.5; },
{ name = "path"; match = { path = [ "/v1/*", "!/v1/free" ]; method = "POST"; }; per = [ "ip", "path" ];
  rate = "5/day burst 3"; count_denied = true; },
{ name = "keys"; per = [ "key" ]; rate = { gold = "9/day"; default = "7/day"; }; algorithm = "sliding-window"; },
{ name = "spy"; per = [ "user|ip" ]; rate = "3/day"; mode = "shadow"; },
{ name = "mark"; per = [ "ip" ]; rate = "4/day"; action = "tag"; tag = "busy"; },
{ name = "idle"; rate = "1/day"; mode = "off"; },
{ name = "team"; per = [ "org" ]; rate = { gold = "unlimited"; default = "8/day"; }; }
'''
TOP = ('identity: { default_tier = "anonymous"; };\n'
       'block = ( { ip = "192.0.2.0/24"; } ); allow = ( { user = "root"; } );')
KEY = "topsecretkey"
HASH = hashlib.sha256(KEY.encode()).hexdigest()


@pytest.fixture
def admin(run, tmp_path):
    return Admin(run, tmp_path, rules=RULES, top=TOP)


def ask(admin, body):
    return admin.ask("/api/v1/explain", "POST", headers=JSON, body=json.dumps(body))


def explain(admin, **fields):
    a = ask(admin, {"fields": fields})
    assert a.status == 200, a
    assert KEY not in a.text
    return a.json


def test_fields_without_a_wrapping(admin):
    body = {"ip": "10.1.1.1", "path": "/v1/x", "method": "POST"}
    told = explain(admin, **body)
    assert ask(admin, body).json == told
    assert ask(admin, {}).status == 422
    refused = ask(admin, {"fields": body, "ip": "10.1.1.2"})
    assert refused.status == 422 and refused.json["detail"] == '"ip": no such member'
    assert ask(admin, {"field": body}).status == 422


def rule(told, name):
    return {r["name"]: r for r in told["rules"]}[name]


def same(told, got):
    """The answer that was foreseen, and the one that came a moment later."""
    d = {"tier": told["tier"], **told["decision"]}
    names = ["deny", "reason", "tier"]
    # Who was denied is remembered beside Redis, and nobody else asked: then only that is told.
    if not (agents.redis and got.denied):
        names += ["rule", "limit", "remaining", "warn", "shadow", "tag"]
    for name in names:
        assert (d.get(name) or 0) == (got.get(name) or 0), (name, told, got)
    for name in ("reset", "retry_after") if len(names) > 3 else ():
        assert abs(d.get(name, 0) - got.get(name, 0)) <= 1, (name, told, got)


def random_fields(chance):
    fields = {}
    for name, values in (("ip", ["10.0.0.1", "10.0.0.2", "2001:db8::1", "192.0.2.7"]),
                         ("user", ["ada", "bob", "root"]), ("key", [KEY, "other"]),
                         ("tier", ["gold", "free", "nobody knows"]), ("org", ["o1", "o2"]),
                         ("path", ["/v1/x", "/v1//./x", "/v1/free", "/"]),
                         ("method", ["POST", "GET"]), ("cost", [0, 1, 1, 2, 3, 50, "2", -1])):
        if chance.random() < 0.6:
            fields[name] = chance.choice(values)
    return fields


def test_the_next_check_gets_what_it_says(admin):
    chance = random.Random(4)
    reasons = set()
    for _ in range(300):
        fields = random_fields(chance)
        told = explain(admin, **fields)
        got = admin.agent.check(**fields)
        same(told, got)
        reasons.add(got["reason"])
    assert reasons == {"ok", "limited", "oversize", "blocked", "bypassed"}


def test_it_consumes_nothing(admin):
    fields = {"ip": "10.0.0.9", "user": "carl", "key": KEY, "path": "/v1/y", "method": "POST"}
    asked = {**fields, "cost": 0}

    def held():
        if agents.redis:
            return sorted(agents.redis.keys())
        return admin.value("ratelimit_keys"), admin.value("ratelimit_checks_allowed_total")
    for _ in range(3):
        before = admin.agent.check(**asked)
        keys = held()
        first = explain(admin, **fields)
        for _ in range(100):
            told = explain(admin, **fields)
            for a, b in zip(told["rules"], first["rules"]):
                for l, m in zip(a["limits"], b["limits"]):
                    assert l["remaining_now"] == m["remaining_now"] and l["admits"] == m["admits"]
        assert held() == keys
        after = admin.agent.check(**asked)
        for name in ("deny", "remaining", "rule", "limit"):
            assert after[name] == before[name], (before, after)
        admin.agent.check(**fields)


def test_rules_say_why(admin):
    told = explain(admin, ip="10.1.0.1", user="dora", tier="gold", path="/v1/free", method="POST", org="o",
                   colour="red")
    assert told["tier_from"] == "message" and told["ignored"] == ["colour"]
    api = rule(told, "api")
    assert api["applies"] is True and api["scope"] == "user" and api["counts_by"] == "user=dora"
    limit, = api["limits"]
    assert {k: limit[k] for k in ("rate", "algorithm", "window", "limit", "remaining_now", "remaining",
                                  "admits", "charged", "cost")} == {
        "rate": "40/day", "algorithm": "fixed-window", "window": "day", "limit": 40,
        "remaining_now": 40, "remaining": 39, "admits": True, "charged": True, "cost": 1}
    assert rule(told, "path")["why"] == "does not match: path is another"
    assert rule(told, "keys")["why"] == "counts by key, which is not there"
    assert rule(told, "idle")["why"] == "is off"
    assert rule(told, "team")["why"] == "does not limit this tier"
    assert rule(explain(admin, path="/v1/x"), "path")["why"] == "does not match: method is not there"
    told = explain(admin, ip="192.0.2.1")
    assert told["on_block_list"] and told["decision"]["reason"] == "blocked"
    assert rule(told, "mark")["why"] == "is not asked: the request is blocked"
    told = explain(admin, user="root")
    assert told["on_allow_list"] and told["decision"]["reason"] == "bypassed"
    assert told["tier"] == "anonymous" and told["tier_from"] == "default_tier"


def test_a_key_by_its_hash(admin):
    for _ in range(2):
        admin.agent.check(key=KEY)
    told = explain(admin, key=KEY)
    assert rule(told, "keys")["counts_by"] == f"key=sha256:{HASH[:12]}"
    assert rule(told, "keys")["limits"][0]["remaining_now"] == 5
    assert told["key"] == f"sha256:{HASH}" and told["certain"]
    # by all of it, and by what lists and lines show of it
    for key in (f"sha256:{HASH.upper()}", f"sha256:{HASH[:12]}", f"SHA256:{HASH[:13]}", f"sha256:{HASH[:40].upper()}"):
        told = explain(admin, key=key, ip="10.3.0.1")
        assert rule(told, "keys")["limits"][0]["remaining_now"] == 5 and told["certain"], told
        assert told["key"] == f"sha256:{HASH}"
        assert rule(told, "mark")["limits"][0]["remaining_now"] == 4
    a = admin.ask("/api/v1/overrides", "PUT", False, {**JSON, **BEARER},
                  json.dumps({"key": KEY, "tier": "gold", "reason": "ticket 7", "for": "1h"}))
    assert a.status == 200, a
    for key in ("sha256:", "sha256:abc", "Sha256:abc", f"sha256:{HASH}0"):
        a = ask(admin, {"fields": {"key": key}})
        assert a.status == 422 and "want 64 hex digits after sha256:" in a.json["detail"], a
    for key in (KEY, f"sha256:{HASH}", f"sha256:{HASH[:12]}"):
        told = explain(admin, key=key)
        assert told["tier"] == "gold" and told["tier_from"] == "override"
        assert told["override"]["for"] == f"key:sha256:{HASH}"
        assert told["override"]["sets"] == "tier" and told["override"]["reason"] == "ticket 7"
        assert told["override"]["until"]


def test_a_hash_of_nobody_seen(admin):
    """It is not told as if it were a fresh client's."""
    other = hashlib.sha256(b"another").hexdigest()
    told = explain(admin, key=f"sha256:{other}", ip="10.3.0.2")
    keys = rule(told, "keys")
    assert keys["applies"] is None and keys["state"] is None and "only the hash" in keys["why"]
    assert told["certain"] is False and not told["decision"]["deny"]
    assert rule(told, "mark")["limits"][0]["remaining_now"] == 4
    a = ask(admin, {"fields": {"key": f"sha256:{other[:12]}"}})
    assert a.status == 422 and "no key whose hash begins so" in a.json["detail"], a
    # what denies without it denies
    for _ in range(5):
        admin.agent.check(ip="10.3.0.2", path="/v1/x", method="POST")
    told = explain(admin, key=f"sha256:{other}", ip="192.0.2.1")
    assert told["decision"]["deny"] and told["certain"]


def test_counts_only_who_has_no_better_name(run, tmp_path):
    admin = Admin(run, tmp_path, rules='{ name = "api"; per = [ "key|user|ip" ]; rate = "3/day"; }')
    for _ in range(4):
        admin.agent.check(key=KEY, user="fred", ip="10.0.0.1")
    told = explain(admin, user="fred", ip="10.0.0.1")
    api = rule(told, "api")
    assert api["counts_by"] == "user=fred" and api["only_without"] == ["key"]
    assert api["limits"][0]["remaining_now"] == 3
    api = rule(explain(admin, ip="10.0.0.1"), "api")
    assert sorted(api["only_without"]) == ["key", "user"]
    told = explain(admin, key=f"sha256:{HASH}", user="fred", ip="10.0.0.1")
    assert rule(told, "api")["only_without"] == [] and told["decision"]["reason"] == "limited"


def test_overrides(admin):
    def put(**body):
        a = admin.ask("/api/v1/overrides", "PUT", False, {**JSON, **BEARER}, json.dumps(body))
        assert a.status == 200, a
    put(ip="10.7.0.0/16", rates={"mark": "9/day"})
    put(user="eve", block=True)
    told = explain(admin, ip="10.7.1.1")
    assert told["override"]["for"] == "ip:10.7.0.0/16" and told["override"]["sets"] == "rates"
    assert rule(told, "mark")["limits"][0]["limit"] == 9
    told = explain(admin, ip="10.7.1.1", user="eve")
    assert told["override"]["for"] == "user:eve" and told["decision"]["reason"] == "blocked"
    assert told["on_block_list"] is False


def test_a_ban(run, tmp_path):
    admin = Admin(run, tmp_path, rules='''
        { name = "login"; per = [ "ip" ]; rate = "1/day";
          penalty = { after = "2/1m"; ban = "1h"; factor = 2; max = "1d"; }; },
        { name = "all"; rate = "9/day"; }''')
    until(lambda: admin.agent.check(ip="10.0.0.1")["reason"] == "banned")
    told = explain(admin, ip="10.0.0.1")
    assert told["decision"]["reason"] == "banned" and told["decision"]["deny"]
    assert 3500 <= told["decision"]["retry_after"] <= 3600
    bans = admin.ask("/api/v1/bans").json["bans"]
    assert [told["banned"]] == bans and bans[0]["rule"] == "login" and bans[0]["client"] == "ip=10.0.0.1"
    for name in ("login", "all"):  # no limit is asked before a ban ends: nothing is charged
        r = rule(told, name)
        assert (r["applies"], r["why"], r["limits"]) == (False, "is not asked: the request is banned", []), r
    assert explain(admin, ip="10.0.0.2")["banned"] is None


@pytest.mark.parametrize("body, word", [
    ({}, "fields"), ({"fields": []}, "object"), ({"fields": {"ip": []}}, "ip"),
    ({"fields": {"cost": 1.5}}, "cost"), ({"fields": {"message": 5}}, "message"),
    ({"fields": {"message": "other"}}, "check"), ({"fields": {}, "field": 1}, "field")])
def test_what_is_no_question_is_told(admin, body, word):
    a = ask(admin, body)
    assert a.status == 422 and word in a.json["detail"], a


def test_any_field_may_hold_anything(admin):
    chance = random.Random(5)
    for _ in range(200):
        fields = {name: chance.choice([None, True, False, 0, -5, 2 ** 63 - 1, "", "x" * 5000, "\x01\x02", "é%ff%fe",
                                       "/%e9/..//%", "sha256:" + "0" * 64, "sha256;" + "z" * 64])
                  for name in ("ip", "user", "key", "tier", "path", "host", "method", "cost", "org", "endpoint")
                  if chance.random() < 0.7}
        told = explain(admin, **fields)
        assert len(told["rules"]) == 7
