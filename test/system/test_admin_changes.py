"""What an operator changes through the admin interface of a real agent: overrides, switches, resets; that
it holds at once, ends by itself, goes on through reloads and restarts, and is written down."""

import hashlib
import json
import signal
import time

import pytest

from agent import until
from test_admin import BEARER, Admin

RULES = '''
{ name = "api"; per = [ "user" ]; rate = { gold = "9/day"; default = "3/day"; }; algorithm = "fixed-window"; },
{ name = "key"; per = [ "key" ]; rate = "2/day"; },
{ name = "ip"; per = [ "ip" ]; rate = "4/day"; }
'''
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def admin(run, tmp_path):
    return Admin(run, tmp_path, rules=RULES)


def change(admin, path, method="PUT", status=200, unix=False, headers=BEARER, **body):
    a = admin.ask(path, method, unix, {**JSON, **headers}, json.dumps(body))
    assert a.status == status, a
    return a.json


def override(admin, method="PUT", **body):
    return change(admin, "/api/v1/overrides", method, **body)


def passed(admin, n, **fields):
    """How many of n checks pass, and the last answer."""
    answers = [admin.agent.check(**fields) for _ in range(n)]
    return sum(not a.denied for a in answers), answers[-1]


def served(admin, reason, **fields):
    """A change is taken over between two batches: until then."""
    until(lambda: admin.agent.check(cost=0, **fields)["reason"] == reason)


def audit(admin):
    return [line for line in admin.agent.lines() if " audit " in line]


# --- overrides -----------------------------------------------------------------------------------

def test_an_override_for_a_user(admin):
    assert passed(admin, 5, user="alice")[0] == 3
    told = override(admin, user="alice", tier="gold", reason="ticket 42", **{"for": "1h"})
    assert told["tier"] == "gold" and told["user"] == "alice" and told["who"] == "token"
    assert told["reason"] == "ticket 42"
    assert 3590 <= told["until"] - time.time() <= 3601
    # three were used of the counter that all tiers share
    until(lambda: admin.agent.check(cost=0, user="alice")["tier"] == "gold")
    got, last = passed(admin, 8, user="alice")
    assert got == 6 and last["limit"] == 9
    assert passed(admin, 5, user="bob")[0] == 3
    assert [o["user"] for o in admin.ask("/api/v1/overrides").json["overrides"]] == ["alice"]
    assert override(admin, "DELETE", user="alice") == {"removed": "user:alice"}
    until(lambda: admin.agent.check(cost=0, user="alice")["tier"] == "anonymous")
    override(admin, "DELETE", user="alice", status=404)
    assert admin.ask("/api/v1/overrides").json == {"overrides": []}


def test_a_prefix_with_bits_behind_it_is_told_of(admin):
    """Where one address was meant, sixteen million of them would have been let pass in silence."""
    wide = override(admin, ip="10.0.0.1/8", bypass=True, **{"for": "1h"})
    assert wide["ip"] == "10.0.0.0/8" and "first 8 bits" in wide["warnings"][0], wide
    for ip in ("10.0.0.0/8", "192.0.2.1", "192.0.2.1/32", "2001:db8::/32"):
        assert "warnings" not in override(admin, ip=ip, bypass=True), ip
    both = override(admin, ip="2001:db8::1/64", tier="glod")
    assert len(both["warnings"]) == 2, both
    # as the log and `top` show who comes from 2001:db8:0:7:1:2:3:4
    shown = override(admin, ip="2001:db8:0:7::", block=True)
    assert shown["ip"] == "2001:db8:0:7::/128", shown
    assert "2001:db8:0:7::/64 for the client" in shown["warnings"][0], shown
    for ip in ("2001:db8:0:7::/64", "2001:db8:0:7::/128", "2001:db8:0:7::1", "10.0.0.0"):
        assert "warnings" not in override(admin, ip=ip, bypass=True), ip
    assert "warnings" not in json.dumps(admin.ask("/api/v1/overrides").json)


def test_a_tier_that_no_rule_lists_is_told_of(admin):
    """A typing error would take the client's limits away in silence."""
    warning, = override(admin, user="alice", tier="glod")["warnings"]
    assert "listed by no rule" in warning and warning.endswith('; did you mean "gold"?')
    assert "did you mean" not in override(admin, user="alice", tier="platinum")["warnings"][0]
    assert "warnings" not in override(admin, user="alice", tier="gold")
    assert "warnings" not in override(admin, user="alice", bypass=True)
    got, = admin.ask("/api/v1/overrides").json["overrides"]
    assert "warnings" not in got


def test_bypass_and_block(admin):
    override(admin, user="vip", bypass=True)
    served(admin, "bypassed", user="vip")
    assert passed(admin, 20, user="vip")[0] == 20
    override(admin, user="vip", block=True)
    served(admin, "blocked", user="vip")
    assert admin.agent.check(user="vip").denied
    override(admin, "DELETE", user="vip")
    served(admin, "ok", user="vip")


def test_rates_of_one_rule(admin):
    override(admin, user="carol", rates={"api": "5/day", "ip": "unlimited"})
    until(lambda: admin.agent.check(cost=0, user="carol", ip="10.9.9.9")["limit"] == 5)
    got, last = passed(admin, 9, user="carol", ip="10.9.9.9")
    assert got == 5 and last["rule"] == "api"
    refused = override(admin, user="carol", rates={"nope": "5/day"}, status=422)
    assert "nope" in refused["detail"], refused
    refused = override(admin, user="carol", rates={"api": "5/day burst 9"}, status=422)
    assert "algorithm" in refused["detail"], refused
    refused = override(admin, user="carol", rates={"api": ["1/day", "unlimited"]}, status=422)
    assert refused["detail"] == 'rule "api": "unlimited" beside other rates: want it alone', refused
    assert admin.ask("/api/v1/overrides").json["overrides"][0]["rates"]["api"] == "5/day"


def test_a_key_is_nowhere_in_clear(admin, tmp_path):
    override(admin, key="topsecretkey", block=True, reason="leaked")
    served(admin, "blocked", key="topsecretkey")
    digest = "sha256:" + hashlib.sha256(b"topsecretkey").hexdigest()
    shown = admin.ask("/api/v1/overrides")
    assert shown.json["overrides"][0]["key"] == digest
    assert "topsecretkey" not in shown.text + admin.agent.stderr
    # its hash does as well as itself
    override(admin, "DELETE", key=digest)
    served(admin, "ok", key="topsecretkey")


def test_addresses_by_prefix(admin):
    override(admin, ip="2001:db8::/32", block=True)
    override(admin, ip="2001:db8:1::/48", bypass=True)
    served(admin, "bypassed", ip="2001:db8:1::5")
    served(admin, "blocked", ip="2001:db8:2::5")
    assert [o["ip"] for o in admin.ask("/api/v1/overrides").json["overrides"]] == [
        "2001:db8:1::/48", "2001:db8::/32"]


def test_an_override_ends_by_itself(admin):
    override(admin, user="dave", bypass=True, **{"for": "2s"})
    served(admin, "bypassed", user="dave")
    until(lambda: admin.agent.check(cost=0, user="dave")["reason"] == "ok")
    assert admin.ask("/api/v1/overrides").json["overrides"] == []
    until(lambda: len(audit(admin)) == 2)
    lines = audit(admin)
    assert "what=put" in lines[0] and "what=end" in lines[1], lines


@pytest.mark.parametrize("body, word", [
    ({}, "user"), ({"user": "a"}, "tier"), ({"user": "a", "ip": "10.0.0.1", "block": True}, "one of"),
    ({"user": "a", "tier": "x", "block": True}, "one of"), ({"ip": "10.0.0", "block": True}, "ip"),
    ({"user": "a", "block": True, "for": "soon"}, "duration"),
    ({"user": "a", "block": True, "until": 5}, "future"),
    ({"user": "a", "block": True, "until": 2 ** 62}, "3660 days"),
    ({"user": "a", "block": True, "for": "3661d"}, "3660d"),
    ({"user": "a", "tier": "gold\n"}, "control"),
    ({"user": "a", "block": True, "unitl": 5}, "unitl"),
    ({"user": "", "block": True}, "user"), ({"user": 5, "block": True}, "text"),
    ({"user": "a", "rates": {"api": "often"}}, "often"),
])
def test_what_is_no_override_is_told(admin, body, word):
    told = override(admin, status=422, **body)
    assert word in told["detail"], told
    assert admin.ask("/api/v1/overrides").json == {"overrides": []}


def test_bodies_that_are_none(admin):
    for body in (b"", b"{", b"[]", b"nonsense", b"\xff\xfe", b'{"user":"a","user":"b"}', b"1" * 70000):
        a = admin.ask("/api/v1/overrides", "PUT", False, {**JSON, **BEARER}, body)
        assert a.status in (400, 413), (body[:20], a)
    assert admin.ask("/api/v1/overrides").json == {"overrides": []}


def test_a_reason_is_told_whole_or_refused(admin):
    """The log would cut it, and nobody be told."""
    for n, (path, method, body) in enumerate((
            ("/api/v1/overrides", "PUT", {"user": "alice", "block": True}),
            ("/api/v1/overrides", "DELETE", {"user": "alice"}), ("/api/v1/enabled", "PUT", {"mode": "shadow"}),
            ("/api/v1/enabled", "PUT", {"mode": "configured"}), ("/api/v1/reset", "POST", {"rule": "api"}),
            ("/api/v1/reset", "POST", {"fields": {"user": "alice"}, "rule": "api"}), ("/api/v1/reload", "POST", {})), 1):
        told = change(admin, path, method, status=422, reason="x" * 501, **body)
        assert "at most 500 bytes" in told["detail"], told
        change(admin, path, method, reason="x" * 500, **body)
        until(lambda n=n: sum("reason=" + "x" * 500 in line for line in audit(admin)) == n, "its line")


def test_a_reload_may_have_a_reason_and_nothing_else(admin):
    for body, status in ((b'{"user":', 400), (b"[]", 400), (b" ", 400), (b'{"mode": "off", "reason": "x"}', 422),
                         (b'{"reason": 5}', 422)):
        a = admin.ask("/api/v1/reload", "POST", False, {**JSON, **BEARER}, body)
        assert a.status == status and a.json["detail"], (body, a)
    assert admin.ask("/api/v1/status").json["generation"] == 1 and not audit(admin)
    for body in (None, b"", b"{}", b'{"reason": ""}', b'{"reason": "ticket 5"}'):
        a = admin.ask("/api/v1/reload", "POST", False, {**JSON, **BEARER}, body)
        assert a.status == 200, (body, a)
    until(lambda: len(audit(admin)) == 5)
    assert [("ticket 5" in line) for line in audit(admin)] == [False] * 4 + [True]


# --- switches and resets -------------------------------------------------------------------------

def test_the_emergency_switch(admin):
    assert passed(admin, 5, user="erin")[0] == 3
    told = change(admin, "/api/v1/enabled", mode="off", reason="the limiter is wrong")
    assert told["enabled"] is False
    served(admin, "disabled", user="erin")
    assert passed(admin, 5, user="erin")[0] == 5
    told = change(admin, "/api/v1/enabled", mode="configured")
    assert told == {"enabled": True, "switches": []}
    served(admin, "limited", user="erin")
    change(admin, "/api/v1/enabled", mode="shadow")
    served(admin, "ok", user="erin")
    assert admin.agent.check(user="erin")["shadow"] == "api"
    change(admin, "/api/v1/enabled", mode="configured")
    change(admin, "/api/v1/enabled", mode="off", rule="api")
    until(lambda: admin.agent.check(cost=0, user="erin")["reason"] == "ok")
    assert admin.ask("/api/v1/enabled").json["switches"][0]["rule"] == "api"
    refused = change(admin, "/api/v1/enabled", mode="off", rule="nope", status=422)
    assert "nope" in refused["detail"], refused
    change(admin, "/api/v1/enabled", mode="on", status=422)
    change(admin, "/api/v1/enabled", mode="configured", rule="ip", status=422)
    for body in ({"mode": "configured"}, {"enabled": True}):  # nothing is left to end
        refused = change(admin, "/api/v1/enabled", **body, **{"for": "1h"}, status=422)
        assert "nothing is left to end" in refused["detail"], refused


def test_a_reload_tells_what_has_no_effect_any_more(admin):
    """Who renames a rule would believe that what he set for a client still holds."""
    override(admin, user="alice", rates={"key": "5/day"})
    change(admin, "/api/v1/enabled", mode="off", rule="key")

    def reload(rules):
        admin.agent.rewrite(rules, top=admin.top())
        return [w["message"] for w in change(admin, "/api/v1/reload", "POST")["warnings"]]
    assert reload(RULES.replace("2/day", "3/day")) == []
    told = reload(RULES.replace('"key";', '"apikey";'))
    # (the part before the message is what it is about)
    assert len(told) == 2, told
    assert sum('"key"' in x for x in told) == 2, told
    override(admin, user="bob", tier="gold")  # what is changed since does not hide it

    def listed():
        return ([o.get("warnings") for o in admin.ask("/api/v1/overrides").json["overrides"]] +
                [w.get("warnings") for w in admin.ask("/api/v1/enabled").json["switches"]])
    said = ['there is no rule "key"']
    assert listed() == [said, None, said], listed()
    assert reload(RULES) == []
    assert listed() == [None, None, None], listed()
    assert sum(" change_without_effect " in x for x in admin.agent.lines()) == 2
    assert " config_warning " not in admin.agent.stderr


def test_status_shows_the_switches(admin):
    def seen():
        s = admin.ask("/api/v1/status").json
        return s["enabled"], [(w["rule"], w["mode"]) for w in s["switches"]]

    def gauge(rule, mode):
        return admin.value("ratelimit_switch", rule=rule, mode=mode)

    assert seen() == (True, []) and gauge("", "shadow") == 0
    change(admin, "/api/v1/enabled", mode="shadow", reason="a drill", **{"for": "1h"})
    change(admin, "/api/v1/enabled", mode="off", rule="api")
    assert seen() == (True, [(None, "shadow"), ("api", "off")])
    first = admin.ask("/api/v1/status").json["switches"][0]
    assert first["reason"] == "a drill" and first["until"] > first["since"]
    assert gauge("", "shadow") == 1 and gauge("api", "off") == 1 and gauge("", "off") == 0
    for rule in ({}, {"rule": "api"}):
        change(admin, "/api/v1/enabled", mode="configured", **rule)
    assert seen() == (True, []) and gauge("", "shadow") == 0 and gauge("api", "off") is None


def test_the_switch_in_other_words(admin):
    def put(status=200, **body):
        return change(admin, "/api/v1/enabled", status=status, **body)

    assert put(enabled=True) == {"enabled": True, "switches": []}
    told = put(enabled=False, **{"for": 60})
    assert told["enabled"] is False and told["switches"][0]["mode"] == "off"
    assert 55 < told["switches"][0]["until"] - time.time() <= 61
    assert put(enabled="shadow")["switches"][0]["mode"] == "shadow"
    assert put(enabled=True) == {"enabled": True, "switches": []}
    assert put(enabled=False, rule="api")["switches"][0]["rule"] == "api"
    assert put(enabled=True, rule="api")["switches"] == []
    for mode in ("off", "enforce"):
        assert put(enabled=mode)["switches"][0]["mode"] == mode
        assert put(enabled="configured") == {"enabled": True, "switches": []}
    for body in ({"enabled": True, "mode": "off"}, {"enabled": "on"}, {"enabled": ""}, {"enabled": 1},
                 {"enabled": None}, {"enabled": True, "rule": "nope"}, {"enabled": False, "rule": ""},
                 {"enabled": False, "for": 0}, {"enabled": False, "for": -1},
                 {"enabled": False, "for": 1.5}, {"enabled": False, "for": True},
                 {"enabled": False, "for": 2 ** 62}, {"enabled": False, "for": -2 ** 62}):
        put(422, **body)
    assert put(enabled=True) == {"enabled": True, "switches": []}
    assert put(enabled=True, rule=None) == {"enabled": True, "switches": []}


def test_resets(admin):
    for user in ("f1", "f2"):
        assert passed(admin, 5, user=user, ip="10.8.8.8")[0] <= 3
    assert admin.agent.check(user="f1", cost=0).denied
    change(admin, "/api/v1/reset", "POST", rule="api")
    served(admin, "ok", user="f1")
    assert passed(admin, 5, user="f1")[0] == 3
    assert admin.agent.check(cost=0, ip="10.8.8.8").denied  # another rule's counter
    change(admin, "/api/v1/reset", "POST", all=True)
    served(admin, "ok", ip="10.8.8.8")
    assert passed(admin, 5, user="f1")[0] == 3
    change(admin, "/api/v1/reset", "POST", rule="nope", status=422)
    change(admin, "/api/v1/reset", "POST", rule="api\0x", status=400)
    change(admin, "/api/v1/reset", "POST", status=422)
    change(admin, "/api/v1/reset", "POST", rule="api", all=True, status=422)


# --- by whom, and how long -----------------------------------------------------------------------

def test_who_may_change(admin):
    for path, method, body in (("/api/v1/overrides", "PUT", {"user": "a", "block": True}),
                               ("/api/v1/overrides", "DELETE", {"user": "a"}),
                               ("/api/v1/enabled", "PUT", {"mode": "off"}),
                               ("/api/v1/reset", "POST", {"all": True})):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            a = admin.ask(path, method, False, {**JSON, **headers}, json.dumps(body))
            assert a.status in (401, 403), a
        a = admin.ask(path, method, False, {**JSON, **BEARER, "Origin": "http://evil.example"},
                      json.dumps(body))
        assert a.status == 403, a
    assert audit(admin) == []
    assert admin.ask("/api/v1/enabled").json["enabled"] is True


def test_the_socket_tells_its_user(run, tmp_path):
    admin = Admin(run, tmp_path, token="", rules=RULES)
    change(admin, "/api/v1/enabled", unix=True, headers={}, mode="shadow", reason="drill")
    change(admin, "/api/v1/enabled", headers={}, mode="off", status=403)
    line, = until(lambda: audit(admin))
    assert 'who="uid=0"' in line or "who=uid=0" in line, line
    assert "drill" in line and "switch:" in line, line


def test_a_tier_that_a_pattern_matches_is_no_typing_error(run, tmp_path):
    admin = Admin(run, tmp_path, rules=RULES, top='allow = ( { tier = "intern*"; } );')
    assert "warnings" not in override(admin, user="alice", tier="internal")
    assert "listed by no rule" in override(admin, user="alice", tier="inside")["warnings"][0]


@pytest.mark.parametrize("level, args", [("info", ()), ("warning", ()), ("error", ()), ("info", ("-q",))])
def test_the_audit_log_is_always_written(run, tmp_path, level, args):
    """Who, what, why, until when; of every kind of change, whatever else is logged."""
    rules = RULES + """, { name = "login"; match = { path = "/login"; }; per = [ "ip" ]; rate = "1/day";
                          penalty = { after = "1/1m"; ban = "2s"; }; }"""
    admin = Admin(run, tmp_path, rules=rules, top=f'log: {{ level = "{level}"; }};', args=args)

    def ban(ip):
        return until(lambda: [b["id"] for b in admin.ask("/api/v1/bans").json["bans"]
                              if b["client"] == f"ip={ip}"] or admin.agent.check(ip=ip, path="/login") and None)[0]

    override(admin, user="alice", block=True, reason="why not", **{"for": "1h"})
    change(admin, "/api/v1/enabled", mode="shadow", rule="api")
    override(admin, "DELETE", user="alice", reason="it was wrong")
    change(admin, "/api/v1/reset", "POST", rule="api", reason="a drill")
    change(admin, "/api/v1/reset", "POST", all=True)
    change(admin, "/api/v1/reset", "POST", fields={"ip": "10.8.8.8"}, rule="ip")
    assert admin.ask("/api/v1/reload", "POST", headers={**JSON, **BEARER}).status == 200
    first = ban("10.1.1.1")
    change(admin, "/api/v1/bans", "DELETE", id=first, reason="he called")
    second = ban("10.2.2.2")
    admin.agent.write("rules = (")
    change(admin, "/api/v1/reload", "POST", status=422, reason="ticket 5")
    admin.agent.send_signal(signal.SIGHUP)
    want = [
        ["what=put", "change=override:user:alice", "who=token", 'reason="why not"', "until"],
        ["what=put", "change=switch:api", "shadow"],
        ["what=remove", "change=override:user:alice", 'reason="it was wrong"'],
        ["what=reset", "change=rule:api", "who=token", 'reason="a drill"'],
        ["what=reset", "change=all "],
        ["what=reset", "change=counters", "ip=10.8.8.8"],
        ["what=reload", "change=configuration", "who=token", "result=ok", "generation="],
        ["what=ban", "ban:ip=10.1.1.1", 'who="rule login"', f"id={first}", "for_s=2", "until="],
        ["what=lift", "ban:ip=10.1.1.1", "who=token", first, "he called"],
        ["what=ban", "ban:ip=10.2.2.2", f"id={second}"],
        ["what=reload", "who=token", "result=refused", 'reason="ticket 5"'],
        ["what=end", "ban:ip=10.2.2.2", 'who="its time"', f"id={second}"],
    ]
    if level != "error" and not args:   # a signal is of who has the machine, and the log's level
        want.append(["what=reload", "who=SIGHUP", "result=refused"])
    lines = until(lambda: len(audit(admin)) >= len(want) and audit(admin), "an audit line for each")
    for words in want:
        found = [x for x in lines if all(w in x for w in words)]
        assert len(found) == 1, (words, lines)
    assert len(lines) == len(want), lines
    others = [x for x in admin.agent.lines() if " audit " not in x and " info " in x]
    assert bool(others) == (level == "info" and not args)


def test_changes_go_on_through_reloads_and_restarts(run, tmp_path):
    admin = Admin(run, tmp_path, rules=RULES, top=f'store: {{ state_file = "{tmp_path}/state"; }};')
    override(admin, user="gina", bypass=True, reason="kept")
    change(admin, "/api/v1/enabled", mode="off", rule="ip")
    a = admin.ask("/api/v1/reload", "POST", headers={**JSON, **BEARER})
    assert a.status == 200, a
    served(admin, "bypassed", user="gina")
    admin.agent.restart()
    served(admin, "bypassed", user="gina")
    assert admin.ask("/api/v1/enabled").json["switches"][0]["rule"] == "ip"
    assert admin.ask("/api/v1/overrides").json["overrides"][0]["reason"] == "kept"


def test_a_hundred_overrides_under_load(admin):
    """Each is a new configuration for the workers: none is lost, and no check either."""
    import threading
    stop, bad = threading.Event(), []

    def ask():
        while not stop.is_set():
            try:
                assert admin.agent.check(user="load")["reason"] in ("ok", "limited")
            except Exception as e:  # noqa: BLE001: told below
                bad.append(e)
                return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for i in range(100):
            def put(i=i):
                a = admin.ask("/api/v1/overrides", "PUT", False, {**JSON, **BEARER},
                              json.dumps({"user": f"u{i}", "bypass": True}))
                assert a.status == 200 or "try again" in a.json["detail"], a
                return a.status == 200
            until(put)
    finally:
        stop.set()
        thread.join()
    assert not bad, bad
    assert len(admin.ask("/api/v1/overrides").json["overrides"]) == 100
    served(admin, "bypassed", user="u99")
