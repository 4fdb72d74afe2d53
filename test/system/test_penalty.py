"""Penalties of a real agent: who is denied too often is banned for a while, longer each time."""

import json
import re

import pytest

import agent as agents
from agent import until
from spop import message
from test_admin import BEARER, Admin

RULES = '''
{ name = "login"; match = { path = "/login"; }; per = [ "ip" ]; rate = "2/day";
  penalty = { after = "3/1m"; ban = "2s"; factor = 10; max = "1h"; }; },
{ name = "all"; per = [ "user" ]; rate = "1000/day"; }
'''
JSON = {"Content-Type": "application/json"}


def login(a, ip, **more):
    return a.check(ip=ip, path="/login", **more)


def use_up(a, ip, denials):
    """Two pass; then so many are denied."""
    while not (answer := login(a, ip)).denied:
        pass
    for _ in range(denials - 1):
        assert answer["reason"] == "limited", answer
        answer = login(a, ip)
    return answer


def test_too_many_denials_are_a_ban(run):
    a = run(rules=RULES)
    assert use_up(a, "10.0.0.1", 3)["reason"] == "limited"
    until(lambda: login(a, "10.0.0.1")["reason"] == "banned")
    answer = login(a, "10.0.0.1")
    assert answer.denied and set(answer) == {"deny", "reason", "tier", "retry_after"}, answer
    assert 1 <= answer["retry_after"] <= 2
    assert login(a, "10.0.0.1", cost=0)["reason"] == "banned"
    # who else comes, and where else he goes, is another matter
    assert login(a, "10.0.0.2")["reason"] == "ok"
    assert a.check(ip="10.0.0.1", path="/", user="u")["reason"] == "ok"
    # when it ends, the limit holds; and the next ban is longer
    until(lambda: login(a, "10.0.0.1", cost=0)["reason"] == "limited")
    use_up(a, "10.0.0.1", 3)
    until(lambda: login(a, "10.0.0.1")["reason"] == "banned")
    assert 15 <= login(a, "10.0.0.1")["retry_after"] <= 20


def test_fewer_are_none(run):
    a = run(rules=RULES)
    use_up(a, "10.0.0.3", 2)
    for _ in range(20):     # to ask is no offence
        assert login(a, "10.0.0.3", cost=0)["reason"] == "limited"
    assert use_up(a, "10.0.0.3", 1)["reason"] == "limited"


def test_denied_by_another_rule_is_no_strike(run):
    a = run(rules=RULES.replace("1000/day", "1/day"))
    assert login(a, "10.0.0.4", user="u")["reason"] == "ok"
    for _ in range(20):
        assert login(a, "10.0.0.4", user="u")["rule"] == "all"
    assert login(a, "10.0.0.4")["reason"] == "ok"


@pytest.mark.parametrize("rate, ban, waits", [
    ("1/minute", "10m", lambda denial, last: denial <= 60 and last == 600),
    ("1/minute", "5s", lambda denial, last: 5 < denial <= 60 and 5 < last <= 60),
    ("0/minute", "10m", lambda denial, last: denial == last == 0)], ids=["longer", "shorter", "never"])
def test_who_is_banned_by_a_denial_is_told_how_long(run, rate, ban, waits):
    """Retry-After of that very answer. Not with Redis, which has not counted it then."""
    if agents.redis:
        pytest.skip("the next answer tells it")
    a = run(rules=f'''{{ name = "login"; per = [ "ip" ]; rate = "{rate}";
                   penalty = {{ after = "2/1m"; ban = "{ban}"; }}; }}''')
    if rate != "0/minute":
        assert login(a, "10.0.0.1")["reason"] == "ok"
    denial, last = login(a, "10.0.0.1"), login(a, "10.0.0.1")
    assert denial["reason"] == last["reason"] == ("oversize" if rate == "0/minute" else "limited")
    assert waits(denial["retry_after"], last["retry_after"]), (denial, last)
    assert login(a, "10.0.0.1")["reason"] == "banned"


def test_a_ban_is_shown_lifted_and_written_down(run, tmp_path):
    admin = Admin(run, tmp_path, rules=RULES.replace('"2s"', '"10m"'))
    use_up(admin.agent, "10.0.0.5", 3)
    until(lambda: login(admin.agent, "10.0.0.5")["reason"] == "banned")
    told = admin.ask("/api/v1/bans").json
    assert told["count"] == 1, told
    ban, = told["bans"]
    assert ban["rule"] == "login" and ban["client"] == "ip=10.0.0.5" and ban["bans_before"] == 0
    assert ban["until"] - ban["since"] in (600, 601)
    until(lambda: "what=ban" in admin.agent.stderr)

    def lift(body, headers=BEARER):
        return admin.ask("/api/v1/bans", "DELETE", headers={**JSON, **headers}, body=json.dumps(body))
    assert lift({"id": ban["id"]}, {}).status in (401, 403)
    assert lift({"id": "nonsense"}).status == 404
    assert lift({"id": ban["id"], "reason": "his mother called"}).status == 200
    assert lift({"id": ban["id"]}).status == 404
    # who was denied for it is known by what is banned, not by where he came from
    line = until(lambda: [x for x in admin.agent.lines() if "reason=banned" in x])[0]
    assert "rule=login" in line and 'client="ip=10.0.0.5"' in line.replace("client=ip=10.0.0.5", 'client="ip=10.0.0.5"'), line
    assert login(admin.agent, "10.0.0.5")["reason"] == "limited"
    until(lambda: "his mother called" in admin.agent.stderr)
    assert admin.value("ratelimit_bans_begun_total") == 1
    assert admin.value("ratelimit_checks_banned_total") >= 1


def test_more_bans_than_there_is_room_for_are_told_of(run, tmp_path):
    """Long before all of it is full some fall into places that are."""
    rules = '{ name = "never"; per = [ "ip" ]; rate = "0/day"; penalty = { after = "1/1m"; ban = "1h"; }; }'
    admin = Admin(run, tmp_path, rules=rules)
    assert admin.value("ratelimit_bans_evicted_total") == 0
    for i in range(0, 40000, 1000):
        admin.agent.connection.batch(
            [message("check", {"ip": f"10.0.{n >> 8}.{n & 255}"}) for n in range(i, i + 1000)])
        if admin.value("ratelimit_bans_evicted_total"):
            break
    line = until(lambda: [x for x in admin.agent.lines() if "bans_full" in x])[0]
    assert " warning " in line and "bans_max=65536" in line and "hint=" in line, line


@pytest.mark.parametrize("change, why", [
    (('penalty = { after = "3/1m"; ban = "10m"; factor = 10; max = "1h"; };', ""), "no penalty any more"),
    (('name = "login"', 'name = "logins"'), "no penalty any more"),
    (('"3/1m"', '"3/2m"'), "counts in another time now"),
    (('per = [ "ip" ]', 'per = [ "ip", "method" ]'), "counts by something else now"),
    (('name = "login";', 'name = "login"; mode = "off";'), "its rule is off"),
])
def test_a_reload_ends_bans_that_no_penalty_knows(run, tmp_path, change, why):
    rules = RULES.replace('"2s"', '"10m"')
    admin = Admin(run, tmp_path, rules=rules)
    a = admin.agent
    use_up(a, "10.0.0.8", 3)
    until(lambda: login(a, "10.0.0.8")["reason"] == "banned")
    # One that knows it leaves it: the rest of the penalty is no part of it.
    a.rewrite(rules.replace('"3/1m"', '"4/1m"').replace('"1h"', '"2h"'), top=admin.top())

    def reload():
        return admin.ask("/api/v1/reload", "POST", headers=BEARER)
    assert reload().status == 200
    ban, = admin.ask("/api/v1/bans").json["bans"]
    assert login(a, "10.0.0.8")["reason"] == "banned"
    a.rewrite(rules.replace(*change), top=admin.top())
    assert reload().status == 200
    assert admin.ask("/api/v1/bans").json == {"count": 0, "bans": []}
    line, = until(lambda: [x for x in a.lines() if "what=end" in x])
    assert "change=ban:ip=10.0.0.8" in line.replace('"', "") and why in line, line
    assert "who=token" in line and f"id={ban['id']}" in line and "rule=login" in line, line
    # And is not back with the penalty, or whatever it was.
    a.rewrite(rules, top=admin.top())
    assert reload().status == 200
    until(lambda: login(a, "10.0.0.8")["reason"] == "limited")


def test_who_is_banned_is_denied_by_his_own_name(run, tmp_path):
    admin = Admin(run, tmp_path, rules='''{ name = "a"; per = [ "user" ]; rate = "1/day";
                  penalty = { after = "1/1m"; ban = "1h"; }; }''')
    a = admin.agent
    until(lambda: a.check(user="fred", ip="10.0.0.9")["reason"] == "banned")
    for _ in range(5):
        assert a.check(user="fred", ip="10.0.0.9")["reason"] == "banned"
    # lifted as soon as it is seen: the log has both in their order
    ban, = admin.ask("/api/v1/bans").json["bans"]
    assert admin.ask("/api/v1/bans", "DELETE", headers={**JSON, **BEARER},
                     body=json.dumps({"id": ban["id"]})).status == 200
    until(lambda: [x for x in a.lines() if "what=lift" in x])
    audits = [re.search(r"what=(\w+)", x)[1] for x in a.lines() if " audit " in x]
    assert audits == ["ban", "lift"], audits
    denied = until(lambda: [x for x in a.lines() if "reason=banned" in x])
    assert all("user=fred" in x and "rule=a" in x and "ip=10.0.0.9" in x for x in denied), denied
    top = admin.ask("/api/v1/top?by=denied").json
    clients = {x["client"]: x["count"] for x in top["clients"]["items"]}
    assert set(clients) == {"user=fred"} and clients["user=fred"] >= 6, top


@pytest.mark.parametrize("user", ["mal\0lory", "mallory+ip=2001:db8::1", "a+b", "m" * 200, "\0" * 200],
                         ids=["NUL", "as-an-address", "plus", "long", "NULs"])
def test_nobody_names_himself_out_of_a_ban(run, tmp_path, user):
    """What a ban is known by to people says what he says of himself."""
    admin = Admin(run, tmp_path, rules='''{ name = "a"; per = [ "user", "ip" ]; rate = "1/day";
                  penalty = { after = "1/1m"; ban = "1h"; }; }''')
    a = admin.agent
    until(lambda: a.check(user=user, ip="10.0.0.9")["reason"] == "banned")
    until(lambda: "what=ban" in a.stderr)
    assert admin.ask("/api/v1/reload", "POST", headers=BEARER).status == 200
    assert a.check(user=user, ip="10.0.0.9")["reason"] == "banned"
    assert "what=end" not in a.stderr
    ban, = admin.ask("/api/v1/bans").json["bans"]
    assert len(user) > 99 or ban["client"] == f"user={user}+ip=10.0.0.9".replace("\0", "?"), ban


def test_a_restart_without_the_penalty_ends_its_bans(run, tmp_path, store):
    if store == "redis":
        pytest.skip("with Redis there is no state file")
    kept = f'store: {{ state_file = "{tmp_path}/state"; }};'
    admin = Admin(run, tmp_path, rules=RULES.replace('"2s"', '"10m"'), top=kept)
    a = admin.agent
    use_up(a, "10.0.0.9", 3)
    until(lambda: admin.ask("/api/v1/bans").json["count"] == 1)
    a.rewrite(re.sub(r"penalty = {.*?};", "", RULES), top=admin.top(kept))
    a.restart()
    assert login(a, "10.0.0.9")["reason"] == "limited"
    assert admin.ask("/api/v1/bans").json["count"] == 0
    line, = until(lambda: [x for x in a.lines() if "what=end" in x])
    assert "who=configuration" in line, line


def test_a_secret_is_not_shown(run, tmp_path):
    admin = Admin(run, tmp_path, rules='{ name = "k"; per = [ "key" ]; rate = "1/day"; '
                                       'penalty = { after = "1/1m"; }; }')
    until(lambda: admin.agent.check(key="verysecret")["reason"] == "banned")
    shown = admin.ask("/api/v1/bans")
    assert shown.json["bans"][0]["client"].startswith("key=sha256:")
    until(lambda: "what=ban" in admin.agent.stderr)
    assert "verysecret" not in shown.text + admin.agent.stderr


def test_bans_survive_a_restart(run, tmp_path, store):
    if store == "redis":
        pytest.skip("with Redis there is no state file")
    a = run(rules=RULES.replace('"2s"', '"10m"'), top=f'store: {{ state_file = "{tmp_path}/state"; }};')
    use_up(a, "10.0.0.6", 3)
    until(lambda: login(a, "10.0.0.6")["reason"] == "banned")
    a.restart()
    assert login(a, "10.0.0.6")["reason"] == "banned"
