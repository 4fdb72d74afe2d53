"""haproxy/README.md's recipes, taken from there as they stand, in the files of that folder; and what it says
of err."""

import base64
import http.client
import json
import re
import select
import shutil
import signal
import socket
import subprocess

import pytest

import agent as agents
import stack

ROOT = stack.ROOT
README = (ROOT / "haproxy/README.md").read_text()
RECIPES = README[README.index("\n## Recipes\n"):README.index("\n## Fail open")]
PROXY = "127.9.9.9"


def shown(begins, has=""):
    """The indented lines that begin and go on so."""
    found = [line.strip() for line in RECIPES.splitlines()
             if line.startswith("    " + begins) and has in line]
    assert found, (begins, has)
    return found


def recipe(*, requests=(), args="", rules="", top="", files=(), then=lambda _: None):
    """What puts it into copies of the files, where the README says that it goes."""
    def edit(s):
        cfg, spoe = s.haproxy_dir / "haproxy.cfg", s.haproxy_dir / "spoe-ratelimit.conf"
        cfg.write_text(stack.replaced(cfg.read_text(), "\t# 3. Ask.",
                                      "".join(f"\t{line}\n" for line in requests) + "\t# 3. Ask.", cfg))
        spoe.write_text(stack.replaced(spoe.read_text(), "host=req.hdr(host)\n",
                                       f"host=req.hdr(host) {args.removeprefix('args … ')}\n", spoe))
        text = s.cfg.read_text()
        if rules:
            text = stack.replaced(text, "\nrules = (", f"\nrules = (\n{rules},", s.cfg)
        s.cfg.write_text(text + top)
        for name, content in dict(files).items():
            (s.haproxy_dir / name).write_text(content)
        stack.trust(PROXY)(s)
        then(s)
    return edit


def served(tmp_path, edit):
    return stack.running(tmp_path, ROOT / "conf/ratelimit.cfg", ROOT / "haproxy", edit=edit)


def from_client(address, **more):
    return {"X-Forwarded-For": address, **more}


def test_a_path_without_limits(tmp_path):
    one = re.search(r"`match = ({[^`]*})`", RECIPES)[1]

    def unlimited(s):
        s.cfg.write_text(stack.replaced(s.cfg.read_text(), '{ path = "/api/*"; }', one, s.cfg))
    with served(tmp_path, recipe(top=shown("allow = ")[0], then=unlimited)) as s:
        stack.until_denied(s, 5, "/api/x")
        assert set(s.statuses(8, "/api/health")) == {200}
        assert set(s.statuses(8, "/static/../healthz")) == {200}
        agents.until(lambda: " rl=bypassed/" in s.haproxy.stdout, "the log")
        assert s.ask("/static/../api/x").status == 429


def test_by_country(tmp_path):
    edit = recipe(requests=shown("http-request", "map_ip"), args=shown("args", "country")[0],
                  rules=shown("{ name", "country")[0],
                  files={"country.map": "192.0.2.0/24 NL\n198.51.100.0/24 US\n"})
    with served(tmp_path, edit) as s:
        assert set(s.statuses(14, "/", client=PROXY, headers=from_client("192.0.2.1"))) == {200}
        for abroad in ("198.51.100.1", "203.0.113.1"):
            stack.until_denied(s, 10, "/", client=PROXY, headers=from_client(abroad))


def token(folder, key, claims):
    def coded(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")
    head = b".".join(coded(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
    (folder / "head").write_bytes(head)
    signed = subprocess.run(["openssl", "dgst", "-sha256", "-sign", folder / key, folder / "head"],
                            capture_output=True, check=True).stdout
    return (head + b"." + coded(signed)).decode()


@pytest.mark.skipif(stack.haproxy_version() < (2, 5), reason="knows no JWT")
def test_by_a_claim(tmp_path):
    for key in ("ours", "other"):
        subprocess.run(["openssl", "genrsa", "-out", tmp_path / key, "2048"], capture_output=True, check=True)
    subprocess.run(["openssl", "rsa", "-in", tmp_path / "ours", "-pubout", "-out", tmp_path / "jwt.pem"],
                   capture_output=True, check=True)
    lines = [stack.replaced(line, "/etc/haproxy/jwt.pem", str(tmp_path / "jwt.pem"), "the recipe")
             if "jwt_verify" in line else line
             for line in shown("http-request", "txn.jwt")]
    with served(tmp_path / "run", recipe(requests=lines)) as s:
        def limit(key, last, **claims):
            bearer = {"Authorization": f"Bearer {token(tmp_path, key, claims)}"}
            return s.ask("/api/x", client=PROXY, headers=from_client(f"192.0.2.{last}", **bearer)).headers[
                "X-RateLimit-Limit"]
        alice = {"sub": "alice", "plan": "premium"}
        assert limit("ours", 1, exp=2**32, **alice) == "100"
        assert limit("other", 2, exp=2**32, **alice) == "5", "signed by somebody else"
        assert limit("ours", 3, exp=2**30, **alice) == "5", "expired"
        assert limit("ours", 4, **alice) == "5", "does not say how long it holds"
        left = [s.ask("/api/x", client=PROXY, headers=from_client(f"192.0.2.{last}", Authorization="Bearer "
                      + token(tmp_path, "ours", {"sub": "bob", "plan": "free", "exp": 2**32}))
                      ).headers["X-RateLimit-Remaining"] for last in (5, 6)]
        assert left == ["9", "8"], "counted by who he is, not by his address"
        for name in ("x\nFORGED rl=ok/x", "x FORGED=1", "x\tFORGED"):
            got = s.ask("/api/x", client=PROXY, headers=from_client("192.0.2.7", Authorization="Bearer "
                        + token(tmp_path, "ours", {"sub": name, "plan": "free", "exp": 2**32})))
            assert got.headers["X-RateLimit-Scope"] == "ip", name
        got = s.ask("/api/x", client=PROXY, headers=from_client("192.0.2.8", Authorization="Bearer "
                    + token(tmp_path, "ours", {"sub": "auth0|Zoë@x.example", "plan": "free", "exp": 2**32})))
        assert got.headers["X-RateLimit-Scope"] == "user"
        # Keys are known as before.
        assert s.ask("/api/x", headers={"X-API-Key": "key-of-fred"}).headers["X-RateLimit-Limit"] == "10"
    assert "FORGED" not in s.haproxy.stdout


def test_by_what_is_uploaded(tmp_path):
    edit = recipe(args=shown("args", "mib")[0],
                  rules=stack.replaced(shown("{ name", "mib")[0], "500/hour", "7/hour", "the recipe"))
    with served(tmp_path, edit) as s:
        def put(mib):
            # HAProxy answers when it has the head.
            return s.ask("/up", "PUT", headers={"Content-Length": str(int(mib * 2**20))}).status
        assert [put(2.5), put(0), put(2.5), put(2.5)] == [200, 200, 200, 429]


def test_behind_a_cdn(tmp_path):
    line = shown("http-request set-src")[0]

    def instead(s):
        cfg = s.haproxy_dir / "haproxy.cfg"
        text, n = re.subn(r"\thttp-request set-src req.hdr_ip\(x-forwarded-for,.*\n", "", cfg.read_text())
        assert n == 2
        cfg.write_text(stack.replaced(text, "\thttp-request set-var(txn.client) src",
                                      f"\t{line}\n\thttp-request set-var(txn.client) src", cfg))
    with served(tmp_path, recipe(then=instead)) as s:
        stack.until_denied(s, 5, "/api/x", client=PROXY, headers={"CF-Connecting-IP": "192.0.2.1"})
        assert s.ask("/api/x", client=PROXY, headers={"CF-Connecting-IP": "192.0.2.2"}).status == 200
        # Who is no proxy is not believed.
        stack.until_denied(s, 5, "/api/x", client="127.7.7.7", headers={"CF-Connecting-IP": "192.0.2.3"})
        assert s.ask("/api/x", client="127.7.7.7", headers={"CF-Connecting-IP": "192.0.2.4"}).status == 429


@pytest.mark.parametrize("how", ["accept-proxy", "expect-proxy"])
def test_proxy_protocol(tmp_path, how):
    def spoken(s):
        cfg = s.haproxy_dir / "haproxy.cfg"
        port = agents.free_port()
        s.proxied = port
        more = " accept-proxy"
        if how == "expect-proxy":
            more = "\n\t" + re.search(r"`(tcp-request connection expect-proxy [^`]+)`", RECIPES)[1]
            (s.haproxy_dir / "balancers.lst").write_text(f"{PROXY}\n")
        cfg.write_text(stack.replaced(cfg.read_text(), f"\tbind 127.0.0.1:{s.port}\n",
                                      f"\tbind 127.0.0.1:{s.port}\n\tbind 127.0.0.1:{port}{more}\n", cfg))
    with served(tmp_path, recipe(then=spoken)) as s:
        agents.until(lambda: stack.accepts(s.proxied), "the second bind", stack.BOUND)

        def ask(client):
            with s.connect(PROXY) as connection:
                connection.port = s.proxied
                connection.connect()
                connection.sock.sendall(f"PROXY TCP4 {client} 127.0.0.1 1000 80\r\n".encode())
                return stack.send(connection, "/api/x").status
        got = [ask("192.0.2.1") for _ in range(14)]
        assert got[0] == 200 and got[-1] == 429, got
        assert ask("192.0.2.2") == 200


class ByUnix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(stack.BOUND)
        self.sock.connect(self.host)


@pytest.mark.parametrize("mended", [True, False])
def test_a_unix_socket(tmp_path, mended):
    """As it is, without an address and without a limit; by the recipe who the proxy says."""
    lines = shown("http-request set-src req.hdr_ip(x-forwarded-for,-1)") + shown("http-request deny", "src -m found")

    def edit(s):
        cfg = s.haproxy_dir / "haproxy.cfg"
        text = stack.replaced(cfg.read_text(), "\t# <<<\n", f"\tbind unix@{s.folder}/web.sock\n\t# <<<\n", cfg)
        if mended:
            text = re.sub(r"(?m)^\t(acl|http-request).*(sess\.peer|behind_|set-src).*\n", "", text)
            text = stack.replaced(text, "\thttp-request set-var(txn.client) src\n", "".join(
                f"\t{x}\n" for x in [*lines, "http-request set-var(txn.client) src"]), cfg)
        cfg.write_text(text)
    with served(tmp_path, edit) as s:
        agents.until(lambda: s.agent_is("UP"), "HAProxy to see the agent", stack.BOUND)
        c = ByUnix(f"{s.folder}/web.sock", timeout=stack.BOUND)
        # One connection for several clients, as a proxy has it.
        def ask(address):
            return stack.send(c, "/api/x", headers={"Host": "a", **({"X-Forwarded-For": address} if address else {})}).status
        got = [ask("9.9.9.9, 192.0.2.1") for _ in range(12)]
        assert (429 in got) == mended and got[0] == 200, got
        assert ask("192.0.2.1, 192.0.2.2") == 200
        c.close()
        assert ask("") == (400 if mended else 200)
        c.close()


@pytest.mark.parametrize("mended", [True, False])
def test_compression_beside_it(tmp_path, mended):
    assert "`filter compression`" in README
    text = (ROOT / "haproxy/haproxy.cfg").read_text()
    line = "\tfilter spoe engine ratelimit config spoe-ratelimit.conf\n"
    (tmp_path / "haproxy.cfg").write_text(stack.replaced(
        text, line, line + "\tfilter compression\n" * mended + "\tcompression algo gzip\n", "haproxy.cfg"))
    for name in ("keys.map", "tiers.map", "trusted-proxies.lst", "spoe-ratelimit.conf"):
        shutil.copy(ROOT / "haproxy" / name, tmp_path)
    done = subprocess.run([stack.HAPROXY, "-c", "-C", tmp_path, "-f", "haproxy.cfg"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == mended, done.stderr


def test_several_frontends(tmp_path):
    def second(s):
        cfg = s.haproxy_dir / "haproxy.cfg"
        s.second = agents.free_port()
        cfg.write_text(cfg.read_text() + f"""
frontend second
	bind 127.0.0.1:{s.second}
	filter spoe engine ratelimit config spoe-ratelimit.conf
	http-request send-spoe-group ratelimit request
	http-request deny deny_status 429 if {{ var(txn.rl.deny) -m bool }}
	default_backend app
""")
    assert "`site=fe_name`" in RECIPES
    edit = recipe(args="site=fe_name", then=second,
                  rules='{ name = "s"; match = { site = "second"; path = "/s"; }; per = [ "ip" ]; rate = "0/minute"; }')
    with served(tmp_path, edit) as s:
        stack.until_denied(s, 5, "/api/x")
        assert s.ask("/s").status == 200
        s.port = s.second
        assert s.ask("/api/x").status == 429, "the counters are one"
        assert s.ask("/s").status == 429


def block(begins, ends):
    """An indented block of the README, from a line to the blank one behind what begins with `ends`."""
    text = RECIPES[RECIPES.index("\n    " + begins):]
    return text[:text.index("\n\n", text.index("\n    " + ends))].replace("\n    ", "\n") + "\n"


def serve_mail(s, delay):
    """A server that has a line for each connection, and a frontend before it, as the README has it."""
    s.mail, s.second = socket.create_server(("127.0.0.1", 0)), agents.free_port()
    spoe, cfg = s.haproxy_dir / "spoe-ratelimit.conf", s.haproxy_dir / "haproxy.cfg"
    spoe.write_text(stack.replaced(spoe.read_text(), "groups request\n", "groups request connection\n", spoe)
                    + block("spoe-group connection", "spoe-message check-connection"))
    frontend = stack.replaced(block("frontend smtp", "frontend smtp"), "127.0.0.1:8025",
                              f"127.0.0.1:{s.second}", "the recipe")
    # Longer than this test's patience for a check; or none at all.
    frontend = stack.replaced(frontend, "inspect-delay 2s", "inspect-delay 20s" if delay else "inspect-delay 0", "the recipe")
    cfg.write_text(cfg.read_text() + frontend + "backend mail\n\tmode tcp\n"
                   f"\tserver mail 127.0.0.1:{s.mail.getsockname()[1]}\n")


def greeted(s):
    """Whether a connection is let in, and hears the server."""
    with socket.create_connection(("127.0.0.1", s.second), timeout=stack.BOUND) as c:
        ready, _, _ = select.select([c, s.mail], [], [], stack.BOUND)
        assert ready
        if s.mail in ready:
            with s.mail.accept()[0] as server:
                server.sendall(b"220 hello\r\n")
        return c.recv(100) == b"220 hello\r\n"


@pytest.mark.parametrize("delay", [True, False])
def test_connections(tmp_path, delay):
    """The client says nothing; without a delay nobody is checked, and err says so."""
    edit = recipe(rules=stack.replaced(shown("{ name", "connections")[0], "30/minute", "3/minute", "the recipe"),
                  then=lambda s: serve_mail(s, delay))
    with served(tmp_path, edit) as s:
        agents.until(lambda: s.agent_is("UP"), "HAProxy to see the agent", stack.BOUND)
        got = [greeted(s) for _ in range(6)]
        line = "rl=limited/connections message=check-connection err=-" if delay else (
            f"rl=-/- message=check-connection err={4 if stack.haproxy_version() >= (3, 1) else 5}")
        agents.until(lambda: line in s.haproxy.stdout, line, stack.BOUND)
        s.mail.close()
        assert got == ([True] * 3 + [False] * 3 if delay else [True] * 6)


def test_what_err_says(tmp_path):
    """1: it hangs; 2, and from 3.1 on 257: it is away."""
    def short(s):
        spoe = s.haproxy_dir / "spoe-ratelimit.conf"
        spoe.write_text(stack.replaced(spoe.read_text(), "timeout processing 10s", "timeout processing 50ms", spoe))
        cfg = s.haproxy_dir / "haproxy.cfg"     # so long it is not known to be away
        cfg.write_text(stack.replaced(cfg.read_text(), "check inter 1s", "check inter 4s", cfg))
    told = dict(re.findall(r"(?m)^\| (\d+)(?:, \d+)? \| (.*?) \|", README[README.index("\n| err |"):]))
    assert "timeout processing" in told["1"] and "no agent is UP (HAProxy 3.1 and newer: 257)" in told["2"]
    away = 257 if stack.haproxy_version() >= (3, 1) else 2
    with served(tmp_path, short) as s:
        s.agent.send_signal(signal.SIGSTOP)
        try:
            assert s.ask("/hangs").status == 200
            agents.until(lambda: re.search(r'err=1 .*"GET /hangs ', s.haproxy.stdout), "its line", stack.BOUND)
        finally:
            s.agent.send_signal(signal.SIGCONT)
        agents.until(lambda: s.agent_is("UP"), "HAProxy to see the agent", stack.BOUND)
        s.stop_agent()
        assert s.ask("/away").status == 200
        agents.until(lambda: re.search(rf'err={away} .*"GET /away ', s.haproxy.stdout), "its line", stack.BOUND)
