"""/api/v1/events of a real agent: what happens, as it happens, to whoever listens."""

import json
import signal

import pytest

from agent import until
from spop import message
from test_admin import BEARER, Admin

RULES = '{ name = "api"; per = [ "user" ]; rate = "1/day"; }'


@pytest.fixture
def admin(run, tmp_path):
    return Admin(run, tmp_path, rules=RULES)


class Events:
    """A listener, and what it has heard."""

    def __init__(self, admin, query=""):
        self.s = admin.dial()
        self.s.sendall(f"GET /api/v1/events{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        self.f = self.s.makefile("rb")
        self.status = int(self.f.readline().split()[1])
        self.headers = {}
        while (line := self.f.readline().strip()):
            name, value = line.decode().split(": ", 1)
            self.headers[name.lower()] = value
        if self.status == 200:
            assert self.chunk() == ":\n\n"

    def chunk(self):
        n = int(self.f.readline(), 16)
        text = self.f.read(n).decode()
        self.f.readline()
        return text

    def next(self):
        """(event, data); comments are passed over."""
        while True:
            lines = [self.line()]
            while lines[-1]:
                lines.append(self.line())
            fields = dict(l.split(": ", 1) for l in lines if l and not l.startswith(":"))
            if fields:
                return fields["event"], json.loads(fields["data"])

    rest = ""

    def line(self):
        while "\n" not in self.rest:
            self.rest += self.chunk()
        line, self.rest = self.rest.split("\n", 1)
        return line

    def close(self):
        self.f.close()
        self.s.close()


def assert_summed_up(events, name, n):
    """Some are told, and of the others how many: `n` in all."""
    told, more = 0, 0
    while told + more < n:
        kind, data = events.next()
        assert kind == name, (kind, data)
        told += data["event"] == name
        more += data["count"] if data["event"] == f"{name}_more" else 0
    assert told + more == n and told < 200 and more


def test_denials(admin):
    e = Events(admin)
    assert e.headers["content-type"].startswith("text/event-stream")
    assert e.headers["cache-control"] == "no-store"
    for _ in range(2):
        admin.agent.check({"user": "al\"i\nce", "ip": "10.0.0.1", "method": "GET", "path": "/a"})
    kind, data = e.next()
    assert kind == "denied" and data["event"] == "denied" and data["rule"] == "api", data
    assert data["client"] == 'user=al"i\nce' and data["endpoint"] == "GET:/a", data
    assert data["ip"] == "10.0.0.1" and isinstance(data["time"], float), data


def test_what_shadow_mode_would_deny(run, tmp_path):
    admin = Admin(run, tmp_path, rules='''
{ name = "spy"; per = [ "user" ]; rate = "2/day"; mode = "shadow"; },
{ name = "api"; per = [ "ip" ]; rate = "1/day"; match = { path = "/a"; }; }
''')
    e, some = Events(admin), Events(admin, "?types=shadow")
    sent = {"user": "al", "ip": "10.0.0.1", "method": "GET", "tier": "gold"}
    for path in ("/b", "/b", "/b", "/c"):
        admin.agent.check({**sent, "path": path})
    admin.agent.check({**sent, "path": "/b", "cost": 0})
    for listener in (e, some):
        for path in ("/b", "/c"):
            kind, data = listener.next()
            assert (kind, data["event"]) == ("shadow", "shadow"), data
            assert data["rule"] == "spy" and data["client"] == "user=al" and data["limit"] == 2, data
            assert data["reason"] == "limited" and 0 < data["retry_after"] <= 86400, data
            assert data["endpoint"] == f"GET:{path}" and data["tier"] == "gold", data
    with admin.agent.connect() as c:
        c.batch([message("check", {"user": "x"}) for _ in range(500)])
    assert_summed_up(some, "shadow", 498)


def test_a_flood_is_summed_up(admin):
    e = Events(admin, "?types=denied")
    with admin.agent.connect() as c:
        c.batch([message("check", {"user": "x"}) for _ in range(500)])
    assert_summed_up(e, "denied", 499)


def test_types(admin):
    every, some = Events(admin), Events(admin, "?types=reload,change")
    for _ in range(2):
        admin.agent.check({"user": "u"})
    assert every.next()[0] == "denied"
    put = admin.ask("/api/v1/enabled", "PUT", headers={
        "Content-Type": "application/json", **BEARER}, body=json.dumps(
            {"mode": "shadow", "rule": "api", "reason": "look"}))
    assert put.status < 300, put
    admin.agent.send_signal(signal.SIGHUP)
    for e in (every, some):
        kind, data = e.next()
        assert kind == "change" and data["who"] == "token" and data["reason"] == "look", data
        kind, data = e.next()
        assert kind == "reload" and data["event"] == "reloaded", data
        kind, data = e.next()
        assert kind == "reload" and data["event"] == "audit" and data["who"] == "SIGHUP", data
    admin.agent.rewrite(rules=RULES + "x", top=admin.top())
    admin.agent.send_signal(signal.SIGHUP)
    assert some.next()[1]["event"] == "reload_refused"


def test_bans(run, tmp_path):
    admin = Admin(run, tmp_path, rules='''{ name = "api"; per = [ "user" ]; rate = "1/day";
                  penalty = { after = "2/1m"; ban = "10m"; }; }''')
    e = Events(admin, "?types=ban")
    for _ in range(5):
        admin.agent.check({"user": "u"})
    kind, data = e.next()
    assert kind == "ban" and data["change"] == "ban:user=u" and data["who"] == "rule api", data


def test_whatever_the_log_says(run, tmp_path):
    """The log's level is no bound for it."""
    admin = Admin(run, tmp_path, rules=RULES, top='log: { level = "error"; };')
    e = Events(admin)
    for _ in range(2):
        admin.agent.check({"user": "u"})
    assert e.next()[0] == "denied"
    assert "denied" not in admin.agent.stderr


def test_wrong_questions(admin):
    for query in ("?types=", "?types=x", "?types=denied,x"):
        assert admin.ask("/api/v1/events" + query).status == 400, query


def test_bounded(admin):
    """So many and no more; a place that was left is free again."""
    them = [Events(admin) for _ in range(16)]
    assert all(e.status == 200 for e in them)
    a = admin.ask("/api/v1/events")
    assert a.status == 503 and "16" in a.json["detail"]
    for _ in range(2):
        admin.agent.check({"user": "u"})
    for e in them:
        assert e.next()[0] == "denied"
    for e in them[:5]:
        e.close()
    again = []

    def free():
        again.append(Events(admin))
        return again[-1].status == 200
    until(free)
    assert not admin.agent.check({"user": "v"}).denied


def test_head_has_headers_and_nothing_behind_them(admin):
    """What is behind them would be read as the beginning of the next answer."""
    with admin.dial() as s, s.makefile("rb") as f:
        s.sendall(b"HEAD /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
                  b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert f.readline().startswith(b"HTTP/1.1 200 ")
        fields = list(iter(f.readline, b"\r\n"))
        assert b"Content-Type: text/event-stream\r\n" in fields
        rest = f.read()
    assert rest == b"" or rest.startswith(b"HTTP/1.1 200 "), rest


def test_it_ends_with_the_agent(admin):
    e = Events(admin)
    admin.agent.stop()
    with pytest.raises((ValueError, IndexError, ConnectionError)):
        while e.next():
            pass
