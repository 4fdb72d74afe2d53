"""An operator's story: a client is denied behind HAProxy; top shows him, explain says why; an override
with an end lets him pass at both of two agents; it ends by itself; the audit log tells all of it, and so
does the page's own source of news."""

import json
import os
import subprocess

import pytest

import redisd
import stack
from agent import BINARY, until
from test_admin import TOKEN, Admin
from test_haproxy import Client, HAProxy

pytestmark = pytest.mark.skipif(not os.access(stack.HAPROXY, os.X_OK), reason="no haproxy here")

RULES = '{ name = "api"; per = [ "user" ]; rate = "5/day"; }'
CTL = str(BINARY).replace("spoa-ratelimit", "ratelimitctl")


def ctl(admin, *words, status=0):
    r = subprocess.run([CTL, *words, "--socket", admin.socket, "--json"], capture_output=True, text=True,
                       timeout=30, env={**os.environ, "RATELIMIT_ADMIN_TOKEN": TOKEN})
    assert r.returncode == status, (words, r.stdout, r.stderr)
    return r.stdout


def status(proxy, user):
    return Client(proxy.port).get("/x", x_user=user).status


def test_a_client_is_helped(run, tmp_path, ends):
    redis = ends(redisd.Server(tmp_path))
    folders = [tmp_path / "n1", tmp_path / "n2"]
    for folder in folders:
        folder.mkdir()
    nodes = [Admin(run, folder, rules=RULES, top=redis.group()) for folder in folders]
    proxies = [HAProxy(folder, [f"unix@{node.agent.listen}"], name="h").start()
               for folder, node in zip(folders, nodes)]
    try:
        for proxy in proxies:
            until(lambda p=proxy: status(p, "other") == 200)
        # one limit for both, and he has used it up
        assert [status(proxies[n % 2], "alice") for n in range(5)] == [200] * 5
        assert [status(p, "alice") for p in proxies] == [429, 429]

        # who is denied most?
        until(lambda: "alice" in ctl(nodes[0], "top"))
        # why?
        told = json.loads(ctl(nodes[0], "explain", "user=alice", "path=/x"))
        assert told["decision"]["deny"] is True and told["decision"]["rule"] == "api", told
        assert status(proxies[0], "alice") == 429

        # he is let through, for a while, at both
        ctl(nodes[0], "override", "add", "user=alice", "--bypass", "--for", "6s", "--reason", "ticket 42")
        for proxy in proxies:
            until(lambda p=proxy: status(p, "alice") == 200)
        page = nodes[1].ask("/api/v1/overrides").json["overrides"]
        assert page[0]["user"] == "alice" and page[0]["reason"] == "ticket 42", page

        # it ends by itself, at both
        for proxy in proxies:
            until(lambda p=proxy: status(p, "alice") == 429)
        assert nodes[0].ask("/api/v1/overrides").json["overrides"] == []

        # all of it is written down: who, what, why, until when; and its end
        def written():
            return [x for x in nodes[0].agent.lines() if " audit " in x and "override:user:alice" in x]
        until(lambda: "what=end" in written()[-1], "the line that tells of its end")
        first = written()[0]
        assert all(word in first for word in ("what=put", "who=", "ticket 42", "until")), first
    finally:
        for proxy in proxies:
            proxy.finish()
