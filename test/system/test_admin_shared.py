"""What an operator changes at one agent holds at all that share its Redis."""

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import pathlib
import re
import select
import socket
import struct
import threading
import time

import pytest

import redisd
from agent import until
from test_admin import BEARER, Admin
from test_admin_changes import JSON, audit, change, override, served
from test_ctl import call

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
    def __init__(self, run, tmp_path, redis, rules=RULES):
        self.run, self.redis, self.tmp_path, self.rules = run, redis, tmp_path, rules
        self.at = [self.start(i) for i in range(2)]

    def start(self, i):
        folder = self.tmp_path / f"n{i}{len(list(self.tmp_path.iterdir()))}"
        folder.mkdir()
        return Admin(self.run, folder, rules=self.rules, top=self.redis.group())


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


def test_who_is_banned_is_hidden_by_whom_it_is_secret(two):
    """The other agent's configuration does not say that addresses are; what it tells is hidden, there too."""
    a, b = two.at
    a.agent.rewrite(RULES, a.top(two.redis.group() + 'identity: { secret = [ "key", "ip" ]; };'))
    assert a.ask("/api/v1/reload", "POST", headers={**JSON, **BEARER}).status == 200
    until(lambda: b.agent.check(ip="192.0.2.17", path="/login")["reason"] == "banned")
    ban, = until(lambda: a.ask("/api/v1/bans").json["bans"])
    assert ban["client"] == "ip=sha256:" + hashlib.sha256(b"192.0.2.17").hexdigest()[:12]

    def kept():
        return [x for x in two.redis("HVALS", "rl:{changes}") if b'"client"' in x]
    until(lambda: ban["client"].encode() in b"".join(kept()))
    assert len(kept()) == 1 and b"192.0.2.17" not in kept()[0]
    assert b.ask("/api/v1/bans").json["bans"][0]["client"] == "ip=192.0.2.17"
    # and that is the end of it
    number = two.redis("GET", "rl:{changes}:version")
    for _ in range(3):
        override(a, user="x", bypass=True)
    assert int(two.redis("GET", "rl:{changes}:version")) == int(number) + 3


def test_a_secret_user_is_hashed_for_both(two, tmp_path):
    """Also where the other agent's configuration does not say that he is secret, yet."""
    a, b = two.at
    digest = "sha256:" + hashlib.sha256(b"alice.x").hexdigest()
    a.agent.rewrite(RULES, a.top(two.redis.group() + 'identity: { secret = [ "key", "user" ]; };'))
    assert a.ask("/api/v1/reload", "POST", headers={**JSON, **BEARER}).status == 200
    override(a, user="bob.x", block=True)
    override(b, user="alice.x", bypass=True)
    for at in (a, b):
        served(at, "bypassed", user="alice.x")
        served(at, "blocked", user="bob.x")
        until(lambda at=at: digest in [o["user"] for o in at.ask("/api/v1/overrides").json["overrides"]])
        assert ".x" not in at.ask("/api/v1/overrides").text
    until(lambda: ".x" not in str(two.redis("HGETALL", "rl:{changes}")))
    # (Whom it denies, an agent shows as its own configuration has it.)
    told = [x for x in a.agent.lines() + b.agent.lines() if " denied " not in x or x in a.agent.lines()]
    assert told and "bob.x" not in "".join(told)


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


def test_who_starts_knows_before_it_answers(two, run, ends):
    """What Redis says comes some milliseconds after it can be asked: nobody blocked is let in meanwhile."""
    override(two.at[0], user="dave", block=True)
    wire = ends(redisd.Proxy(two.redis.address))
    wire.set("pass", 0.02)
    late = run(rules=RULES, top=redisd.group(wire.address))
    assert late.check(user="dave")["reason"] == "blocked"


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


def test_what_was_taken_away_stays_away_after_a_failover(two):
    """A replica that takes over has not heard of the last changes: of a limit that was switched on again, say."""
    a, b = two.at
    override(a, user="erin", block=True)
    change(a, "/api/v1/enabled", mode="off")
    for at in (a, b):
        served(at, "disabled", user="frank")
    before = two.redis("HGETALL", "rl:{changes}")
    number = two.redis("GET", "rl:{changes}:version")
    change(b, "/api/v1/enabled", mode="configured")
    override(a, "DELETE", user="erin")
    for at in (a, b):
        served(at, "ok", user="erin")
    with two.redis.client() as c:
        c.send("MULTI")
        c.send("HSET", "rl:{changes}", *before)
        c.send("SET", "rl:{changes}:version", number)
        c.send("DEL", "rl:{changes}:log")
        c.send("EXEC")
        for _ in range(5):
            c.read()
    until(lambda: any("changes_told_again" in x for at in (a, b) for x in at.agent.lines()))
    until(lambda: two.redis("HLEN", "rl:{changes}") == 0)
    c = two.start(2)
    for at in (a, b, c):
        assert at.agent.check(user="erin")["reason"] == "ok"
    # and may be set again
    override(a, user="erin", block=True)
    for at in (a, b, c):
        served(at, "blocked", user="erin")


# --- the answer comes when Redis has it ----------------------------------------------------------

def put_override(at, user):
    """Asked for, and not waited for."""
    s = at.dial()
    body = json.dumps({"user": user, "bypass": True})
    headers = {**JSON, **BEARER, "Host": "127.0.0.1", "Content-Length": len(body)}
    s.sendall("\r\n".join(["PUT /api/v1/overrides HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()),
                           "", body]).encode())
    return s


def answer(s):
    response = http.client.HTTPResponse(s)
    response.begin()
    assert response.status == 200
    return json.loads(response.read())


@contextlib.contextmanager
def paused(redis):
    redis.pause()
    try:
        yield
    finally:
        redis.resume()


def test_the_answer_comes_when_redis_has_it(two):
    """It holds before that, and meanwhile others are answered."""
    a = two.at[0]
    number = itertools.count()

    def once():
        user = f"u{next(number)}"
        with contextlib.ExitStack() as resumed:
            resumed.enter_context(paused(two.redis))
            s = resumed.enter_context(put_override(a, user))
            until(lambda: user in users(a))
            waits = not select.select([s], [], [], 0)[0]
            two.redis.resume()
            told = answer(s)
        if "warnings" in told:   # this machine took longer than anyone waits
            return False
        assert two.redis("HEXISTS", "rl:{changes}", f"override:user:{user}")
        line, = until(lambda: [x for x in audit(a) if f"override:user:{user}" in x])
        assert "not_shared" not in line
        return waits

    until(once)


def warned(answer):
    return "this agent alone" in "".join(answer.get("warnings", []))


def test_a_redis_that_hangs_is_told_of(two):
    a, b = two.at
    with paused(two.redis):
        assert warned(override(a, user="x", bypass=True))
        served(a, "bypassed", user="x")
        assert warned(override(a, user="y", bypass=True))
        line, = until(lambda: [x for x in audit(a) if "override:user:x" in x])
        assert "not_shared" in line
    both_have(two, {"x", "y"})
    until(lambda: not warned(override(a, user="x", bypass=True)))


def test_a_redis_that_is_away_is_told_of(two):
    a, b = two.at
    override(a, user="x", bypass=True)
    until(lambda: a.agent.check(ip="10.0.0.1", path="/login")["reason"] == "banned")
    until(lambda: a.ask("/api/v1/bans").json["count"] == 1)
    ban, = a.ask("/api/v1/bans").json["bans"]
    two.redis.stop()
    for told in (override(a, user="y", bypass=True), override(a, "DELETE", user="x"),
                 change(a, "/api/v1/enabled", rule="login", mode="off"),
                 change(a, "/api/v1/reset", "POST", rule="api"),
                 change(a, "/api/v1/bans", "DELETE", id=ban["id"])):
        assert warned(told), told
    two.redis.start()
    both_have(two, {"y"})
    for at in two.at:
        until(lambda: [s["rule"] for s in at.ask("/api/v1/enabled").json["switches"]] == ["login"])
    until(lambda: b.ask("/api/v1/bans").json["count"] == 0)
    until(lambda: not warned(override(a, user="z", bypass=True)))


def sockets(agent):
    """Threads open other descriptors when they first need them."""
    n = 0
    for fd in pathlib.Path(f"/proc/{agent.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            n += os.readlink(fd).startswith("socket:")
    return n


@pytest.mark.parametrize("comes_back", [True, False])
def test_who_leaves_while_redis_is_waited_for(two, comes_back):
    """Its change holds, is told, and is written down; nothing is left of who asked."""
    a = two.at[0]
    before = sockets(a.agent)
    names = {f"u{i}" for i in range(30)}
    with paused(two.redis):
        left = [put_override(a, name) for name in sorted(names)]
        until(lambda: users(a) == names)
        for i, s in enumerate(left):
            if i % 3 == 0:
                s.shutdown(socket.SHUT_WR)
            elif i % 3 == 1:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        if not comes_back:   # before it is stopped: they do not wait for ever
            until(lambda: len(audit(a)) == len(names))
            until(lambda: sockets(a.agent) <= before)
    both_have(two, names)
    until(lambda: len(audit(a)) == len(names))
    until(lambda: sockets(a.agent) <= before)
    assert a.agent.stop() == 0


def test_a_stop_waits_for_nobody(two):
    """Whoever does is told that it stops."""
    a = two.at[0]
    with paused(two.redis), put_override(a, "x") as s:
        until(lambda: users(a) == {"x"})
        assert a.agent.stop() == 0
        response = http.client.HTTPResponse(s)
        response.begin()
        assert response.status in (200, 503)
    line, = audit(a)
    assert "not_shared" in line


# --- what is read of them ------------------------------------------------------------------------

def calls(redis, command):
    """How often it was called so far."""
    for line in redis("INFO", "commandstats").decode().splitlines():
        if line.startswith(f"cmdstat_{command}:"):
            return int(line.split("calls=")[1].split(",")[0])
    return 0


def users(at):
    return {o["user"] for o in at.ask("/api/v1/overrides").json["overrides"]}


def both_have(two, want):
    for at in two.at:
        until(lambda: users(at) == want)


def test_only_what_changed_is_read(two):
    a, b = two.at
    override(a, user="first", bypass=True)
    both_have(two, {"first"})
    before = calls(two.redis, "hgetall")
    for i in range(10):
        override(two.at[i % 2], user=f"u{i}", bypass=True)
        if i % 3 == 0:
            override(two.at[i % 2], "DELETE", user=f"u{i}")
    both_have(two, {"first"} | {f"u{i}" for i in range(10) if i % 3})
    until(lambda: b.agent.check(ip="10.0.0.9", path="/login")["reason"] == "banned")
    until(lambda: a.ask("/api/v1/bans").json["count"] == 1)
    assert calls(two.redis, "hgetall") == before


def raw_put(redis, user, **value):
    """As earlier releases do: without the log."""
    redis("HSET", "rl:{changes}", f"override:user:{user}", json.dumps(value))
    redis("INCR", "rl:{changes}:version")


def test_an_earlier_release_beside_them(two):
    a, b = two.at
    override(a, user="x", bypass=True)
    both_have(two, {"x"})
    raw_put(two.redis, "old", bypass=True)
    both_have(two, {"x", "old"})
    override(b, user="y", bypass=True)
    both_have(two, {"x", "old", "y"})
    raw_put(two.redis, "old2", bypass=True)
    override(b, user="z", bypass=True)
    both_have(two, {"x", "old", "old2", "y", "z"})


def test_more_than_the_log_holds(two):
    """One that was away for more than a thousand of them reads all."""
    a, b = two.at
    override(a, user="x", bypass=True)
    both_have(two, {"x"})
    two.redis("EVAL", """for i = 1, 1200 do
        local n = redis.call('INCR', KEYS[2])
        local name = 'override:user:m' .. (i % 50)
        redis.call('HSET', KEYS[1], name, '{"bypass":true}')
        redis.call('XADD', KEYS[3], 'MAXLEN', 1000, n .. '-0', 'name', name, 'text', '{"bypass":true}')
    end""", "3", "rl:{changes}", "rl:{changes}:version", "rl:{changes}:log")
    both_have(two, {"x"} | {f"m{i}" for i in range(50)})


def test_a_redis_that_was_lost_and_filled_again_in_between(two):
    """The number is beyond what was seen, but of another life: what is known here is told again."""
    a, b = two.at
    for user in ("x", "y"):
        override(a, user=user, bypass=True)
    both_have(two, {"x", "y"})
    two.redis("EVAL", """redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
    for i = 1, 9 do
        local n = redis.call('INCR', KEYS[2])
        redis.call('HSET', KEYS[1], 'override:user:new', '{"block":true}')
        redis.call('XADD', KEYS[3], n .. '-0', 'name', 'override:user:new', 'text', '{"block":true}')
    end""", "3", "rl:{changes}", "rl:{changes}:version", "rl:{changes}:log")
    both_have(two, {"x", "y", "new"})


def test_a_log_that_cannot_be_read(run, tmp_path, ends):
    """As before an upgrade of the ACL: all is read for each change, and a warning says so."""
    redis = ends(redisd.Server(tmp_path))
    redis("ACL", "SETUSER", redisd.USER, "-xadd", "-xrange", "-del")
    two = Two(run, tmp_path, redis)
    for i in range(3):
        override(two.at[i % 2], user=f"u{i}", bypass=True)
    both_have(two, {"u0", "u1", "u2"})
    until(lambda: "changes_read_whole" in two.at[0].agent.stderr)


def long_changes(redis, limit):
    """So many that the server closes each connection on which all of them are asked for."""
    with redis.client() as c:
        for i in range(200):
            c("HSET", "rl:{changes}", f"override:user:long{i}", json.dumps({"reason": "x" * 2000}))
        c("INCRBY", "rl:{changes}:version", 2000)
        c("CONFIG", "SET", "client-output-buffer-limit", f"normal {limit} 0 0")


def test_what_is_too_long_is_asked_for_ever_more_seldom(two):
    long_changes(two.redis, 100000)
    began, before = time.monotonic(), calls(two.redis, "hgetall")
    until(lambda: calls(two.redis, "hgetall") - before >= 8, "both to have tried")
    time.sleep(2)
    seconds = time.monotonic() - began
    # Of two agents: 50 ms apart at first, then twice as long each time, up to 2 s.
    assert calls(two.redis, "hgetall") - before <= 2 * (7 + seconds), seconds
    two.redis("CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0")
    override(two.at[0], user="x", bypass=True)
    for at in two.at:
        served(at, "bypassed", user="x")


def changes(at):
    """As the status has them, and the metric."""
    up = at.samples()[1]["ratelimit_redis_changes_up", ()]
    told = at.ask("/api/v1/status").json["store"]["changes"]
    return told if (told["state"] == "well") == (up == 1) else None   # the one before the other


def test_who_alone_finds_no_room_says_so(run, tmp_path, redis):
    """Checks go on, by connections that were there before."""
    a = Admin(run, tmp_path, rules=RULES, top=redis.group())
    redisd.settled(a.agent)
    with redis.client() as c:
        def of_changes():
            lines = [dict(x.partition("=")[::2] for x in line.split())
                     for line in c("CLIENT", "LIST").decode().splitlines()]
            found = [x["id"] for x in lines if x["cmd"] == "get" and x["user"] == redisd.USER]
            return found and (found[0], len(lines))
        one, of = until(of_changes, "the connection")
        c("CONFIG", "SET", "maxclients", of - 1)
        c("CLIENT", "KILL", "ID", one)
        c("HSET", "rl:{changes}", "override:user:x", '{"bypass":true}')
        c("INCR", "rl:{changes}:version")
        line = until(lambda: [x for x in a.agent.lines() if "changes_not_shared" in x], "a word on it")[0]
        assert "max number of clients" in line and "maxclients" in line.split("hint=")[1], line
        bad = until(lambda: changes(a), "one word")
        assert bad["state"] == "not shared" and "max number of clients" in bad["reason"], bad
        assert "maxclients" in bad["hint"] and abs(bad["since"] - time.time()) < 60, bad
        told = call("status", "--socket", a.socket).stdout
        assert re.search("(?m)^changes +NOT SHARED with .* since .*max number of clients.*; raise", told), told
        assert a.agent.check(user="x")["reason"] == "ok"
        c("CONFIG", "SET", "maxclients", 1000)
    served(a, "bypassed", user="x")
    assert a.agent.stderr.count("changes_not_shared") == 1
    until(lambda: changes(a) == {"state": "well"}, "it to be over")
    assert "NOT SHARED" not in call("status", "--socket", a.socket).stdout


def test_what_is_too_long_is_said(run, tmp_path, redis):
    a = Admin(run, tmp_path, rules=RULES, top=redis.group())
    redisd.settled(a.agent)
    long_changes(redis, 100000)
    line = until(lambda: [x for x in a.agent.lines() if "changes_not_shared" in x], "a word on it")[0]
    assert "client-output-buffer-limit" in line, line


def test_who_was_away_says_no_more_than_that(two):
    """The others' word on it is enough, and nothing is said of it when Redis is back."""
    two.redis.kill()
    for at in two.at:
        until(lambda at=at: at.agent.check(user="x") and "store_degraded" in at.agent.stderr)
    for at in two.at:   # it is not said in the log a second time; who asks is told all the same
        bad = until(lambda at=at: (c := changes(at)) and c["state"] != "well" and c, "changes to be away as well")
        assert bad["reason"] == at.ask("/api/v1/status").json["store"]["reason"], bad
    time.sleep(2)
    two.redis.start()
    override(two.at[0], user="x", bypass=True)
    for at in two.at:
        served(at, "bypassed", user="x")
        until(lambda at=at: "store_recovered" in at.agent.stderr)
        assert "changes_not_shared" not in at.agent.stderr


def test_a_redis_that_lost_its_scripts(two):
    a, b = two.at
    override(a, user="x", bypass=True)
    both_have(two, {"x"})
    two.redis("SCRIPT", "FLUSH")
    override(a, user="y", bypass=True)
    both_have(two, {"x", "y"})


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


def test_bans_that_are_forgotten_leave_redis(run, tmp_path, redis):
    """Else it holds all there ever were, and each agent that starts reads them."""
    short = RULES.replace('"2/1m"; ban = "10m"', '"2/3s"; ban = "1s"; max = "1s"')
    assert short != RULES
    two = Two(run, tmp_path, redis, short)
    for i in range(20):
        until(lambda: two.at[i % 2].agent.check(ip=f"10.0.1.{i}", path="/login")["reason"] == "banned")
    until(lambda: two.redis("HLEN", "rl:{changes}") > 0)
    until(lambda: two.redis("HLEN", "rl:{changes}") == 0)


def test_without_the_acl_each_is_alone_and_says_so(run, tmp_path, ends):
    redis = ends(redisd.Server(tmp_path))
    redis("ACL", "SETUSER", redisd.USER, *("-" + c for c in redisd.CHANGES_COMMANDS))
    two = Two(run, tmp_path, redis)
    until(lambda: "NOPERM" in override(two.at[0], user="frank", bypass=True)["warnings"][0])
    served(two.at[0], "bypassed", user="frank")
    until(lambda: "changes_not_shared" in two.at[0].agent.stderr)
    assert "+hgetall" in two.at[0].agent.stderr
    bad = changes(two.at[0])
    assert "NOPERM" in bad["reason"] and "+hgetall" in bad["hint"], bad
    assert two.at[1].agent.check(user="frank")["reason"] == "ok"


# --- while Redis refuses, and soon after ---------------------------------------------------------

SOON = 5    # the contract's second, on a machine as busy as it may be; ten of them were too many


def override_is_soon_at(a, b, user):
    override(a, user=user, bypass=True)
    until(lambda: user in {x["user"] for x in b.ask("/api/v1/overrides").json["overrides"]},
          "the other one to have it", SOON)


@contextlib.contextmanager
def busy(redis):
    """Some script that does not end, until it is killed."""
    def run():
        with contextlib.suppress(redisd.ReplyError, OSError):
            redis("EVAL", "while true do end", "0")

    def is_busy():
        try:
            return redis("PING") != "PONG"
        except redisd.ReplyError as e:
            return "BUSY" in str(e)

    redis("CONFIG", "SET", "lua-time-limit", "50")
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(is_busy, "a busy Redis")
    try:
        yield
    finally:
        with redisd.Client(redis.address, redisd.ADMIN) as c:
            c("SCRIPT", "KILL")
        thread.join()


def test_soon_after_it_was_busy(two):
    a, b = two.at
    for at in (a, b):
        until(lambda at=at: at.agent.stderr.count('told_by="the server"') == 1, "a subscription")
    with busy(two.redis):
        for at in (a, b):
            until(lambda at=at: "changes_not_shared" in at.agent.stderr, "a warning")
            until(lambda at=at: "tiers_not_watched" in at.agent.stderr, "another warning")
    override_is_soon_at(a, b, "x")
    override_is_soon_at(b, a, "y")
    for at in (a, b):
        assert "SCRIPT KILL ends it" in at.agent.stderr and "ACL SETUSER" not in at.agent.stderr
        until(lambda at=at: at.agent.stderr.count('told_by="the server"') == 2, "a subscription", SOON)


def test_soon_after_the_acl_allows_it(run, tmp_path, ends):
    redis = ends(redisd.Server(tmp_path))
    two = Two(run, tmp_path, redis)
    a, b = two.at
    override_is_soon_at(a, b, "x")
    redis("ACL", "SETUSER", redisd.USER, "-get", "-evalsha", "-ping")
    for at in (a, b):
        until(lambda at=at: "changes_not_shared" in at.agent.stderr, "a warning")
    redis("ACL", "SETUSER", redisd.USER, "+get", "+evalsha", "+ping")
    override_is_soon_at(a, b, "y")
    for at in (a, b):
        until(lambda at=at: 'told_by="the server"' in at.agent.lines()[-1] or
              at.agent.stderr.rfind("tiers_not_watched") < at.agent.stderr.rfind("the server"),
              "a subscription", SOON)
        assert "PUBLISH alone" not in at.agent.stderr


# --- another release's ---------------------------------------------------------------------------

def test_what_is_of_another_format_is_left_alone(two):
    """A record says its format; who knows another one says so, and touches nothing."""
    a, b = two.at
    override(a, user="x", bypass=True)
    override(a, user="y", bypass=True)
    both_have(two, {"x", "y"})
    ban = "ban:" + 32 * "0"
    two.redis("HSET", "rl:{changes}", ban, '{"format":2,"forget_at":1}',
              "override:user:y", '{"format":2,"bypass":["from",9]}',
              "override:user:new", '{"format":2,"bypass":true}')
    raw_put(two.redis, "same", format=1, bypass=True)
    both_have(two, {"x", "same"})
    for at in (a, b):
        until(lambda at=at: any("change_not_understood" in x and "format" in x and "others=2" in x
                                for x in at.agent.lines()), "a warning")
    override(b, user="z", bypass=True)
    both_have(two, {"x", "same", "z"})
    kept = two.redis("HGETALL", "rl:{changes}")
    kept = dict(zip(kept[::2], kept[1::2]))
    assert json.loads(kept[b"override:user:y"]) == {"format": 2, "bypass": ["from", 9]}
    assert json.loads(kept[b"override:user:new"]) == {"format": 2, "bypass": True}
    assert kept[ban.encode()] == b'{"format":2,"forget_at":1}'


def test_a_number_of_another_format_means_all_of_it(two):
    a, b = two.at
    override(a, user="x", bypass=True)
    both_have(two, {"x"})
    number = int(two.redis("GET", "rl:{changes}:version"))
    two.redis("SET", "rl:{changes}:version", f"2:{number + 1}")
    two.redis("HSET", "rl:{changes}", "override:user:new", '{"bypass":true}')
    had = two.redis("HGETALL", "rl:{changes}")
    for at in (a, b):
        until(lambda at=at: "a format that this release does not know" in at.agent.stderr, "a warning")
    assert "format" in override(a, user="mine", bypass=True)["warnings"][0]
    served(a, "bypassed", user="mine")
    assert two.redis("HGETALL", "rl:{changes}") == had
    assert two.redis("GET", "rl:{changes}:version") == f"2:{number + 1}".encode()
    assert b.agent.check(user="mine")["reason"] == "ok"
    # Taken back to this format, it goes on.
    two.redis("SET", "rl:{changes}:version", number + 1)
    both_have(two, {"x", "new", "mine"})


# --- a cluster -----------------------------------------------------------------------------------

def test_the_slot_of_changes_moves(run, tmp_path, ends):
    cluster = ends(redisd.Cluster(tmp_path))

    class Both:
        at = []

    for i in range(2):
        folder = tmp_path / f"at{i}"
        folder.mkdir()
        Both.at.append(Admin(run, folder, rules=RULES, top=cluster.group()))
    a, b = Both.at
    override_is_soon_at(a, b, "u0")
    slot = cluster.slot("rl:{changes}")
    for i in range(1, 5):
        to = next(n for n in cluster.nodes if n is not cluster.owner(slot))
        cluster.migrate(slot, to)
        override_is_soon_at(a if i % 2 else b, b if i % 2 else a, f"u{i}")
    both_have(Both, {f"u{i}" for i in range(5)})
    for at in Both.at:
        assert "changes_not_shared" not in at.agent.stderr, at.agent.stderr
