"""ratelimitctl replay: what it says of a log is what the agent did when the log was written; and
whatever the log holds, it tells, leaves out, and stays small."""

import gzip
import json
import os
import pathlib
import re
import subprocess
import threading

import pytest

import stack
from agent import ROOT, SANITIZER, environment, until
from test_ctl import CTL, DONE, REFUSED, USAGE, call

# Windows of a day: how long the test takes is no matter.
CONFIG = '''
agent: {{ listen = [ "127.0.0.1:9600" ]; }};
store: {{ state_file = ""; }};
rules = (
  {{ name = "api"; match = {{ path = "/api/*"; }}; per = [ "key|user|ip" ]; algorithm = "fixed-window";
    rate = {rate}; }},
  {{ name = "shop"; match = {{ host = "*.example"; }}; per = [ "host" ]; algorithm = "fixed-window";
    rate = "3/day"; }},
  {{ name = "login"; match = {{ endpoint = "POST:/auth/*"; }}; per = [ "ip" ]; rate = "2/day"; }},
  {{ name = "all"; algorithm = "fixed-window"; rate = "40/day"; mode = "shadow"; }}
);
'''
TIERS = '{ premium = "7/day"; default = "5/day"; }'


def replay(*args, status=DONE, **kw):
    """Both of what it prints: for people, and for scripts."""
    text = call("replay", *args, **kw)
    assert text.status == status, text
    got = call("replay", *args, "--json", **kw)
    assert got.status == status, got
    return text.stdout, json.loads(got.stdout)


def rules_of(got):
    return {r["name"]: r for r in got["rules"]}


def table(text, title):
    """The rows below a line of titles that begins so."""
    lines = text.splitlines()
    first = next(i for i, x in enumerate(lines) if x.startswith(title))
    end = next((i for i, x in enumerate(lines) if i > first and not x), len(lines))
    return [x.split() for x in lines[first + 1:end]]


# --- behind a real HAProxy -----------------------------------------------------------------------

def traffic(s, keys):
    """Statuses; the last requests are all of one kind, as lines may swap with their neighbours."""
    got = s.statuses(8, "/api/x?n=1", client="127.1.0.1") + s.statuses(3, "/api/x", client="127.1.0.2")
    if keys:
        got += s.statuses(9, "/api/x", client="127.1.0.1", headers={"X-API-Key": "key-of-petra"})
        got += s.statuses(6, "/api/x", client="127.1.0.1", headers={"X-API-Key": "key-of-tina"})
    got += s.statuses(4, "/auth/login", method="POST", client="127.1.0.1")
    got += s.statuses(3, "/x/../%61pi//y", client="127.1.0.2")
    for host in ("a.example", "A.Example:8080", "b.example", HOSTILE):
        got += s.statuses(4, "/shop", client="127.1.0.3", headers={"Host": host})
    return got + s.statuses(20, "/other", client="127.1.0.3")


HASHED_KEY = "key=sha256:%[var(txn.key),sha2(256),hex]"     # as conf/operations.md has it
HOST = "host=%hr"
# Who is counted by it would like to be another, and what comes after it not to be read.
HOSTILE = 'x key=- user=mallory rl=ok/api"}|{#22\x1b[2J\\.example'


@pytest.mark.parametrize("log", ["own", "option httplog", "option httpslog", "option httplog clf"])
def test_it_says_what_the_agent_did(tmp_path, log):
    own, clf = log == "own", log.endswith("clf")
    cfg = tmp_path / "c" / "ratelimit.cfg"
    cfg.parent.mkdir()
    cfg.write_text(CONFIG.format(rate=TIERS if own else '"5/day"'))

    def edit(s):
        path = s.haproxy_dir / "haproxy.cfg"
        if own:
            shown = (ROOT / "conf/operations.md").read_text()
            for word in (HASHED_KEY, HOST):
                assert word in shown and word in path.read_text()
            return
        text, n = re.subn(r"(?m)^\thttp-request capture .*\n\tlog-format .*$", f"\t{log}",
                          path.read_text())
        assert n == 1
        path.write_text(text.replace("frontend web\n", "frontend web\n"
                                     "\tcapture request header x-forwarded-for len 40\n"
                                     "\tcapture request header x-api-key len 64\n"
                                     "\tcapture request header host len 99\n"
                                     "\tcapture response header retry-after len 40\n", 1))

    def lines():
        return [x for x in s.haproxy.stdout.splitlines() if "HTTP/1.1" in x]
    with stack.running(tmp_path, cfg, ROOT / "haproxy", edit=edit) as s:
        seen = traffic(s, not clf)
        statuses = [x for x in seen if x != 400]    # a newer HAProxy may refuse a hostile host
        until(lambda: len(lines()) == len(statuses), "HAProxy's log")
        written = "\n".join(lines()) + "\n"
        said = s.haproxy.stdout
    assert statuses.count(200) + statuses.count(429) == len(statuses)

    path = tmp_path / "haproxy.log"
    path.write_text(said)
    captures = [] if own or clf else ["--captures", "-,key,host"]
    text, got = replay("-f", cfg, *captures, path)
    assert "key-of-" not in text + json.dumps(got) + (said if own else ""), "no secret"
    rules = rules_of(got)
    # 8 of a host's 3, 4 of two others'.
    shop = rules["shop"]
    assert (shop["requests"], shop["denied"], shop["clients"]) == (
        (0, 0, 0) if clf else (16, 7, 3) if 400 not in seen else (12, 6, 2))
    unknown = 0 if not clf else 7 if 400 not in seen else 6
    assert got["requests"] == len(statuses)
    assert got["denied"] == statuses.count(429) - unknown > 0, got
    assert got["left_out"] == len(said.splitlines()) - len(statuses)
    # 8 of 5, with keys 9 of 7 (or 5) and 6 of 5; 6 of 5; 4 of 2.
    assert rules["api"]["denied"] == (4 if clf else 7 if own else 9)
    assert rules["login"]["denied"] == 2 and rules["login"]["requests"] == 4
    assert rules["all"]["requests"] == len(statuses)
    assert rules["all"]["denied"] == statuses.count(200) + unknown - 40 > 0
    assert f"all (shadow) would have denied {rules['all']['denied']} of {len(statuses)}\n" in text
    assert rules["api"]["clients"] == (2 if clf else 4)
    if own:
        for name in ("api", "login", "shop"):
            assert rules[name]["denied"] == written.count(f" rl=limited/{name} ")
        assert rules["all"]["denied"] == written.count(" shadow=all ")
        assert {tuple(x["tiers"] or ()): x["max"] for x in rules["api"]["limits"]} == {
            ("premium",): 9, (): 8}
        assert got["unseen"] == []
    top = {(x["rule"], x["client"]): x["count"] for x in got["top"]["items"]}
    assert top["api", "ip=127.1.0.1"] == 3 and top["login", "ip=127.1.0.1"] == 2
    if not clf:
        assert top["shop", "host=a.example"] == 5
        assert sum(n for (rule, who), n in top.items()
                   if rule == "api" and who.startswith("key=sha256:")) == (3 if own else 5)


# --- what a log may hold -------------------------------------------------------------------------

RULES = '''rules = (
  { name = "api"; per = [ "key|user|ip" ]; algorithm = "fixed-window";
    rate = { gold = [ "100/hour", "500/day" ]; default = "2/minute"; }; },
  { name = "slow"; per = [ "user" ]; rate = "1/day"; action = "tag"; tag = "slow"; },
  { name = "spy"; rate = "3/day"; mode = "shadow"; },
  { name = "idle"; per = [ "ip" ]; rate = "1/day"; mode = "off"; }
);
'''
SECRET = "a-key-that-nobody-may-see"


@pytest.fixture
def cfg(tmp_path):
    path = tmp_path / "new.cfg"
    path.write_text(RULES)
    return path


def entry(second=0, **fields):
    return json.dumps({"time": 1795278780 + second, **fields}) + "\n"


def test_what_it_prints(cfg, tmp_path):
    log = tmp_path / "x.log"
    log.write_text("".join(entry(i, user="al", path="/x") for i in range(5)) + entry(5, user="bo")
                   + entry(6, user="cy", tier="gold", cost=400) + entry(7, ip="192.0.2.1"))
    text, got = replay("-f", cfg, log, env={"TZ": "UTC"})
    assert text.startswith("8 requests in 7s, 2026-11-21 16:33:00 to 2026-11-21 16:33:07\n"
                           "admitted 4, denied 4 (50.0 %): limited 3, oversize 1\n\n"), text
    assert table(text, "RULE  MODE") == [
        ["api", "enforce", "8", "4", "50.0", "%", "4", "2"],
        ["slow", "tag", "7", "5", "71.4", "%", "3", "2"],
        ["spy", "shadow", "8", "2", "25.0", "%", "1", "1"],
        ["idle", "off", "0", "0", "0.0", "%", "0", "0"]], text
    rows = table(text, "RULE  TIER")
    assert rows[:3] == [["api", "gold", "1", "400", "400", "400", "400", "100/hour"],
                        ["api", "gold", "1", "400", "400", "400", "400", "500/day"],
                        ["api", "default", "3", "1", "5", "5", "5", "2/minute"]], text
    assert "\nslow would have tagged 5 of 7\nspy (shadow) would have denied 2 of 8\n" in text
    assert ["4", "4", "slow", "user=al"] in table(text, "AT LEAST"), text
    assert (got["admitted"], got["denied"], got["from"], got["to"]) == (4, 4, 1795278780, 1795278787)
    assert got["reasons"] == {"ok": 4, "limited": 3, "oversize": 1}
    one = table(replay("-f", cfg, "-n", "1", log)[0], "AT LEAST")
    assert one == [["4", "4", "slow", "user=al"]]


def test_lines_that_are_no_requests(cfg, tmp_path):
    log = tmp_path / "x.log"
    log.write_bytes(entry(ip="192.0.2.1").encode() + b"Server app/s1 is DOWN.\n\n\x00\xff\x1b[2J\n{\n["
                    + b"\n10.0.1.2:3 [21/Nov/2026:16:33:01.123] web web/<NOSRV> -1/-1/-1/-1/0 400 0 - - "
                    b'PR-- 1/1/0/0/0 0/0 "<BADREQ>"\n' + b"x" * 70000 + b"\n"
                    + b'{"time":1795278781,"user":"' + b"y" * 66000 + b'"}\n'
                    + entry(2, ip="192.0.2.1").encode() + b"the end, without a newline")
    text, got = replay("-f", cfg, log)
    assert (got["requests"], got["lines"], got["left_out"], got["too_long"]) == (2, 11, 9, 2)
    assert got["left_out_first"] == f"{log}:2"
    assert f"left out: 9 of 11 lines, which are no requests; the first is {log}:2\n" in text
    assert "too long: 2 of these\n" in text and "\x1b" not in text
    # Nothing else in it: then it was no log, and nobody takes that for "nothing denied".
    log.write_text("Server app/s1 is DOWN.\n" * 3)
    got = call("replay", "-f", cfg, log)
    assert got.status == REFUSED and "none of 3 lines is a request" in got.stderr, got


def test_an_empty_log_is_not_taken_for_one_without_denials(cfg, tmp_path):
    empty, one = tmp_path / "empty.log", tmp_path / "one.log"
    empty.write_text("")
    one.write_text(entry(user="al"))
    for args in ([empty], [empty, empty], []):
        text, got = replay("-f", cfg, *args, status=REFUSED)
        assert text.startswith("0 requests\n") and got["requests"] == got["lines"] == 0
        assert "there is no line in the log" in call("replay", "-f", cfg, *args).stderr
    assert replay("-f", cfg, empty, one)[1]["requests"] == 1


def test_an_object_without_a_field_of_the_rules_is_a_request(tmp_path):
    """A global rule counts it; what programs say of themselves between the requests it does not."""
    cfg, log = tmp_path / "g.cfg", tmp_path / "x.log"
    cfg.write_text('rules = ( { name = "all"; per = []; algorithm = "fixed-window"; rate = "3/day"; } );\n')
    log.write_text("".join(entry(i, app="x") + entry(i, level="info", event="denied") for i in range(5)))
    text, got = replay("-f", cfg, log)
    assert (got["requests"], got["denied"], got["lines"], got["left_out"]) == (5, 2, 10, 5), got
    assert got["left_out_first"] == f"{log}:2" and rules_of(got)["all"]["requests"] == 5
    log.write_text(entry(level="info", event="start"))
    assert "none of 1 lines is a request" in call("replay", "-f", cfg, log).stderr


def test_lines_come_from_everywhere(cfg, tmp_path):
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    one.write_text(entry(0, user="al"))
    two.write_text(entry(3600, user="al"))
    assert replay("-f", cfg, one, two)[1]["requests"] == 2
    assert replay("-f", cfg, typed=entry(user="al"))[1]["requests"] == 1
    text, got = replay("-f", cfg, two, "-", one, typed="nothing\n" + entry(user="al"))
    assert got["requests"] == 3 and got["left_out_first"] == "standard input:1"
    assert got["late"] == 2 and got["late_seconds"] == 3600
    assert "out of order: 2 requests, by up to 1h, were taken" in text
    packed = tmp_path / "one.log.gz"
    packed.write_bytes(gzip.compress(one.read_bytes() * 100))
    got = call("replay", "-f", cfg, packed)
    assert got.status == USAGE and f"{packed} is compressed: zcat LOG.gz | " in got.stderr, got
    assert not got.stdout
    for wrong in (tmp_path / "none.log", tmp_path):
        got = call("replay", "-f", cfg, one, wrong)
        assert got.status == REFUSED and f"{wrong}: " in got.stderr and not got.stdout, got


def test_wrong_usage(cfg, tmp_path):
    (tmp_path / "x.log").write_text(entry(user="al"))
    for args, says in ((["-n", "0"], "want 1 to 256"), (["-n", "257"], "want 1 to 256"),
                       (["--captures", "user,uesr"], '"uesr" is no field'),
                       (["--socket", "/x"], "--socket is not for replay")):
        got = call("replay", "-f", cfg, *args, tmp_path / "x.log")
        assert got.status == USAGE and says in got.stderr and not got.stdout, got
    (tmp_path / "bad.cfg").write_text("ruels = ();\n")
    got = call("replay", "-f", tmp_path / "bad.cfg", tmp_path / "x.log")
    assert got.status == REFUSED and 'did you mean "rules"' in got.stderr, got
    assert call("replay", "-f", tmp_path / "none.cfg").status == REFUSED


def test_no_secret_and_nothing_that_steers_a_terminal(cfg, tmp_path):
    log = tmp_path / "x\x1b[2J.log"
    log.write_text("".join(entry(key=SECRET, path="/\x1b[2J") + entry(user="\x1b[2J\u202eevil")
                           for _ in range(9)) + f"garbage {SECRET}\n")
    text, got = replay("-f", cfg, log)
    assert SECRET not in text + json.dumps(got) and "key=sha256:" in text
    assert not [c for c in text if (ord(c) < 32 and c != "\n") or c == "\u202e"], text
    assert "user=\\u{1B}[2J\\u{202E}evil" in text


def test_lists_tiers_penalties_and_the_switch(tmp_path):
    (tmp_path / "tiers.map").write_text("al gold\n")
    cfg = tmp_path / "x.cfg"
    cfg.write_text('''enabled = "${RATELIMIT_ON:-true}";
        store: { backend = "redis"; };
        identity: { tiers_file = "tiers.map"; default_tier = "free"; };
        allow = ( { ip = "192.0.2.1"; } ); block = ( { ip = "192.0.2.2"; } );
        rules = ( { name = "a"; per = [ "user|ip" ]; rate = { gold = "5/day"; free = "1/day"; };
                    penalty = { after = "2/1h"; ban = "1h"; }; } );''')
    log = tmp_path / "x.log"
    log.write_text("".join(entry(i, ip=f"192.0.2.{n}") for i in range(4) for n in (1, 2, 3))
                   + "".join(entry(9, user="al", tier=None) for _ in range(5)))
    text, got = replay("-f", cfg, log)
    assert got["reasons"] == {"ok": 6, "limited": 2, "blocked": 4, "banned": 1, "bypassed": 4}, got
    assert "a would have banned 1 times\n" in text and "Redis was not asked" in text
    got = replay("-f", cfg, log, env={"RATELIMIT_ON": "false"})[1]
    assert got["reasons"] == {"disabled": 17} and got["denied"] == 0
    assert sorted(os.listdir(tmp_path)) == ["tiers.map", "x.cfg", "x.log"]


# --- how much it takes ---------------------------------------------------------------------------

def peak_kb(cfg, blocks):
    """The most memory that it had at a time, with so many blocks of a thousand lines."""
    child = subprocess.Popen([CTL, "replay", "-f", cfg, "--json"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    block = "".join(f'10.{i // 256}.{i % 256}.1:80 [21/Nov/2026:HH:MM:SS.{i % 1000:03}] web app/s1 0/0/1/2/3 200'
                    f' 150 - - ---- 1/1/0/0/0 0/0 "GET /x/{i} HTTP/1.1"\n' for i in range(1000))

    def write():
        with child.stdin:
            for n in range(blocks):
                at = f"{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}"
                child.stdin.write(block.replace("HH:MM:SS", at).encode())
    writer = threading.Thread(target=write)
    writer.start()
    out, err = child.stdout.read(), child.stderr.read().decode()
    writer.join()
    child.stdout.close()
    child.stderr.close()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == DONE and not SANITIZER.search(err), err
    assert json.loads(out)["requests"] == 1000 * blocks
    return used.ru_maxrss


def test_a_million_lines_take_no_more_memory_than_a_few(cfg):
    few, many = peak_kb(cfg, 20), peak_kb(cfg, 1000)
    assert many < few + 16 * 1024, (few, many)


# --- what the papers say -------------------------------------------------------------------------

def test_the_examples_run_as_they_are_printed(tmp_path):
    """Of the manual and of conf/operations.md, in a folder with such files."""
    log = "".join(entry(i, user="al") for i in range(5))
    for name in ("haproxy.log", "var-log"):
        (tmp_path / name).write_text(log)
    (tmp_path / "haproxy.log.2.gz").write_bytes(gzip.compress(log.encode()))
    for name in ("ratelimit.cfg", "new.cfg"):
        (tmp_path / name).write_text((ROOT / "conf/ratelimit.cfg").read_text())
    (tmp_path / "tiers.map").write_text("")
    journal = tmp_path / "bin" / "journalctl"   # this machine has none of HAProxy's
    journal.parent.mkdir()
    journal.write_text("#!/bin/sh\ncat haproxy.log\n")
    journal.chmod(0o755)
    shown = []
    for path in ("contrib/man/ratelimitctl.8", "conf/operations.md"):
        found = re.findall(r"(?m)^ *((?:\w.*\| )?ratelimitctl replay .*)$", (ROOT / path).read_text())
        assert len(found) >= 2, (path, found)
        shown += found
    env = environment({"PATH": f"{pathlib.Path(CTL).parent}:{journal.parent}:{os.environ['PATH']}"})
    for line in shown:
        line = line.replace("/var/log/haproxy.log", "var-log")
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, cwd=tmp_path,
                              env=env)
        assert done.returncode == DONE and not done.stderr, (line, done)
        assert re.match(r'5 requests in 4s|\{', done.stdout), (line, done)


# --- rules that look at the message ----------------------------------------------------------------

GATEWAY = '''
store: {{ state_file = ""; }};
rules = ( {{ name = "client"; match = {{ message = "check-grpc"; }}; per = [ "ip" ];
            algorithm = "fixed-window"; rate = "12/day"; }} );
'''


@pytest.mark.parametrize("word, denied", [("message=check-grpc ", 3), ("", 0), ("message=check ", 0)],
                         ids=["of its own", "none", "the usual one"])
def test_a_rule_for_one_message_is_judged_where_the_log_has_it(tmp_path, word, denied):
    cfg, log = tmp_path / "r.cfg", tmp_path / "haproxy.log"
    cfg.write_text(GATEWAY.format())
    log.write_text("".join(f'127.0.0.1 [21/Nov/2026:16:33:{i:02}.000] ray_gateway/head 200 3 rl=ok/client '
                           f'{word}err=- "POST /ray.rpc.RayletDriver/Init HTTP/2.0"\n' for i in range(15)))
    text, got = replay("-f", cfg, log)
    assert got["denied"] == denied and rules_of(got)["client"]["requests"] == (15 if denied else 0)
    assert rules_of(got)["client"]["missing"] == ([] if word else ["message"])
    assert ("not judged: client wants message, which no request in this log has\n" in text) == (not word)
    assert ('taken for "check"' in text) == (not word)


def test_the_log_of_the_gateway_in_the_example_says_its_message():
    text = (ROOT / "conf/examples/ray/haproxy.cfg").read_text()
    gateway = text.split("frontend ray_client\n")[1].split("\nbackend ")[0]
    assert " message=check-grpc " in re.search(r"(?m)^\tlog-format .*$", gateway)[0]
