"""Requests to the admin interface that are under way while the agent reloads or stops: each gets an answer
or an end, nothing hangs, and nothing crashes."""

import contextlib
import http.client
import json
import signal
import threading

import pytest

import agent as agents
import redisd
from agent import until
from test_admin import BEARER, Admin

JSON = {"Content-Type": "application/json"}
RULES = '''
{ name = "api"; per = [ "user" ]; rate = { gold = "9/day"; default = "3/day"; }; algorithm = "fixed-window";
  penalty = { after = "50/1m"; ban = "10m"; }; }
'''
FIELDS = {"fields": {"user": "alice"}}
ASKED = [("/api/v1/explain", "POST", FIELDS), ("/api/v1/reset", "POST", FIELDS),
         ("/api/v1/overrides", "PUT", {"user": "alice", "tier": "gold"}),
         ("/api/v1/reset", "POST", {"rule": "api"}), ("/api/v1/status", "GET", None)]


class Asking(threading.Thread):
    """One request; `got` is its status, or what ended it."""

    def __init__(self, admin, path, method, body):
        super().__init__(daemon=True)
        self.admin, self.path, self.method, self.body, self.got = admin, path, method, body, None
        self.start()

    def run(self):
        c = http.client.HTTPConnection("127.0.0.1", self.admin.port, timeout=agents.BOUND)
        with contextlib.closing(c):
            try:
                c.request(self.method, self.path, headers={**JSON, **BEARER},
                          body=json.dumps(self.body) if self.body else None)
                r = c.getresponse()
                r.read()
                self.got = r.status
            except (OSError, http.client.HTTPException) as e:
                self.got = repr(e)

    def answer(self):
        self.join(agents.BOUND)
        assert self.got is not None, f"{self.method} {self.path} hangs"
        return self.got


class Flood:
    """Requests of all kinds, again and again, until it is told to stop."""

    def __init__(self, admin, n=4):
        self.admin, self.over, self.got = admin, threading.Event(), set()
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(n)]
        for t in self.threads:
            t.start()

    def run(self, i):
        while not self.over.is_set():
            a = Asking(self.admin, *ASKED[i % len(ASKED)])
            self.got.add(a.answer())
            i += 1

    def stop(self):
        self.over.set()
        for t in self.threads:
            t.join(agents.BOUND)
            assert not t.is_alive(), "a request hangs"


@pytest.fixture
def redis(tmp_path, ends):
    return ends(redisd.Server(tmp_path))


def beside(run, tmp_path, redis):
    """Redis may take half a minute: who asks it waits as long as it is paused."""
    admin = Admin(run, tmp_path, rules=RULES, top=redis.group(timeout="30s"))
    assert admin.agent.check(user="alice")["reason"] == "ok"
    return admin


def waiting(admin):
    """Both wait for a Redis that says nothing."""
    asked = [Asking(admin, "/api/v1/explain", "POST", FIELDS) for _ in range(3)]
    asked.append(Asking(admin, "/api/v1/reset", "POST", FIELDS))
    until(lambda: admin.value("ratelimit_admin_connections") >= 5)
    assert all(a.got is None for a in asked), [a.got for a in asked]
    return asked


def test_a_reload_while_they_wait(run, tmp_path, redis):
    admin = beside(run, tmp_path, redis)
    redis.pause()
    asked = waiting(admin)
    for i in range(20):     # more than are kept for who has not taken them over yet
        admin.agent.send_signal(signal.SIGHUP)
        until(lambda i=i: admin.agent.stderr.count(" reloaded ") == i + 1)
    redis.resume()
    assert [a.answer() for a in asked] == [200] * 4


@pytest.mark.parametrize("how", ["drain", "at once"])
def test_a_stop_while_they_wait(run, tmp_path, redis, how):
    admin = beside(run, tmp_path, redis)
    admin.agent.forget()
    redis.pause()
    asked = waiting(admin)
    admin.agent.send_signal(signal.SIGTERM)
    if how == "at once":
        admin.agent.send_signal(signal.SIGTERM)
        admin.agent.send_signal(signal.SIGTERM)
    for a in asked:
        got = a.answer()
        assert got == 503 or "Connection" in str(got) or "Disconnected" in str(got), got
    assert admin.agent.wait() == 0
    redis.resume()


@pytest.mark.parametrize("store", ["memory", "file", "redis"])
def test_a_flood_while_it_reloads_and_stops(run, tmp_path, store, request):
    if store == "redis":
        top = request.getfixturevalue("redis").group()
    else:
        top = f'store: {{ state_file = "{tmp_path}/state"; }};' if store == "file" else ""
    admin = Admin(run, tmp_path, rules=RULES, top=top)
    for _ in range(3):
        flood = Flood(admin)
        until(lambda flood=flood: 200 in flood.got)
        for _ in range(5):
            before = admin.agent.stderr.count(" reloaded ")
            admin.agent.send_signal(signal.SIGHUP)
            until(lambda before=before: admin.agent.stderr.count(" reloaded ") > before)
        admin.agent.forget()
        assert admin.agent.stop() == 0
        flood.stop()
        known = {200, 422, 429, 503}
        assert all(g in known or isinstance(g, str) for g in flood.got), flood.got
        admin.agent.start()
        until(lambda: admin.ask("/readyz").status == 200)
