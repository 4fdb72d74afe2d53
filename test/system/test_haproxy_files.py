"""haproxy/ and the examples: accepted by HAProxy without a warning, naming nothing that the agent
does not have, and doing what their comments say."""

import contextlib
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import agent as agents
import stack

ROOT = stack.ROOT
EXAMPLES = sorted(p for p in (ROOT / "conf/examples").iterdir() if p.is_dir())
PAIRS = {ROOT / "haproxy": ROOT / "conf/ratelimit.cfg"}
PAIRS.update({p: p / "ratelimit.cfg" for p in EXAMPLES})

# What a file must be told by the environment.
SECRETS = {"REDIS_PASSWORD": "x", "RATELIMIT_HASH_SECRET": "x"}

folders = pytest.mark.parametrize("folder", PAIRS, ids=lambda p: p.name)
new_client = stack.Clients()


def without_comments(text):
    return re.sub(r"(?m)(^|\s)#.*", "", text)


# --- files -------------------------------------------------------------------------------------

@folders
def test_haproxy_accepts_it_without_a_warning(folder):
    done = subprocess.run([stack.HAPROXY, "-c", "-C", folder, "-f", "haproxy.cfg"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    # From 3.1 on a backend in mode tcp is taken as spop, in silence.
    assert "WARNING" not in said and "Warnings" not in said, said


@folders
@pytest.mark.skipif(stack.haproxy_version() < (2, 4), reason="knows no default-path")
@pytest.mark.parametrize("path", ["config", "origin"])
def test_it_works_from_elsewhere_with_default_path(tmp_path, folder, path):
    """As haproxy/README.md says it, a second filter by its absolute name."""
    mine = tmp_path / folder.name
    shutil.copytree(folder, mine)
    cfg = mine / "haproxy.cfg"
    head, found, rest = stack.replaced(
        cfg.read_text(), "\nglobal\n", "\nglobal\n\tdefault-path config\n" if path == "config" else
        f"\nglobal\n\tdefault-path origin {mine}\n", cfg).partition(" config spoe-ratelimit.conf")
    cfg.write_text(head + found + rest.replace(found, f" config {mine}/spoe-ratelimit.conf"))
    done = subprocess.run([stack.HAPROXY, "-c", "-f", cfg], stdin=subprocess.DEVNULL, cwd="/",
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("cfg", PAIRS.values(), ids=lambda p: p.parent.name)
def test_the_agent_accepts_it_without_a_warning(cfg):
    said = agents.check_file(cfg, env=SECRETS)
    assert said.status == 0, said
    assert "warning" not in said.stderr, said


def readme_block(first):
    """The lines of the README's indented example that begins with `first`."""
    text = (ROOT / "README.md").read_text()
    block = text[text.index(f"\n        {first}\n") + 1:]
    lines = []
    for line in block.splitlines():
        if line and not line.startswith("        "):
            break
        lines.append(line[8:])
    return "\n".join(lines) + "\n"


def test_haproxy_accepts_what_the_readme_shows(tmp_path):
    spoe = ROOT / "haproxy/spoe-ratelimit.conf"
    shown = readme_block("frontend web").replace("/etc/haproxy/spoe-ratelimit.conf", str(spoe))
    assert str(spoe) in shown
    (tmp_path / "haproxy.cfg").write_text(
        "defaults\n mode http\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n"
        + shown.replace("frontend web\n", "frontend web\n    bind 127.0.0.1:1\n    default_backend app\n")
        + "\nbackend app\n    http-request return status 200\n")
    done = subprocess.run([stack.HAPROXY, "-c", "-f", tmp_path / "haproxy.cfg"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr, done.stderr


def test_what_the_readme_shows_limits_and_says_how_long(tmp_path):
    """Retry-After only where waiting helps: 0 would say "at once" to who can never pass, or is blocked."""
    for name in ("agent", "proxy", "run"):
        (tmp_path / name).mkdir()
    cfg = tmp_path / "agent/ratelimit.cfg"
    cfg.write_text('agent: { listen = [ "127.0.0.1:9600" ]; };\nblock = ( { path = "/blocked"; } );\n'
                   + readme_block("rules = (").replace("\n);", """,
                     { name = "none"; match = { path = "/none"; }; per = [ "ip" ]; rate = "0/minute"; } );"""))
    shutil.copy(ROOT / "haproxy/spoe-ratelimit.conf", tmp_path / "proxy")
    shown = readme_block("frontend web").replace("/etc/haproxy/", "")
    (tmp_path / "proxy/haproxy.cfg").write_text(
        "global\n\tnbthread 1\ndefaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n"
        + shown.replace("frontend web\n", "frontend web\n    bind 127.0.0.1:8080\n    default_backend app\n")
        + "\nbackend app\n    http-request return status 200\n")
    with stack.running(tmp_path / "run", cfg, tmp_path / "proxy") as s:
        agents.until(lambda: s.agent_is("UP"), "HAProxy to see the agent", stack.BOUND)
        assert s.ask("/api/x", client=new_client()).headers["Retry-After"] is None
        assert 1 <= int(stack.until_denied(s, 5, "/api/x").headers["Retry-After"]) <= 12
        for path in ("/none", "/blocked"):
            refused = s.ask(path)
            assert refused.status == 429 and refused.headers["Retry-After"] is None, (path, refused)


def test_the_agent_accepts_what_the_readme_shows(tmp_path):
    (tmp_path / "ratelimit.cfg").write_text(readme_block("rules = ("))
    said = agents.check_file(tmp_path / "ratelimit.cfg")
    assert said.status == 0, said


def test_the_agent_accepts_what_the_readme_shows_of_redis(tmp_path):
    """As it stands there, with nothing but a rule, and no word of warning."""
    text = (ROOT / "README.md").read_text()
    shown = re.search(r'(?m)^    store: \{ backend = "redis"; \};\n(?:    .*\n)*', text)[0]
    (tmp_path / "ratelimit.cfg").write_text(shown + readme_block("rules = ("))
    said = agents.check_file(tmp_path / "ratelimit.cfg", env=SECRETS)
    assert said.status == 0 and not said.stderr, said


@folders
def test_every_variable_is_one_that_the_agent_sends(folder):
    """HAProxy ignores an unknown variable in silence: a typo would let everything through."""
    known = stack.answer_vars()
    text = without_comments((folder / "haproxy.cfg").read_text())
    used = set(re.findall(r"txn\.rl\.([\w.-]+)", text))
    assert {"deny", "retry_after", "err"} <= used
    assert used <= set(known) | {"err", "ptime"}

    listed = re.search(r"variables\s*=\s*\[(.*?)\]", PAIRS[folder].read_text(), re.S)
    sent = (set(re.findall(r'"(\w+)"', listed.group(1))) if listed
            else {name for name, default in known.items() if default})
    assert sent <= set(known)
    assert used - {"err", "ptime"} <= sent, "used, but not in agent.variables"


@folders
def test_every_value_that_is_sent_is_set_somewhere(folder):
    """An arg whose variable nobody sets is always absent: a rule that counts by it never applies."""
    spoe = without_comments((folder / "spoe-ratelimit.conf").read_text())
    sent = set(re.findall(r"=var\((txn\.\w+)\)", spoe))
    done = set(re.findall(r"set-var\((txn\.\w+)\)", (folder / "haproxy.cfg").read_text()))
    assert sent and sent <= done


@folders
def test_a_key_that_a_map_has_found_has_no_nul(folder):
    lines = (folder / "haproxy.cfg").read_text().splitlines()
    found = max(n for n, x in enumerate(lines) if "map_str(keys.map)" in x)
    assert lines[found + 1] == ("\thttp-request deny deny_status 400 "
                                "if { var(txn.user) -m found } { var(txn.key),hex -m sub 00 }")


@folders
def test_what_a_client_keeps_from_being_checked_is_refused_by_each_frontend(folder):
    """Too long for HAProxy or the agent, or he left."""
    asking = [x for x in re.split(r"(?m)^(?=frontend )", (folder / "haproxy.cfg").read_text())
              if x.startswith("frontend ") and "send-spoe-group" in x]
    assert asking
    for frontend in asking:
        assert "\thttp-request deny deny_status 400 if { var(txn.rl.err) -m int 3 4 5 259 }\n" in frontend, frontend


@folders
def test_the_spoe_files_differ_in_nothing_but_what_they_send(folder):
    def settings(path):
        lines = without_comments(path.read_text()).splitlines()
        return [x.strip() for x in lines if re.match(r"\t(no |option|timeout|use-backend|log)", x)]
    wanted = settings(ROOT / "haproxy/spoe-ratelimit.conf")
    assert settings(folder / "spoe-ratelimit.conf") == wanted
    assert {"option var-prefix rl", "option set-on-error err", "option set-process-time ptime",
            "option continue-on-error", "use-backend ratelimit_agents"} <= set(wanted)


def test_who_counts_along_is_asked_in_the_same_way():
    def lines(name):
        text = without_comments((ROOT / "conf/examples/two-nodes" / name).read_text())
        return [x.strip() for x in text.splitlines() if x.strip()]
    other = {"[moving]": "[ratelimit]", "spoe-agent moving": "spoe-agent ratelimit",
             "option var-prefix new": "option var-prefix rl",
             "use-backend moving_agents": "use-backend ratelimit_agents"}
    wanted = [x for x in lines("spoe-ratelimit.conf") if "set-process-time" not in x]
    assert [other.get(x, x) for x in lines("spoe-moving.conf")] == wanted


@folders
def test_nothing_listens_beyond_loopback(folder):
    text = without_comments((folder / "haproxy.cfg").read_text())
    for name, value in re.findall(r"(?m)^\s*presetenv (\S+) (\S+)", text):
        text = text.replace(f'"${{{name}}}', value)
    for bind in re.findall(r"(?m)^\s*(?:bind|server \S+) (\S+)", text):
        assert bind.startswith("127."), bind


@folders
def test_the_agent_is_checked_by_its_own_protocol(folder):
    text = without_comments((folder / "haproxy.cfg").read_text())
    backend = text[text.index("backend ratelimit_agents"):]
    assert "option spop-check" in backend and "mode tcp" in backend
    servers = re.findall(r"(?m)^\s*server .*", backend)
    assert len([s for s in servers if "backup" not in s.split()]) == 1, "two would double every limit"
    assert all(" check " in s and "maxconn" not in s for s in servers)


@folders
def test_only_who_has_a_second_agent_drains(folder):
    """Else HAProxy asks nobody meanwhile."""
    backend = (folder / "haproxy.cfg").read_text().split("backend ratelimit_agents")[1]
    second = re.search(r"(?m)^\s*server .* backup", backend)
    assert ('"0s"' in re.findall(r'drain\s*=\s*(".*?");', PAIRS[folder].read_text())) == (not second)


@folders
def test_no_connection_to_an_agent_carries_more_than_fits_into_a_buffer(folder):
    """HAProxy 3.1 and newer never read one again that got tune.bufsize at once; `max-reuse` bounds it."""
    for path in [*sorted(folder.glob("*.cfg")), ROOT / "README.md"]:
        servers = re.findall(r"(?m)^\s*#?server .* check .*", path.read_text())
        for line in [x for x in servers if "app1" not in x]:
            assert " max-reuse 24 " in line, f"{path}: {line}"


def test_no_feature_newer_than_haproxy_2_2():
    """Words that 2.2 does not know, of those that would suggest themselves here."""
    newer = ["default-path", "http_auth_bearer", "normalize-uri", "http-request set-var-fmt",
             "set-bc-", "sub(", "json_query", "jwt_", "guid ", "mode spop", "errorfiles",
             "http-request wait", "baseq", "pathq", " -m len", "do-log", ".if"]
    for folder in PAIRS:
        for name in ("haproxy.cfg", "spoe-ratelimit.conf"):
            text = without_comments((folder / name).read_text())
            assert not [w for w in newer if w in text], f"{folder.name}/{name}"


# --- behaviour of haproxy/haproxy.cfg with conf/ratelimit.cfg ------------------------------------

PROXY = "127.9.9.9"
OUTER = "127.9.8.0/24"


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    with stack.running(tmp_path_factory.mktemp("w"), ROOT / "conf/ratelimit.cfg", ROOT / "haproxy",
                       edit=stack.trust(PROXY, OUTER)) as s:
        yield s


def test_an_admitted_request_reaches_the_application_and_tells_what_is_left(web):
    got = web.ask("/api/x", client=new_client())
    assert (got.status, got.body) == (200, b"the application\n")
    h = got.headers
    assert h["RateLimit-Policy"] == '"api";q=5;w=60'
    assert re.fullmatch(r'"api";r=4;t=\d+', h["RateLimit"])
    assert (h["X-RateLimit-Limit"], h["X-RateLimit-Remaining"]) == ("5", "4")
    assert (h["X-RateLimit-Scope"], h["X-RateLimit-Algorithm"]) == ("ip", "token-bucket")
    # Unix time of when it is full again: 12 s from now.
    assert 0 < int(h["X-RateLimit-Reset"]) - time.time() < stack.BOUND
    assert h["Retry-After"] is None and h["X-RateLimit-Warning"] is None


def test_a_denied_request_gets_429_and_learns_when_but_not_why(web):
    got = stack.until_denied(web, 5, "/api/x", client=new_client())
    assert got.status == 429
    assert got.headers["Content-Type"] == "application/problem+json"
    problem = json.loads(got.body)
    assert problem["status"] == 429 and problem["title"] and problem["type"]
    assert not re.search(r"\d", problem["detail"]) and "api" not in got.body.decode()
    assert 1 <= int(got.headers["Retry-After"]) <= 12
    assert got.headers["X-RateLimit-Remaining"] == "0" and not got.headers["X-RateLimit-Warning"]
    assert got.headers["RateLimit"].startswith('"api";r=0;t=')


def test_each_tier_has_its_own_limit(web):
    for key, limit in (("key-of-fred", 10), ("key-of-petra", 100)):
        got = stack.until_denied(web, limit, "/api/x", headers={"X-API-Key": key})
        assert got.headers["X-RateLimit-Limit"] == str(limit)
        assert got.headers["X-RateLimit-Scope"] == "key"
    got = web.ask("/api/x", headers={"Authorization": "Bearer key-of-emil"})
    # Two limits apply; the one with the smaller share left is reported.
    assert got.headers["RateLimit-Policy"].count("q=") == 2


def test_a_tier_that_haproxy_does_not_send_is_found_by_the_agent(web):
    got = web.ask("/api/x", headers={"X-API-Key": "key-of-tina"})
    assert got.headers["X-RateLimit-Limit"] == "100"


def test_an_empty_key_is_none(web):
    """The other field is looked at then."""
    got = web.ask("/api/x", headers={"X-API-Key": "", "Authorization": "Bearer key-of-tina"})
    assert got.headers["X-RateLimit-Scope"] == "key", got
    got = web.ask("/api/x", headers={"X-API-Key": "", "Authorization": "Bearer "},
                  client=new_client())
    assert got.headers["X-RateLimit-Scope"] == "ip", got


def test_an_invented_key_gives_no_counter_of_its_own(web):
    client = new_client()
    got = stack.until_denied(
        web, 5, "/api/x", client=client,
        headers=lambda n: {"X-API-Key": f"guess{n}", "Authorization": f"Bearer guess{n}"})
    assert got.headers["X-RateLimit-Scope"] == "ip"


@pytest.mark.parametrize("field, value", [("X-API-Key", "key-of-fred\0{n}"),
                                          ("X-API-Key", "key-of-fred\0"),
                                          ("Authorization", "Bearer key-of-fred\0{n}")])
def test_a_nul_behind_a_key_gives_no_counter_of_its_own(web, field, value):
    """keys.map would find the key before it."""
    asked = [web.ask("/api/x", headers={field: value.format(n=n)}, client=new_client()).status
             for n in range(12)]
    assert asked == [400] * 12


@pytest.mark.parametrize("more", ["X-API-Key: other", "X-API-Key:", "X-API-Key: key-of-fred",
                                  "Authorization: Basic eDp4\r\nAuthorization: Bearer other", "Host: b"])
def test_a_field_that_is_there_twice_is_refused(web, more):
    """HAProxy reads the last, the service perhaps the first: a key would be counted by address."""
    assert raw(web, f"X-API-Key: key-of-fred\r\n{more}\r\n") == 400


def test_a_host_with_a_comma_is_refused(web):
    """`req.hdr` would have the last part, an ACL on it any of them."""
    assert web.ask("/api/x", headers={"Host": "a,b"}, client=new_client()).status == 400


@pytest.mark.parametrize("headers", [
    {"X-API-Key": "other", "Authorization": "Bearer key-of-tina"},
    {"Authorization": "bearer\tkey-of-tina"},
    {"Authorization": "Bearer  key-of-tina"}])
def test_the_key_is_found_that_the_service_may_find(web, headers):
    got = web.ask("/api/x", headers=headers, client=new_client())
    assert got.headers["X-RateLimit-Scope"] == "key", got


def raw(s, fields, path="/api/x"):
    """The status of a request with such lines; http.client would join them."""
    with s.connect(new_client()) as c:
        c.connect()
        c.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode())
        return int(c.sock.makefile("rb").readline().split()[1])


def test_a_spoofed_forwarded_address_is_not_believed(web):
    client = new_client()
    stack.until_denied(web, 5, "/api/x", client=client,
                       headers=lambda n: {"X-Forwarded-For": f"10.1.1.{n}"})


def test_a_trusted_proxy_is_believed_for_its_last_entry_only(web):
    def via(n, *entries):
        return {"X-Forwarded-For": ", ".join([f"10.66.{n}.1", *entries])}
    # What the client itself wrote, to the left, changes nothing.
    stack.until_denied(web, 5, "/api/x", client=PROXY, headers=lambda n: via(n, "10.2.2.2"))
    # Another client behind the same proxy is another client.
    assert web.ask("/api/x", client=PROXY, headers=via(0, "10.2.2.3")).status == 200
    # Two proxies: one entry further, where the last one is a proxy of ours as well.
    stack.until_denied(web, 5, "/api/x", client=PROXY,
                       headers=lambda n: via(n, "10.2.2.4", "127.9.8.1"))
    assert web.ask("/api/x", client=PROXY, headers=via(0, "10.2.2.5", "127.9.8.1")).status == 200
    # A last entry that is no address does not uncover the one before it.
    stack.until_denied(web, 5, "/api/x", client=PROXY, headers=lambda n: via(n, "unknown"))


def test_clients_that_share_a_proxy_connection_do_not_share_a_counter(web):
    with web.connect("127.9.8.7") as c:
        for n in range(20):
            got = stack.send(c, "/api/x", headers={"X-Forwarded-For": f"10.3.3.{n}"})
            assert (got.status, got.headers["X-RateLimit-Remaining"]) == (200, "4")
        # One without the field is the proxy's own, not its last client's (2.2 to 2.4 would keep that).
        got = stack.send(c, "/api/x")
        assert (got.status, got.headers["X-RateLimit-Remaining"]) == (200, "4")


def test_a_login_is_limited_whatever_its_path_is_written_like(web):
    client = new_client()
    forms = ["/auth/login", "/api/../auth/login", "//auth//login", "/%61uth/login",
             "/auth/./login", "/auth/login?x=1"]
    got = stack.until_denied(web, 5, lambda n: forms[n % len(forms)], "POST", client=client)
    assert got.headers["X-RateLimit-Algorithm"] == "sliding-window"


def test_a_tagged_request_goes_to_the_slower_backend(web):
    client = new_client()
    lanes = [web.ask("/reports/x", client=client) for _ in range(21)]
    assert {a.status for a in lanes} == {200}
    slow = [b"slower" in a.body for a in lanes]
    assert not any(slow[:10]) and any(slow)


def test_a_warning_comes_before_the_limit(web):
    warned = [web.ask("/api/x", headers={"X-API-Key": "key-of-emil"}) for _ in range(1)]
    assert not warned[0].headers["X-RateLimit-Warning"]
    client = new_client()
    answers = [web.ask("/api/x", client=client) for _ in range(5)]
    assert [bool(a.headers["X-RateLimit-Warning"]) for a in answers[:3]] == [False] * 3
    assert answers[4].headers["X-RateLimit-Warning"]


def test_a_path_without_a_limit_has_no_fields(web):
    got = web.ask("/", client=new_client())
    assert got.status == 200
    # Only the shadow rule applies, which is never reported.
    assert not [h for h in got.headers if "ratelimit" in h.lower() or h == "Retry-After"]


def test_what_is_never_allowed_has_no_empty_field(tmp_path):
    """`0/WINDOW` is in no policy: an empty field would be one that nobody can read."""
    def nothing_passes(s):
        s.cfg.write_text(stack.replaced(s.cfg.read_text(), '"5/minute";', '"0/minute";', s.cfg))
    with stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy",
                       edit=nothing_passes) as s:
        got = s.ask("/api/x")
        assert (got.status, got.headers["X-RateLimit-Limit"]) == (429, "0")
        assert got.headers["RateLimit-Policy"] is None and got.headers["Retry-After"] is None
        assert not [name for name, value in got.headers.items() if not value]


def test_the_longest_request_is_still_checked(web):
    got = web.ask("/api/" + "x" * 14900, client=new_client())
    assert (got.status, got.headers["X-RateLimit-Remaining"]) == (200, "4")


def test_a_request_too_long_to_be_checked_is_no_way_around(tmp_path):
    def short_frames(s):
        s.cfg.write_text(stack.replaced(s.cfg.read_text(), "drain  =", "max_frame_size = 512; drain =",
                                        s.cfg))
    with stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy",
                       edit=short_frames) as s:
        assert s.ask("/api/x").headers["X-RateLimit-Limit"] == "5"
        got = s.ask("/api/" + "x" * 2000)
        if stack.haproxy_version() == (3, 1) and got.status == 200:
            # 3.1.0 sends longer frames than were agreed on, and is answered.
            assert got.headers["X-RateLimit-Remaining"] == "3"
        else:
            assert got.status == 400


def test_who_leaves_at_once_is_no_way_around(tmp_path):
    """HAProxy 3.3 and newer gives the check up, and would ask the server all the same."""
    def with_server(s):
        cfg = s.haproxy_dir / "haproxy.cfg"
        said = 'http-request return status 200 content-type text/plain string "the application\\n"\n'
        cfg.write_text(stack.replaced(cfg.read_text(), said, f"server app1 127.0.0.1:{port}\n", cfg))

    heard = []

    def serve(c):
        with c, contextlib.suppress(OSError):
            c.settimeout(stack.BOUND)
            while b"\r\n\r\n" in c.recv(65536):
                heard.append(c)
                c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        port = server.getsockname()[1]
        threading.Thread(target=accept, daemon=True).start()
        with stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy", edit=with_server) as s:
            assert s.ask("/api/x").status == 200
            for _ in range(50):
                with socket.create_connection(("127.0.0.1", s.port)) as c:
                    c.sendall(b"GET /api/x HTTP/1.1\r\nHost: x\r\n\r\n")
                    c.shutdown(socket.SHUT_WR)
                    while c.recv(65536):
                        pass
            agents.until(lambda: s.haproxy.stdout.count('"GET /api/x ') == 51, "their lines", stack.BOUND)
        server.shutdown(socket.SHUT_RDWR)
    assert len(heard) <= 6      # 5 and what comes back meanwhile


def test_nothing_of_the_key_is_in_a_log(web):
    web.ask("/api/x", headers={"X-API-Key": "key-of-fred"})
    stack.until_denied(web, 10, "/api/x", headers={"X-API-Key": "key-of-fred"}, least=0)
    for process in (web.agent, web.haproxy):
        assert "key-of-" not in process.stdout + process.stderr


def test_the_log_has_the_decision(web):
    client = new_client()
    stack.until_denied(web, 5, "/api/logged", client=client)
    line = re.compile(rf"(?m)^{re.escape(client)} .* 429 .* rl=limited/api left=0/5 tier=anonymous .*"
                      r" key=sha256:- .* err=- check_ms=\d+ \"GET /api/logged HTTP/1.1\""
                      rf" host={{127.0.0.1:{web.port}}}$")
    agents.until(lambda: line.search(web.haproxy.stdout), "HAProxy's log line")


def test_fields_are_on_answers_that_haproxy_makes_itself(tmp_path):
    def no_server(s):
        """The application with a server that nobody listens on: HAProxy's own 503."""
        cfg = s.haproxy_dir / "haproxy.cfg"
        text = cfg.read_text()
        cfg.write_text(re.sub(r"(?m)^(backend app)\n.*$",
                              rf"\1\n\tretries 0\n\tserver none 127.0.0.1:{agents.free_port()}",
                              text, count=1))
    with stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy",
                       edit=no_server) as s:
        got = s.ask("/api/x")
        assert (got.status, got.headers["X-RateLimit-Remaining"]) == (503, "4")
        assert got.headers["RateLimit"] and got.headers["Retry-After"] is None


def test_without_an_agent_requests_pass_but_on_the_strict_route(tmp_path):
    with stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy") as s:
        assert s.ask("/api/x").headers["X-RateLimit-Limit"] == "5"
        s.stop_agent()

        got = s.ask("/api/x")
        assert (got.status, got.headers["X-RateLimit-Limit"]) == (200, None)
        assert s.statuses(7, "/api/x") == [200] * 7
        # What has no path has none that could not be decoded.
        assert s.ask("*", "OPTIONS").status == 200
        assert s.ask("http://a.example").status == 200

        for path in ("/auth/login", "//auth/login", "/%61uth/login", "/x/../auth/login",
                     "/auth/login%", "/auth/login%4", "/auth/%zz", "/%zz/../auth/login", "/%/auth/x",
                     "/%00/auth/x"):
            got = s.ask(path, "POST")
            assert got.status == 503
            assert got.headers["Content-Type"] == "application/problem+json"
            assert json.loads(got.body)["status"] == 503
            assert got.headers["Retry-After"] == "1"

        # And back: nothing has to be done at HAProxy's side.
        s.start_agent()
        agents.until(lambda: s.agent_is("UP"), "HAProxy to take the agent for UP", stack.BOUND)
        assert s.ask("/auth/login", "POST").status == 200


def test_a_hanging_agent_is_left_alone(tmp_path):
    """A port that accepts and never answers: a connect would call it healthy, spop-check does not."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(64)
        s = stack.Stack(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy")
        cfg = s.haproxy_dir / "haproxy.cfg"
        cfg.write_text(cfg.read_text().replace(f":{s.agent_port} ", f":{mute.getsockname()[1]} "))
        try:
            s.start_haproxy()
            agents.until(lambda: s.agent_is("DOWN"), "HAProxy to take it for DOWN", stack.BOUND)
            assert s.ask("/api/x").status == 200
        finally:
            s.stop()


def test_who_was_connected_to_an_agent_that_hangs_moves_to_the_second(tmp_path):
    """With the second agent of haproxy.cfg, as its comment says; connections to agents are kept."""
    port = agents.free_port()

    def with_second(s):
        cfg = s.haproxy_dir / "haproxy.cfg"
        text = stack.replaced(cfg.read_text(), "#server agent2 127.0.0.1:9610",
                              f"server agent2 127.0.0.1:{port}", cfg)
        cfg.write_text(stack.replaced(
            text, "on-marked-up shutdown-backup-sessions",
            "on-marked-down shutdown-sessions on-marked-up shutdown-backup-sessions", cfg))

    with stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy",
                       edit=with_second) as s:
        second = s.folder / "conf/second.cfg"
        second.write_text(stack.replaced(s.cfg.read_text(), f":{s.agent_port}", f":{port}", s.cfg))
        other = agents.Process([agents.BINARY, "-f", second], s.folder, "second")
        s.wait_for(other, port)
        try:
            limited = [s.ask("/api/x").headers["X-RateLimit-Limit"] for _ in range(4)]
            assert limited == ["5"] * 4
            s.agent.send_signal(signal.SIGSTOP)
            agents.until(lambda: s.agent_is("DOWN"), "HAProxy to take it for DOWN", stack.BOUND)
            answers = [s.ask("/api/x") for _ in range(8)]
            assert [a.headers["X-RateLimit-Limit"] for a in answers] == ["5"] * 8
            left = 1 if agents.redis else 5     # a memory store of its own counts anew
            assert [a.status for a in answers] == [200] * left + [429] * (8 - left)
        finally:
            s.agent.send_signal(signal.SIGCONT)
            s.end(other)


def test_what_an_agent_that_has_ended_refuses_the_second_is_asked(tmp_path):
    """As the comment on the second agent says: at once, and not when the check has seen it."""
    port = agents.free_port()
    comment = " ".join((ROOT / "haproxy/haproxy.cfg").read_text().replace("\n\t#", "").split())
    observe = re.search(r'"(observe [^"]*)" there, with "(retries 2)" and "(option redispatch 1)" above', comment)

    def with_second(s):
        cfg = s.haproxy_dir / "haproxy.cfg"
        text = stack.replaced(cfg.read_text(), "#server agent2 127.0.0.1:9610", f"server agent2 127.0.0.1:{port}", cfg)
        text = stack.replaced(text, "check inter 1s fastinter 200ms downinter 500ms fall 2 rise 1 on-marked-up",
                              f"check inter 1h {observe[1]} on-marked-down shutdown-sessions on-marked-up", cfg)
        cfg.write_text(stack.replaced(text, "\toption spop-check\n",
                                      f"\toption spop-check\n\t{observe[2]}\n\t{observe[3]}\n", cfg))

    with stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy", edit=with_second) as s:
        second = s.folder / "conf/second.cfg"
        second.write_text(stack.replaced(s.cfg.read_text(), f":{s.agent_port}", f":{port}", s.cfg))
        other = agents.Process([agents.BINARY, "-f", second], s.folder, "second")
        s.wait_for(other, port)
        try:
            assert s.ask("/api/x").headers["X-RateLimit-Limit"] == "5"
            s.agent.kill()
            # The first one may be lost with the connection that it was sent on.
            assert [s.ask("/api/x").headers["X-RateLimit-Limit"] for _ in range(4)][1:] == ["5"] * 3
        finally:
            s.end(other)


def test_an_agent_that_drains_alone(tmp_path):
    """As haproxy/README.md says: what HAProxy calls it, and that 3.1 and newer ask nobody meanwhile."""
    new = stack.haproxy_version() >= (3, 1)

    def slow(s):
        s.cfg.write_text(stack.replaced(s.cfg.read_text(), 'drain  = "0s"', 'drain = "4s"', s.cfg))
    with stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy", edit=slow) as s:
        assert s.ask("/api/x").headers["X-RateLimit-Limit"] == "5"
        s.agent.send_signal(signal.SIGTERM)
        agents.until(lambda: s.agent_is("DOWN"), "HAProxy to take it for DOWN", stack.BOUND)
        asked = s.ask("/api/x").headers["X-RateLimit-Limit"]
        assert not new or asked is None
        why = "version value not found" if new else "resource allocation error"
        agents.until(lambda: why in s.haproxy.stdout + s.haproxy.stderr, why, stack.BOUND)
        assert f"`{why}`" in (ROOT / "haproxy/README.md").read_text()
        assert s.agent.wait() == 0


@pytest.mark.parametrize("reuse", [" max-reuse 24 ", " "], ids=["shipped", "without max-reuse"])
def test_an_agent_that_was_held_up_is_asked_again(tmp_path, reuse):
    """Answers to all that HAProxy has given up meanwhile come at once: more than its buffer holds.
    Without max-reuse the agent leaves what HAProxy does not read any more."""
    def impatient(s):
        spoe = s.haproxy_dir / "spoe-ratelimit.conf"
        spoe.write_text(stack.replaced(spoe.read_text(), "timeout processing 10s", "timeout processing 200ms", spoe))
        cfg = s.haproxy_dir / "haproxy.cfg"     # the check is not to see it
        text = stack.replaced(cfg.read_text(), "check inter 1s", "check inter 1h", cfg)
        cfg.write_text(stack.replaced(text, " max-reuse 24 ", reuse, cfg))

    with stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy", edit=impatient) as s:
        assert s.ask("/api/x").headers["X-RateLimit-Limit"] == "5"
        got, ended = [], threading.Event()

        def client(i):
            with s.connect(f"127.3.0.{i + 1}") as c:
                while not ended.is_set():
                    got.append(stack.send(c, "/api/x").headers["X-RateLimit-Limit"])

        def more(n):
            n += len(got)
            agents.until(lambda: len(got) >= n, "answers", stack.BOUND)
        threads = [threading.Thread(target=client, args=(i,)) for i in range(40)]
        for t in threads:
            t.start()
        try:
            more(400)
            s.agent.send_signal(signal.SIGSTOP)
            more(400)       # ten of each client are given up
            s.agent.send_signal(signal.SIGCONT)
            more(1000)

            def late():     # a few may be, where the machine is busy
                return got[-200:].count(None)
            assert reuse == " " or late() < 20, f"{late()} of the last 200 were not checked"
            agents.until(lambda: late() < 20, "checks", stack.BOUND)
        finally:
            ended.set()
            for t in threads:
                t.join()


def test_a_burst_does_not_take_the_agent_down(tmp_path):
    """HAProxy up to 3.0 opens more connections than the agent takes; those that it has carry all of
    the requests, and its checks are answered: it would take a well agent for DOWN. One thread:
    each can use only its own connections, and of several one may find no place at all."""
    def narrow(s):
        s.cfg.write_text(stack.replaced(s.cfg.read_text(), "agent: {", "agent: { max_connections = 3;", s.cfg))
        cfg = s.haproxy_dir / "haproxy.cfg"
        text = stack.replaced(cfg.read_text(), "\nglobal\n", "\nglobal\n\tnbthread 1\n", cfg)
        # Those that they have are to last: a new one may find no place.
        cfg.write_text(stack.replaced(text, " max-reuse 24 ", " ", cfg))
    path = str(tmp_path / "adm.sock")

    def counted(metric):
        with socket.socket(socket.AF_UNIX) as c:
            c.connect(path)
            c.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: c.recv(65536), b"")).decode()
        return int(re.search(rf"(?m)^ratelimit_{metric} (\d+)$", text)[1])

    with stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy",
                       env={"RATELIMIT_ADMIN": path}, edit=narrow) as s:
        got, start = [], threading.Barrier(40)

        def client(i):
            with s.connect(f"127.2.0.{i + 1}") as c:
                start.wait()
                got.extend((i, stack.send(c, "/api/x")) for i in range(5))
        threads = [threading.Thread(target=client, args=(i,)) for i in range(40)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(got) == 200 and {a.status for _, a in got} == {200}
        unchecked = {i for i, a in got if not a.headers["X-RateLimit-Limit"]}
        # 3.1 and newer give up a check whose connection was refused four times; while they have none yet.
        assert unchecked <= (set() if stack.haproxy_version() < (3, 1) else {0}), "some were not checked"
        before = counted("health_checks_total")
        agents.until(lambda: counted("health_checks_total") >= before + 4, "checks", stack.BOUND)
        assert s.agent_is("UP") and " is DOWN" not in s.haproxy.stderr + s.haproxy.stdout


def test_a_reload_changes_limits_without_haproxy(tmp_path):
    with stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy") as s:
        assert s.ask("/api/x").headers["X-RateLimit-Limit"] == "5"
        s.cfg.write_text(stack.replaced(s.cfg.read_text(), '"5/minute";', '"7/minute";', s.cfg))
        s.agent.send_signal(1)
        # What was used stays used: 7 - 1, and each look (of a client of its own) uses one.
        agents.until(lambda: s.ask("/api/x", client=new_client()).headers["X-RateLimit-Limit"] == "7",
                     "the new limit")
        assert int(s.ask("/api/x").headers["X-RateLimit-Remaining"]) <= 5


def test_what_the_guide_refuses_of_paths(tmp_path):
    """As it stands in the file, not as a page shows it: in a table `|` is written with a backslash."""
    lines = re.findall(r"refused by HAProxy, `(http-request deny [^`]*)`", (ROOT / "conf/README.md").read_text())
    assert len(lines) == 2 and not [x for x in lines if "\\" in x]

    def refuse(s):
        cfg = s.haproxy_dir / "haproxy.cfg"
        cfg.write_text(stack.replaced(cfg.read_text(), "\t# 3. Ask.",
                                      "".join(f"\t{x}\n" for x in lines) + "\t# 3. Ask.", cfg))
    with stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy", edit=refuse) as s:
        got = {path: s.ask(path).status for path in ("/%41uth/x", "/%4Cogin", "/%5ax", "/%5b", "/%40", "/a%20b", "/a%2fb", "/4a")}
    assert got == {"/%41uth/x": 400, "/%4Cogin": 400, "/%5ax": 400, "/%5b": 200, "/%40": 200, "/a%20b": 200, "/a%2fb": 400,
                   "/4a": 200}


def test_readmes_name_existing_files():
    for readme in (ROOT / "haproxy/README.md", ROOT / "conf/README.md",
                   ROOT / "conf/examples/README.md", ROOT / "conf/examples/two-nodes/README.md"):
        for name in re.findall(r"(?m)^\| `([^`]+)`", readme.read_text()):
            assert (readme.parent / pathlib.Path(name)).exists(), f"{readme}: {name}"
