"""The admin interface of a real agent: who may do what, what it tells, and that nothing that is sent
there disturbs the checks."""

import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

from agent import ROOT, check_file, free_port, until
from spop import Closed, Connection

TOKEN = "0123456789abcdef0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
RULES = '''
{ name = "api"; per = [ "user" ]; rate = { gold = "9/day"; default = "3/day"; }; },
{ name = "spy"; per = [ "user" ]; rate = "1/day"; mode = "shadow"; }
'''


class Unix(http.client.HTTPConnection):
    def __init__(self, path, timeout=20):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    @property
    def json(self):
        return json.loads(self.text)

    def __repr__(self):
        return f"{self.status}\n{self.headers}\n{self.text}"


class Admin:
    """An agent with its admin interface on a port and a socket."""

    def __init__(self, run, tmp_path, token=TOKEN, rules=RULES, top="", agent="", **kw):
        self.port = free_port()
        self.socket = str(tmp_path / "adm.sock")
        self.token = token
        self.agent = run(rules=rules, top=self.top(top), agent=agent, **kw)
        self.agent.await_admin(self.socket)

    def top(self, more="", listen=None, token=None):
        listen = listen or f'[ "127.0.0.1:{self.port}", "{self.socket}" ]'
        token = self.token if token is None else token
        return f'admin: {{ listen = {listen}; token = "{token}"; }}; {more}'

    def ask(self, path, method="GET", unix=False, headers=None, body=None):
        c = Unix(self.socket) if unix else http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=20)
        with contextlib.closing(c):
            c.request(method, path, body=body, headers=headers or {})
            return Answer(c.getresponse())

    def dial(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def samples(self, accept=None):
        from prometheus_client import parser
        from prometheus_client.openmetrics import parser as strict
        a = self.ask("/metrics", headers={"Accept": accept} if accept else {})
        assert a.status == 200, a
        if accept:
            assert a.headers["Content-Type"].startswith("application/openmetrics-text"), a
            families = list(strict.text_string_to_metric_families(a.text))
        else:
            assert a.headers["Content-Type"].startswith("text/plain; version=0.0.4"), a
            families = list(parser.text_string_to_metric_families(a.text))
        return families, {(s.name, tuple(sorted(s.labels.items()))): s.value
                          for f in families for s in f.samples}

    def value(self, name, **labels):
        return self.samples()[1].get((name, tuple(sorted(labels.items()))))


@pytest.fixture
def admin(run, tmp_path):
    return Admin(run, tmp_path)


# --- what there is -------------------------------------------------------------------------------

def test_the_index_and_its_table(admin):
    """The list of routes is the one in conf/admin.md, and each of them is there."""
    routes = admin.ask("/api/v1").json["routes"]
    text = (ROOT / "conf/admin.md").read_text()
    told = re.findall(r"^\| `(GET|POST|PUT|DELETE) (/\S*)` \|", text, re.M)
    assert sorted(told) == sorted((r["method"], r["path"]) for r in routes)
    for r in routes:
        if r["path"] == "/api/v1/events":  # does not end: test_admin_events.py
            assert admin.ask(r["path"], "HEAD").status == 200
        elif r["method"] == "GET":
            assert admin.ask(r["path"]).status == 200, r
            head = admin.ask(r["path"], "HEAD")
            assert head.status == 200 and head.text == "", head
        other = admin.ask(r["path"], "PATCH")
        assert other.status == 405 and r["method"] in other.headers["Allow"], other


def test_headers(admin):
    for path in ("/healthz", "/metrics", "/api/v1/status", "/nothing"):
        h = admin.ask(path).headers
        assert h["Content-Security-Policy"].startswith("default-src 'none'"), path
        assert h["X-Content-Type-Options"] == "nosniff" and h["Cache-Control"] == "no-store"
        assert not [k for k in h if k.lower().startswith("access-control-")]


def test_problems_are_told(admin):
    a = admin.ask("/api/v1/rules?rule=apo")
    assert a.status == 404 and a.headers["Content-Type"] == "application/problem+json", a
    assert a.json["status"] == 404 and 'did you mean "api"' in a.json["detail"]
    for path in ("/%00", "/api/v1/status%00/../x", "/api/v1/rules?rule=api%00junk", "/api/v1/top?rule=%00"):
        assert admin.ask(path).status == 400, path


def test_no_group_no_interface(run):
    a = run(rules=RULES)
    assert "admin_listening" not in a.stderr


# --- who may -------------------------------------------------------------------------------------

def test_rights_with_a_token(admin):
    for unix in (False, True):
        assert admin.ask("/api/v1/status", unix=unix).status == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"},
                        {"Authorization": "Bearer " + TOKEN[:-1]}):
            a = admin.ask("/api/v1/reload", "POST", unix=unix, headers=headers)
            assert a.status == 401 and "Bearer" in a.headers["WWW-Authenticate"], (headers, a)
        assert admin.ask("/api/v1/reload", "POST", unix=unix, headers=BEARER).status == 200
    assert admin.ask("/api/v1/status").json["generation"] == 3
    assert TOKEN not in admin.agent.stderr


def test_rights_without_one(run, tmp_path):
    admin = Admin(run, tmp_path, token="")
    a = admin.ask("/api/v1/reload", "POST")
    assert a.status == 403 and "admin.token" in a.json["detail"], a
    assert admin.ask("/api/v1/reload", "POST", headers=BEARER).status == 403
    assert admin.ask("/api/v1/reload", "POST", unix=True).status == 200
    who = f'who="uid={os.getuid()}"'
    until(lambda: f"audit what=reload change=configuration {who} result=ok" in admin.agent.stderr)


def test_from_outside_everything_needs_the_token(run):
    """All addresses: any other machine could ask, though here none does."""
    port = free_port()
    run(rules=RULES, top=f'admin: {{ listen = ":{port}"; token = "{TOKEN}"; }};')

    def status(path, **headers):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with contextlib.closing(c):
            c.request("GET", path, headers=headers)
            return c.getresponse().status

    def listens():
        with contextlib.suppress(ConnectionRefusedError):
            return status("/healthz") == 200
    until(listens, "the admin interface")
    assert status("/readyz") == 200
    for path in ("/metrics", "/api/v1/status", "/nothing"):
        assert status(path) == 401
    assert status("/metrics", **BEARER) == 200
    assert status("/nothing", **BEARER) == 404


def test_outside_without_a_token_is_refused(tmp_path):
    path = tmp_path / "a.cfg"
    for listen in (":9601", "0.0.0.0:9601", "[::]:9601", "192.0.2.1:9601", "host.example:9601"):
        path.write_text(f'\nadmin: {{ listen = "{listen}"; }};')
        r = check_file(path)
        assert r.status == 1 and "a.cfg:2:" in r.stderr and "admin.token" in r.stderr, r


def test_web_pages(admin):
    evil = {"Origin": "http://evil.example", **BEARER}
    assert admin.ask("/api/v1/reload", "POST", headers=evil).status == 403
    cross = {"Sec-Fetch-Site": "cross-site", **BEARER}
    assert admin.ask("/api/v1/reload", "POST", headers=cross).status == 403
    assert admin.ask("/api/v1/status", headers={"Host": "evil.example"}).status == 421
    assert admin.ask("/api/v1/status", unix=True, headers={"Host": "evil.example"}).status == 200
    form = {"Content-Type": "application/x-www-form-urlencoded", **BEARER}
    assert admin.ask("/api/v1/reload", "POST", headers=form, body="a=b").status == 415
    ours = {"Origin": f"http://127.0.0.1:{admin.port}", "Sec-Fetch-Site": "same-origin", **BEARER}
    for _ in range(3):
        assert admin.ask("/api/v1/reload", "POST", headers=ours).status == 200
    assert admin.ask("/api/v1/status", headers={"Host": "evil.example"}).status == 421


def test_the_socket(run, tmp_path):
    path = tmp_path / "x.sock"
    text = f'admin: {{ listen = "{path}"; socket_mode = "0600"; }};'
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))       # and nobody listens: what a process left behind
    a = run(rules=RULES, top=text)
    a.await_admin(str(path))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with contextlib.closing(Unix(str(path))) as c:
        c.request("GET", "/readyz")
        assert c.getresponse().status == 200
    assert a.stop() == 0
    assert not path.exists()
    path.write_text("no socket")
    b = run(rules=RULES, top=text, ready=False)
    assert b.wait() == 2 and "admin.listen" in b.stderr, b.stderr
    assert path.read_text() == "no socket"


def test_an_address_that_is_taken(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        a = run(rules=RULES, top=f'admin: {{ listen = "127.0.0.1:{port}"; }};', ready=False)
        assert a.wait() == 2
        assert "another process listens there" in a.stderr and "admin.listen" in a.stderr


# --- what it tells -------------------------------------------------------------------------------

def test_checks_by_rule_tier_decision_and_reason(admin):
    a = admin.agent
    for _ in range(5):
        a.check(user="u")
    for n in range(300):
        a.check(user=f"x{n}", tier=f"made-up-{n}")
    a.check(user="g", tier="gold")

    def checks(tier, decision, reason, rule="api"):
        return admin.value("ratelimit_checks_total", rule=rule, tier=tier, decision=decision,
                           reason=reason)
    assert checks("anonymous", "allow", "ok") == 3
    assert checks("anonymous", "deny", "limited") == 2
    assert checks("other", "allow", "ok") == 300
    assert checks("gold", "allow", "ok") == 1
    # With Redis a denial may be one that is remembered: nobody looks at other rules then.
    assert admin.value("ratelimit_rule_shadow_total", rule="spy") in (
        (4,) if a.store is None else (2, 3, 4))
    assert admin.value("ratelimit_checks_allowed_total") == 304
    assert admin.value("ratelimit_check_duration_seconds_count") == 306
    _, samples = admin.samples()
    assert len([1 for name, _ in samples if name == "ratelimit_checks_total"]) == 4

    rule = admin.ask("/api/v1/rules?rule=api").json
    assert rule["counts"]["allowed"] == 304 and rule["counts"]["denied"] == 2
    assert rule["counts"]["tiers"]["anonymous"] == {"allowed": 3, "denied": 2}
    assert rule["counts"]["reasons"] == {"ok": 304, "limited": 2}
    assert rule["settings"]["rate.gold"] == "9/day" and rule["mode"] == "enforce"
    status = admin.ask("/api/v1/status").json
    assert status["checks"]["denied"] == 2 and status["store"]["state"] == "well"

    def minute():
        return admin.ask("/api/v1/status").json["last_minute"]
    until(lambda: minute()["allowed"] == 304 and minute()["denied"] == 2)
    assert 0 < minute()["denial_rate"] < 0.01

    # The same through a reload, whatever the order of rules; a new rule begins anew.
    a.rewrite(RULES.replace('"spy"', '"spy2"') + ', { name = "last"; per = []; rate = "9/day"; }',
              top=admin.top('identity: { default_tier = "gold"; };'))
    assert admin.ask("/api/v1/reload", "POST", headers=BEARER).status == 200
    until(lambda: a.check(user="v")["tier"] == "gold")
    assert checks("anonymous", "deny", "limited") == 2
    assert checks("gold", "allow", "ok") >= 2


def test_metrics_are_what_parsers_want(admin):
    admin.agent.check(user="u")
    old, _ = admin.samples()
    new, _ = admin.samples("application/openmetrics-text; version=1.0.0")
    assert sorted(f.name for f in old) == sorted(f.name for f in new)
    assert len({f.name for f in old}) == len(old) > 40
    for f in new:
        assert f.documentation and f.type in ("counter", "gauge", "histogram"), f
        for s in f.samples:
            assert s.name.startswith(("ratelimit_", "process_")), s
    text = (ROOT / "conf/admin.md").read_text()
    rows = {f.name + "_total" * (f.type == "counter"): f"{f.type} | {f.documentation}" for f in new}
    table = (ROOT / "agent/store/redis_settings.h").read_text().split("REDIS_COUNTERS(X)")[1]
    rows.update((f"ratelimit_redis_{name}" + "_total" * (kind == "COUNTER"),
                 f"{kind.lower()} | {what}") for name, kind, what in
                re.findall(r'\tX\((\w+), (\w+),(?:\s|\\)*"(.*?)"\)', table))
    untold = [f"| `{n}` | {what} |" for n, what in rows.items() if f"| `{n}` |" not in text]
    assert not untold, "these rows are missing in conf/admin.md:\n" + "\n".join(untold)


def test_errors_by_code(admin):
    with contextlib.closing(admin.agent.connect()) as c:
        c.sock.sendall(b"\x00\x00\x00\x07\x63\x00\x00\x00\x01\x00\x00")
        until(lambda: admin.value("ratelimit_frames_bad_total") == 1)
    _, samples = admin.samples()
    by_agent = [dict(labels) for (name, labels), n in samples.items()
                if name == "ratelimit_disconnects_total" and n and ("by", "agent") in labels]
    assert len(by_agent) == 1 and by_agent[0]["code"] not in ("0", "1", "2"), by_agent


def test_the_configuration_without_its_secrets(run, tmp_path):
    secret = "hunter2-hunter2-hunter2"
    admin = Admin(run, tmp_path, top=f'redis: {{ password = "{secret}"; hash_secret = "{secret}"; }};')
    a = admin.ask("/api/v1/config")
    settings = {s["name"]: s for s in a.json["settings"]}
    assert settings["redis.password"]["value"] == "(set)"
    assert settings["rules.api.rate.gold"]["value"] == "9/day"
    assert settings["rules.api.rate.gold"]["from"].endswith(".cfg:5")
    lines = admin.ask("/api/v1/config", headers={"Accept": "text/plain"})
    assert "rules.api.rate.gold = 9/day\n" in lines.text
    for text in (a.text, lines.text, admin.agent.stderr):
        assert secret not in text and TOKEN not in text


def test_keys_in_patterns_are_not_shown(run, tmp_path):
    """Who is in the allow list by key has a key that opens everything."""
    key = "hunter2-hunter2"
    lists = f'allow = ( {{ key = "{key}"; }} ); block = ( {{ key = [ "x", "{key}-*" ]; }} );'
    rules = f'{{ name = "k"; match = {{ key = [ "{key}!", "*" ]; }}; per = [ "key" ]; rate = "9/day"; }}'
    admin = Admin(run, tmp_path, rules=rules, top=lists)
    digest = "sha256:" + hashlib.sha256(key.encode()).hexdigest()[:12]
    settings = {s["name"]: s["value"] for s in admin.ask("/api/v1/config").json["settings"]}
    assert settings["allow.1.key"] == digest
    assert settings["rules.k.match.key"].startswith("sha256:") and settings["rules.k.match.key"].endswith(", *")
    for path in ("/api/v1/config", "/api/v1/rules", "/api/v1/status", "/metrics"):
        assert key not in admin.ask(path).text, path
    explained = admin.ask("/api/v1/explain", "POST", body=json.dumps({"fields": {"key": key + "-"}}),
                          headers={"Content-Type": "application/json"})
    assert explained.status == 200 and key not in explained.text, explained.text
    assert reload(admin).status == 200
    assert admin.agent.stop() == 0  # then all of its lines are there
    assert "each key" in admin.agent.stderr and key not in admin.agent.stderr


# --- reload --------------------------------------------------------------------------------------

def reload(admin, headers=None):
    return admin.ask("/api/v1/reload", "POST", headers=BEARER if headers is None else headers)


def test_reload(admin):
    a = admin.agent
    a.rewrite(RULES.replace("3/day", "4/day"), top=admin.top())
    r = reload(admin)
    assert r.status == 200 and r.json["generation"] == 2, r
    assert "rate.default 3/day -> 4/day" in r.json["changed"]
    until(lambda: a.check(user="u", cost=0)["limit"] == 4)
    assert admin.value("ratelimit_reloads_total") == 1
    assert admin.value("ratelimit_reloads_refused_total") == 0


def test_a_broken_file_is_told_line_by_line(admin):
    a = admin.agent
    a.write("agent: {\n threads = -1;\n};\nrules = (\n{ name = \"x\"; rate = \"5/fortnight\"; }\n);\n")
    r = reload(admin)
    assert r.status == 422 and r.headers["Content-Type"] == "application/problem+json", r
    errors = r.json["errors"]
    assert {e["line"] for e in errors} == {2, 5}, errors
    assert all(e["file"] == str(a.path) and e["message"] for e in errors)
    assert r.json["generation"] == 1 == admin.ask("/api/v1/status").json["generation"]
    assert a.check(user="u")["limit"] == 3
    assert admin.value("ratelimit_reloads_refused_total") == 1


def test_what_a_reload_may_not_change(admin):
    a = admin.agent
    for top in (admin.top(listen='"127.0.0.1:9601"'), ""):
        a.rewrite(RULES, top=top)
        r = reload(admin)
        assert r.status == 422, r
        assert any("admin.listen" in e["message"] for e in r.json["errors"]), r
    a.rewrite(RULES, top=admin.top(token="another-token-of-some-length"))
    r = reload(admin)
    assert r.status == 200 and r.json["changed"] == "admin.token changed", r
    assert reload(admin).status == 401
    assert reload(admin, {"Authorization": "Bearer another-token-of-some-length"}).status == 200
    assert "another-token" not in a.stderr


# --- the end -------------------------------------------------------------------------------------

def test_drain(run, tmp_path):
    admin = Admin(run, tmp_path, agent='drain = "2s";')
    assert admin.ask("/readyz").status == 200
    held = admin.dial()
    admin.agent.send_signal(signal.SIGTERM)
    until(lambda: "draining" in admin.agent.stderr)
    a = admin.ask("/readyz")
    assert a.status == 503 and a.json["status"] == "draining", a
    assert admin.ask("/healthz").status == 200
    assert admin.value("ratelimit_draining") == 1
    assert reload(admin).status == 422      # said why, and done nothing
    admin.agent.send_signal(signal.SIGTERM)
    assert admin.agent.wait() == 0
    held.close()


# --- what must not harm --------------------------------------------------------------------------

@contextlib.contextmanager
def checks_go_on(admin):
    """Checks all the while, each of them answered."""
    stop, wrong, done = threading.Event(), [], [0]

    def go():
        try:
            with contextlib.closing(Connection(admin.agent.address)) as c:
                while not stop.is_set():
                    assert "deny" in c.check(user=f"u{done[0]}")
                    done[0] += 1
        except Exception as e:      # pylint: disable=broad-except
            wrong.append(e)
    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        before = done[0]
        until(lambda: done[0] > before or wrong)
        stop.set()
        thread.join()
        assert not wrong, wrong


def talk(s, data):
    """Send, and read until it is closed or quiet; what came."""
    got = b""
    try:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        while True:
            part = s.recv(65536)
            if not part:
                break
            got += part
    except OSError:
        pass
    return got


def test_too_much(admin):
    with checks_go_on(admin):
        big = b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200000 + b"\r\n\r\n"
        with admin.dial() as s:
            talk(s, big)
        many = b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\n" + b"".join(
            b"X%d: x\r\n" % n for n in range(20000)) + b"\r\n"
        with admin.dial() as s:
            talk(s, many)
        headers = {"Content-Type": "application/json", **BEARER}
        for n in (65537, 10 ** 9, 2 ** 64, 10 ** 30):
            with admin.dial() as s:
                got = talk(s, b"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\n"
                           + "".join(f"{k}: {v}\r\n" for k, v in headers.items()).encode()
                           + b"Content-Length: %d\r\n\r\n" % n
                           + (b" " * n if n < 10 ** 6 else b""))
                assert got.startswith(b"HTTP/1.1 4"), (n, got)
        a = admin.ask("/api/v1/reload", "POST", headers=headers, body=b"{}" + b" " * 65534)
        assert a.status == 200, a
    assert admin.ask("/api/v1/status").json["generation"] == 2


def test_many_and_slow_clients(admin):
    """A hundred that are there and say nothing, or a byte now and then: others are served."""
    idle = []
    with checks_go_on(admin):
        for n in range(100):
            idle.append(admin.dial())
            if n % 2:
                idle[-1].sendall(b"GET /metr")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert admin.ask("/readyz").status == 200
            for s in random.sample(idle, 10):
                with contextlib.suppress(OSError):
                    s.sendall(b"i")
        assert admin.ask("/api/v1/status").json["connections"]["admin"] <= 64
    for s in idle:
        s.close()
    until(lambda: admin.ask("/api/v1/status").json["connections"]["admin"] == 1)


def test_who_never_finishes_is_cut(admin):
    """A byte a second is no way to stay: headers have 15 seconds in all."""
    with admin.dial() as s, admin.dial() as body:
        s.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")
        body.sendall(b"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
                     b"Content-Type: application/json\r\n"
                     + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode())

        def cut(c, data):
            try:
                c.sendall(data)
                c.settimeout(1)
                return c.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True
        until(lambda: cut(s, b"X: y\r\n"), "the end of slow headers", 40)
        until(lambda: cut(body, b" "), "the end of a slow body", 40)
    assert admin.ask("/api/v1/status").json["generation"] == 1


def test_no_descriptors_left(run, tmp_path):
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
    admin = Admin(run, tmp_path, preexec=few)
    taken = []
    with contextlib.suppress(OSError):
        for _ in range(120):
            taken.append(admin.dial())
            taken.append(socket.socket(socket.AF_UNIX))
            taken[-1].connect(admin.agent.listen)
    until(lambda: "no_descriptors" in admin.agent.stderr)
    for s in taken:
        s.close()
    until(lambda: admin.ask("/readyz").status == 200)

    def answers():
        """The workers let go of theirs one after the other: until then a new one may be refused."""
        admin.agent.forget()
        with contextlib.suppress(OSError, Closed):
            return admin.agent.check(user="u")["reason"] == "ok"
    until(answers, "a check that is answered")


WORDS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"CONNECT", b"\x00",
         b" ", b"\r\n", b"\r\n\r\n", b"\n", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b"/", b"/metrics",
         b"/api/v1/status", b"/api/v1/reload", b"/api/v1/rules?rule=", b"?", b"&", b"%00", b"%",
         b"%ff", b"..", b"Host: ", b"localhost", b"Content-Length: ", b"-1",
         b"18446744073709551616", b"5", b"Transfer-Encoding: chunked", b"0\r\n\r\n", b"ffffffff",
         b"Authorization: Bearer ", b"Accept: ", b"application/openmetrics-text;q=", b"Origin: null",
         b"Expect: 100-continue", b"Upgrade: h2c", b"Connection: keep-alive", b"Connection: close",
         b"\xff\xfe", b"Content-Type: application/json", b"{\"a\":", b"[" * 500, b"x" * 5000]


def random_request(rnd):
    kind = rnd.random()
    if kind < 0.3:
        return b"".join(rnd.choice(WORDS) for _ in range(rnd.randrange(1, 30)))
    if kind < 0.4:
        return rnd.randbytes(rnd.randrange(1, 2000))
    lines = [rnd.choice(WORDS[:8]) + b" " + rnd.choice(WORDS[16:24]) + b" HTTP/1.1", b"Host: localhost"]
    lines += [rnd.choice(WORDS) + rnd.choice(WORDS) for _ in range(rnd.randrange(0, 6))]
    whole = b"\r\n".join(lines) + b"\r\n\r\n" + rnd.randbytes(rnd.choice([0, 0, 5, 300]))
    if kind < 0.7:
        return whole
    at = rnd.randrange(len(whole))
    return whole[:at] + rnd.randbytes(rnd.randrange(0, 4)) + whole[at + rnd.randrange(0, 4):]


def test_ten_thousand_random_requests(run, tmp_path):
    # What a sanitizer keeps of freed memory is no leak.
    admin = Admin(run, tmp_path, env={"ASAN_OPTIONS": "exitcode=99:quarantine_size_mb=4"})
    seed = int(os.environ.get("RATELIMIT_SEED") or random.randrange(2 ** 32))
    print("RATELIMIT_SEED =", seed)     # shown where it fails
    rnd = random.Random(seed)
    sent = 0
    before = admin.value("process_resident_memory_bytes")
    with checks_go_on(admin):
        while sent < 10000:
            batch = []
            for _ in range(20):
                s = socket.socket(socket.AF_UNIX) if rnd.random() < 0.5 else None
                if s:
                    s.settimeout(20)
                    s.connect(admin.socket)
                else:
                    s = admin.dial()
                batch.append(s)
                data = b"".join(random_request(rnd) for _ in range(rnd.choice([1, 1, 5])))
                sent += 1
                with contextlib.suppress(OSError):
                    s.sendall(data)
                    if rnd.random() < 0.7:
                        s.shutdown(socket.SHUT_WR)
            for s in batch:
                if rnd.random() < 0.5:
                    s.settimeout(0.01)
                    with contextlib.suppress(OSError):
                        s.recv(65536)
                s.close()
    status = admin.ask("/api/v1/status").json
    assert status["generation"] == 1
    until(lambda: admin.ask("/api/v1/status").json["connections"]["admin"] == 1)
    grown = admin.value("process_resident_memory_bytes") - before
    assert grown < 64 << 20, grown


# --- what the documents print ----------------------------------------------------------------------

@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_commands_of_the_readme(admin, tmp_path):
    """With the token that its step before has set."""
    text = (ROOT / "README.md").read_text()
    commands = re.search(r"(?m)^    export RATELIMIT_ADMIN_TOKEN=.*\n(?:    .*\n)+", text)[0]
    default = tmp_path / "default"
    default.write_text(f"OTHER=1\nRATELIMIT_ADMIN_TOKEN={TOKEN}\n")
    for old, new in (("/etc/default/spoa-ratelimit", default), ("curl ", "curl -sSf "),
                     ("127.0.0.1:9601", f"127.0.0.1:{admin.port}"),
                     ("/run/spoa-ratelimit/admin.sock", admin.socket)):
        assert old in commands
        commands = commands.replace(old, str(new))
    done = subprocess.run(["sh", "-euc", commands], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done
    assert '"changed": "nothing"' in done.stdout and "ratelimit_build_info" in done.stdout


@pytest.mark.parametrize("form", ["text", "json"])
def test_who_changed_what_is_found_as_the_guide_says(run, tmp_path, form):
    admin = Admin(run, tmp_path, top=f'log: {{ format = "{form}"; }};')
    assert admin.ask("/api/v1/reload", "POST", headers=BEARER).status == 200
    until(lambda: "audit" in admin.agent.stderr, "the line")
    guide = (ROOT / "conf/operations.md").read_text()
    row = re.search(r"(?m)^\| who changed what\? \| `journalctl -u spoa-ratelimit -g ('.*?')`.* `(grep .*?)`",
                    guide)
    assert row[2] == f"grep {row[1]}"
    done = subprocess.run(["sh", "-c", row[2]], input=admin.agent.stderr, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0 and done.stdout.count("\n") == 1, done
