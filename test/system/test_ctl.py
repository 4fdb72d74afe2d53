"""ratelimitctl before a real agent: every command, for people and as JSON, and its exit status."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest

import agent as agents
from agent import ROOT, SANITIZER, Result, environment, free_port, until

CTL = str(pathlib.Path(agents.BINARY).parent / "ratelimitctl")
TOKEN = "0123456789abcdef0123456789abcdef"
KEY = "a-key-that-nobody-may-see"
HASH = hashlib.sha256(KEY.encode()).hexdigest()
RULES = '''
{ name = "api"; per = [ "key|user|ip" ]; rate = { gold = "9/day"; default = "3/day"; }; },
{ name = "spy"; match = { path = "/spy/*"; }; per = [ "user" ]; rate = "1/day"; mode = "shadow"; },
{ name = "idle"; per = [ "ip" ]; rate = "1/day"; mode = "off"; }
'''
DONE, REFUSED, USAGE, AWAY = range(4)


def call(*args, env=None, typed="", cwd=None):
    """ratelimitctl to its end, with an environment that says nothing of an agent."""
    env = {"RATELIMIT_ADMIN": "", **(env or {})}
    done = subprocess.run([CTL, *map(str, args)], input=typed.encode("utf-8", "surrogateescape"),
                          capture_output=True, timeout=30, env=environment(env), cwd=cwd, check=False)
    result = Result(done.returncode, done.stdout.decode("utf-8", "surrogateescape"),
                    done.stderr.decode("utf-8", "surrogateescape"))
    assert not SANITIZER.search(result.stderr), result
    return result


class Ctl:
    """An agent, and ratelimitctl that asks it over its socket."""

    def __init__(self, run, tmp_path, token="", rules=RULES, top=""):
        self.socket = str(tmp_path / "adm.sock")
        self.port = free_port()
        self.top = (f'admin: {{ listen = [ "127.0.0.1:{self.port}", "{self.socket}" ]; '
                    f'token = "{token}"; }}; {top}')
        self.agent = run(rules=rules, top=self.top)
        self.agent.await_admin(self.socket)

    def __call__(self, *args, status=DONE, **kw):
        r = call(*args, "--socket", self.socket, **kw)
        assert r.status == status, r
        said = [x for x in r.stderr.splitlines() if ": warning: " not in x]
        assert not said if status == DONE else said[0].startswith("ratelimitctl: "), r
        return r

    def json(self, *args, **kw):
        return json.loads(self(*args, "--json", **kw).stdout)


@pytest.fixture
def ctl(run, tmp_path):
    return Ctl(run, tmp_path)


def table(text):
    """A table's rows as dictionaries: columns begin where their titles do, or end there."""
    lines = text.splitlines()
    return [line.split() for line in lines]


# --- seeing --------------------------------------------------------------------------------------

def test_status(ctl):
    for _ in range(4):
        ctl.agent.check({"user": "u", "path": "/"})
    got = until(lambda: (lambda j: j if j["checks"]["denied"] == 1 else None)(ctl.json("status")))
    assert got["checks"]["allowed"] == 3
    text = ctl("status").stdout
    assert "limiting     on; 3 rules, generation 1" in text, text
    assert "checks       3 allowed, 1 denied" in text and ctl.socket in text


def test_rules(ctl):
    for _ in range(4):
        ctl.agent.check({"user": "u", "tier": "gold"} if _ else {"user": "v"})
    until(lambda: ctl.json("rules", "api")["counts"]["allowed"] == 4)
    rows = table(ctl("rules").stdout)
    assert rows[0][:7] == ["RULE", "MODE", "APPLIED", "ALLOWED", "DENIED", "SHARE", "SHADOW"]
    assert rows[1][:8] == ["api", "enforce", "4", "4", "0", "0.0", "%", "0"]
    # What never applied is seen; a rule in shadow mode is never reported.
    assert [r[:5] for r in rows[2:]] == [
        ["spy", "shadow", "0", "0", "0"], ["idle", "off", "0", "0", "0"]]
    one = ctl("rules", "api").stdout
    assert "mode now     enforce" in one
    assert "rate.gold    9/day" in one and ["gold", "3", "0", "0.0", "%"] in table(one), one
    for _ in range(3):
        ctl.agent.check(user="u", tier="gold", path="/spy/x")
    until(lambda: ctl.json("rules", "spy")["counts"]["applied"] == 3)
    spy = [r for r in table(ctl("rules").stdout) if r[:1] == ["spy"]]
    assert spy[0][:8] == ["spy", "shadow", "3", "0", "0", "2", "66.7", "%"], spy
    gone = ctl("rules", "apo", status=REFUSED)
    assert 'did you mean "api"' in gone.stderr and not gone.stdout
    assert json.loads(ctl("rules", "apo", "--json", status=REFUSED).stdout)["status"] == 404


def test_top(ctl):
    nobody = ctl("top").stdout
    assert nobody.startswith("no client in the last ") and "no endpoint in the last " in nobody
    for _ in range(8):
        ctl.agent.check({"user": "loud", "method": "GET", "path": "/x"})
    got = until(lambda: ctl.json("top")["clients"]["items"] or None)
    assert got[0]["client"] == "user=loud" and got[0]["count"] == 5
    rows = table(ctl("top", "-n", "3", "--rule", "api", "--by", "denied").stdout)
    assert ["AT", "LEAST", "AT", "MOST", "RULE", "CLIENT"] in rows
    assert ["5", "5", "api", "user=loud"] in rows, rows
    assert ctl("top", "--by", "checked") and ctl("top", "--by", "cost")
    ctl("top", "--by", "fun", status=USAGE)
    ctl("top", "-n", "0", status=USAGE)
    ctl("top", "--rule", "apo", status=REFUSED)


def test_top_goes_on(ctl, tmp_path):
    out = tmp_path / "top"
    with open(out, "wb") as f:
        child = subprocess.Popen([CTL, "top", "-w", "-s", ctl.socket], stdout=f, env=environment())
    try:
        until(lambda: out.read_text().count("no client in the last ") >= 2)
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == -signal.SIGTERM


def test_events(ctl, tmp_path):
    out = [tmp_path / "people", tmp_path / "scripts"]
    children = []
    try:
        for path, more in zip(out, ([], ["--json", "--types", "change"])):
            with open(path, "wb") as f:
                children.append(subprocess.Popen([CTL, "events", "-s", ctl.socket, *more], stdout=f,
                                                 stderr=subprocess.DEVNULL, env=environment()))
        # Nobody tells when the first of them listens: something happens until both have heard it.
        def heard():
            ctl("override", "add", "user=ev", "--block", "--for", "1h")
            ctl.agent.check({"user": "ev"})
            return "  denied  " in out[0].read_text() and out[1].read_text().count("\n")
        until(heard)
        assert "  change  audit  " in out[0].read_text()
        events = [json.loads(x) for x in out[1].read_text().splitlines()]
        assert {e["type"] for e in events} == {"change"} and events[0]["event"] == "audit"
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
            child.wait(20)
    ctl("events", "--types", "nothing", status=USAGE)


# --- what clients send never steers a terminal ---------------------------------------------------

def test_control_characters_are_shown(ctl):
    ctl("override", "add", "user=\u202eá", "--block", "--reason", "b\u200baca\u0085use")
    text = ctl("override", "list").stdout
    assert "\\u{202E}á" in text and "b\\u{200B}aca\\u{85}use" in text, text
    assert "\u202e" not in ctl("override", "list", "--json").stdout


def test_names_of_clients_are_shown(ctl):
    name = "evil\x1b[2J\x07\u202e\u009bé"
    for _ in range(8):
        ctl.agent.check({"user": name})
    until(lambda: ctl.json("top")["clients"]["items"])
    for r in (ctl("top"), ctl("top", "--json")):
        assert not [c for c in r.stdout if (ord(c) < 32 and c != "\n") or c in "\u009b\u202e\x7f"], r
    ctl("override", "add", "user=\u202eá", "--block")
    got = ctl("override", "list").stdout
    assert "\\u{202E}á" in got and "it is removed" in got


def test_an_override_without_effect_is_listed_so(ctl):
    """Who lists them need not have seen the warning of the reload."""
    ctl("override", "add", "user=\u202eá", "--rate", "api=1/day")
    assert not ctl("override", "list").stderr
    ctl.agent.rewrite(rules=RULES.replace('"api"', '"renamed"'), top=ctl.top)
    ctl("reload")
    r = ctl("override", "list")
    assert r.stderr == 'ratelimitctl: warning: user=\\u{202E}á: there is no rule "api"\n', r
    assert "api 1/day" in r.stdout


# --- changing ------------------------------------------------------------------------------------

def test_reload(ctl):
    ctl.agent.rewrite(rules=RULES.replace("3/day", "4/day"), top=ctl.top)
    r = ctl("reload")
    assert r.stdout.startswith("generation 2: rules: api changed"), r
    assert ctl("reload").stdout == "generation 3: nothing has changed\n"
    ctl.agent.write("rules = ( { name = 3; } );\n")
    r = ctl("reload", status=REFUSED)
    assert f"{ctl.agent.path}:1: " in r.stderr and not r.stdout, r
    assert json.loads(ctl("reload", "--json", status=REFUSED).stdout)["errors"]


def test_reload_problems_of_no_line(ctl):
    """Of a file as a whole: no line is made up for them."""
    ctl.agent.rewrite(rules="", top=ctl.top)
    r = ctl("reload")
    assert r.stderr.startswith(f"ratelimitctl: {ctl.agent.path}: warning: there is no rule"), r
    warning, = ctl.json("reload")["warnings"]
    assert warning["file"] == str(ctl.agent.path) and warning["line"] is None, warning
    assert warning["message"].startswith("there is no rule"), warning


def test_overrides(ctl):
    def denied(args, n=5):
        return sum(ctl.agent.check(args)["deny"] for _ in range(n))
    assert ctl("override", "list").stdout == "there are no overrides\n"
    assert denied({"user": "al"}) == 2
    r = ctl("override", "add", "user=al", "--tier", "gold", "--for", "1h", "--reason", "he asked")
    assert "user=al" in r.stdout and "tier gold" in r.stdout and "he asked" in r.stdout, r
    until(lambda: not ctl.agent.check({"user": "al", "cost": 0})["deny"])
    ctl("override", "add", "ip=192.0.2.0/24", "--block", "--until", int(time.time()) + 3600)
    ctl("override", "add", "key=-", "--rate", "api=100/minute", "--rate", "api=1000/hour",
        typed=KEY + "\n")
    until(lambda: denied({"key": KEY}, 1) == 0 and denied({"ip": "192.0.2.7"}, 1) == 1)
    assert denied({"key": KEY}, 20) == 0
    got = {k: o for o in ctl.json("override", "list")["overrides"] for k in ("user", "key", "ip")
           if k in o}
    assert got["user"]["tier"] == "gold" and got["user"]["reason"] == "he asked"
    assert got["key"]["key"] == f"sha256:{HASH}" and got["ip"]["block"] is True
    text = ctl("override", "list").stdout
    assert "api 100/minute and 1000/hour" in text and KEY not in text
    assert ctl("override", "remove", f"key=sha256:{HASH}").stdout == f"removed: key:sha256:{HASH}\n"
    assert "nothing is set" in ctl("override", "remove", "user=nobody", status=REFUSED).stderr
    typo = ctl("override", "add", "user=cy", "--tier", "glod")
    assert "warning: this tier is listed by no rule" in typo.stderr and "tier glod" in typo.stdout
    for args in (["user=cy", "--tier", "glod"], ["ip=10.0.0.1/8", "--block"]):
        once = ctl("override", "add", *args).stderr.splitlines()
        assert len(once) == 1 and once[0].startswith("ratelimitctl: warning: "), once
        assert ctl("override", "add", *args, "--json").stderr.splitlines() == once
    ctl("override", "remove", "ip=10.0.0.0/8")
    half = ctl.json("override", "add", "user=half", "--block", "--for", "1800")  # seconds, as the interface has it
    assert half["until"] - half["since"] == 1800
    ctl("override", "add", "user=al", "--rate", "apo=1/day", status=REFUSED)
    # a rule's name may have a "=", a rate has none
    assert '"a=b"' in ctl("override", "add", "user=al", "--rate", "a=b=1/day", status=REFUSED).stderr
    for wrong in (["add", "user=al"], ["add", "--block"], ["add", "user=al", "--block", "--bypass"],
                  ["add", "host=x", "--block"], ["add", "user=al", "--rate", "api"], ["lst"],
                  ["list", "user=al"], ["remove"], ["remove", "user=al", "--tier", "gold"],
                  ["add", "user=al", "--block", "--for", "1h", "--until", "18:00"],
                  ["add", "user=al", "--block", "--until", "yesterday"],
                  ["add", "user=al", "--block", "--for", "1h30m"],
                  ["add", "user=al", "--block", "--for", "0"],
                  ["add", "user=", "--block"], ["add", f"key={KEY}", "--block"],
                  ["add", "key=sha256:abc", "--block"]):
        ctl("override", *wrong, status=USAGE)


def test_a_key_by_its_hash(ctl):
    """In either case; and what is no hash is nobody's key."""
    upper = f"sha256:{HASH.upper()}"
    assert f"key=sha256:{HASH}" in ctl("override", "add", f"key={upper}", "--block").stdout
    until(lambda: ctl.agent.check({"key": KEY})["reason"] == "blocked")
    assert ctl.json("explain", f"key={upper}")["override"]["for"] == f"key:sha256:{HASH}"
    assert ctl("override", "remove", "key=-", typed=upper + "\n").stdout == f"removed: key:sha256:{HASH}\n"
    for args, typed, status in (
            (["override", "add", "key=sha256:abc", "--block"], "", USAGE),
            (["override", "add", "key=-", "--block"], "sha256:abc\n", REFUSED),
            (["override", "remove", "key=-"], f"sha256:{HASH}0\n", REFUSED),
            (["explain", "key=-"], "sha256:xyz\n", REFUSED),
            (["reset", "key=-"], "sha256:xyz\n", REFUSED),
            (["override", "add", f"key=sha256:{HASH[:12]}", "--block"], "", USAGE),
            (["explain", "key=sha256:xyz"], "", USAGE)):
        assert "want 64 hex digits after sha256:" in ctl(*args, typed=typed, status=status).stderr


def test_a_line_of_input_is_the_whole_value_or_none(ctl, tmp_path):
    """What stands before a NUL, or before a CR within it, is another client's."""
    for typed in ("abc\0def\n", "abc\0", "\0abc\n", "abc\udcff\n", "", "a" * 16384):
        for args in (["override", "add", "key=-", "--block"], ["explain", "user=-"]):
            got = ctl(*args, typed=typed, status=USAGE)
            assert "-: want its value as a line" in got.stderr or ": want UTF-8" in got.stderr, got
            assert not got.stdout
    ctl("override", "add", "key=-", "--block", typed="abc\rdef\n")
    for typed in ("whole\n", "whole\r\n", "whole", "whole\nnext\n"):
        ctl("override", "add", "key=-", "--block", typed=typed)
    ctl("override", "add", "user=-", "--block", typed="a" * 255 + "\n")
    keys = {o["key"] for o in ctl.json("override", "list")["overrides"] if "key" in o}
    assert keys == {"sha256:" + hashlib.sha256(k).hexdigest() for k in (b"abc\rdef", b"whole")}
    token = tmp_path / "token"
    token.write_bytes(TOKEN.encode() + b"\0more\n")
    assert "want a token" in ctl("status", "--token-file", token, status=USAGE).stderr


def test_a_client_counted_by_key_is_found_by_what_is_shown_of_it(ctl):
    """As an operator has it: from a list, a line, HAProxy's log, or only by the customer's name."""
    nobody = ctl("explain", f"key=sha256:{HASH}", "ip=192.0.2.7").stdout
    assert nobody.startswith("not known: rule api counts by key, ") and "without that, allowed: " in nobody, nobody
    assert "no key whose hash begins so" in ctl("explain", f"key=sha256:{HASH[:12]}", status=REFUSED).stderr
    until(lambda: ctl.agent.check({"key": KEY, "user": "fred", "ip": "192.0.2.7"})["deny"])
    shown, = [x["client"] for x in ctl.json("top")["clients"]["items"]]
    assert shown == f"key=sha256:{HASH[:12]}"
    for key in (shown, f"key=sha256:{HASH}"):
        text = ctl("explain", key).stdout
        assert text.startswith("denied: limited, rule api; ") and f"\nkey: sha256:{HASH}\n" in text, text
        assert "note:" not in text
    text = ctl("explain", "user=fred", "ip=192.0.2.7").stdout
    assert text.startswith("allowed: ok")
    assert "\nnote: rule api counts by user=fred only requests without key: " in text, text
    assert ctl("reset", "user=fred").stdout.startswith("nothing was counted: api, ")
    assert ctl.agent.check({"key": KEY, "user": "fred"})["deny"]
    assert ctl("reset", shown).stdout.startswith("forgotten: api, ")
    assert not ctl.agent.check({"key": KEY, "user": "fred"})["deny"]


def test_bans(run, tmp_path):
    ctl = Ctl(run, tmp_path, rules='''{ name = "login"; per = [ "ip" ]; rate = "1/day";
              penalty = { after = "1/1m"; ban = "1h"; }; }''')
    assert ctl("ban", "list").stdout == "nobody is banned\n"
    until(lambda: ctl.agent.check({"ip": "192.0.2.1"})["reason"] == "banned")
    # The limit, of a day, is not asked while the ban holds: nobody promises that he passes then.
    got = ctl("explain", "ip=192.0.2.1").stdout
    assert re.match(r"denied: banned by rule \S+ as ip=192\.0\.2\.1; the ban ends in ", got) and "would pass" not in got
    ban, = ctl.json("ban", "list")["bans"]
    titles, row = table(ctl("ban", "list").stdout)
    assert titles[:3] == ["ID", "RULE", "CLIENT"] and row[:3] == [ban["id"], "login", "ip=192.0.2.1"]
    assert ctl("ban", "lift", ban["id"], "--reason", "a mistake").stdout == "lifted\n"
    until(lambda: ctl.json("ban", "list")["count"] == 0)
    assert "`ratelimitctl ban list`" in ctl("ban", "lift", ban["id"], status=REFUSED).stderr
    for wrong in (["lift"], ["list", "x"], ["x"]):
        ctl("ban", *wrong, status=USAGE)


def test_the_switch(ctl):
    def limited():
        return ctl.agent.check({"user": "s"})["deny"]
    until(limited)
    assert ctl("disable", "api", "--for", "1h", "--reason", "a test").stdout.startswith(
        "rule api: off until 2")
    until(lambda: not limited())
    assert ctl("enable", "api").stdout == "rule api: as the configuration has it\n"
    until(limited)
    assert ctl("disable").stdout == "all rules: off\n"
    until(lambda: not limited())
    assert "limiting     OFF" in ctl("status").stdout
    assert ctl.json("enable")["switches"] == []
    assert ctl("enable").stdout == "limiting: was not switched\n"
    assert ctl("disable", "--shadow", "--reason", "a drill").stdout == "all rules: shadow\n"
    ctl("disable", "api", "--for", "1h")
    text = ctl("status").stdout
    assert "limiting     SHADOW, no limit denies; 3 rules" in text, text
    assert "switched     all rules: shadow, without an end; a drill\n" in text, text
    assert "switched     rule api: off until 2" in text, text
    ctl("enable", "api", "--enforce")
    assert "limiting     SHADOW, but for rules with a switch of their own; 3" in ctl("status").stdout
    until(limited)
    ctl("enable", "api")
    ctl("enable")
    r = ctl("enable", "idle", status=REFUSED)
    assert "--enforce" in r.stderr
    assert ctl("enable", "idle", "--enforce").stdout == "rule idle: enforce\n"
    ctl("enable", "idle")
    r = ctl("enable", "--enforce")
    assert r.stdout == "all rules: enforce\n"
    assert r.stderr == 'ratelimitctl: warning: rule "idle" is off, and stays so: name it to switch it on\n'
    assert {x["name"]: x["mode"] for x in ctl.json("rules")["rules"]} == {
        "api": "enforce", "spy": "enforce", "idle": "off"}
    ctl("enable")
    for words in (["disable", ""], ["enable", ""], ["enable", "", "--enforce"]):
        assert "not empty" in ctl(*words, status=USAGE).stderr
    assert ctl.json("status")["switches"] == []
    ctl("enable", "apo", status=REFUSED)
    ctl("disable", "apo", status=REFUSED)
    ctl("enable", "--for", "1h", status=USAGE)
    ctl("enable", "--shadow", "--enforce", status=USAGE)


def test_reset(ctl):
    def left():
        return ctl.agent.check({"user": "r", "cost": 0})["remaining"]
    for what, says in ((["--rule", "api"], "all counters of rule api begin anew\n"),
                       (["--all"], "all counters of all rules begin anew\n")):
        ctl.agent.check({"user": "r"})
        assert left() == 2
        assert ctl("reset", *what, "--reason", "a test").stdout == says
        until(lambda: left() == 3)
    for user in "rs":
        ctl.agent.check({"user": user})
    said = ctl("reset", "user=r", "--reason", "a test").stdout.splitlines()
    assert said[0].startswith("forgotten: api, ") and said[0].endswith(", by user=r, of requests without key"), said
    said = ctl("reset", "user=nobody").stdout.splitlines()
    assert said[0] == "nothing was counted: api, 3/day, by user=nobody, of requests without key", said
    assert any(x.startswith("untouched: idle, which is off") for x in said), said
    assert left() == 3 and ctl.agent.check({"user": "s", "cost": 0})["remaining"] == 2
    assert ctl.json("reset", "user=r", "-r", "api")["counters"][0]["scope"] == "user"
    ctl("reset", "user=r", "-r", "apo", status=REFUSED)
    ctl("reset", "usr=r", status=REFUSED)
    ctl("reset", "user=r", "--all", status=USAGE)
    ctl("reset", "key=topsecret", status=USAGE)
    ctl("reset", "--rule", "apo", status=REFUSED)
    ctl("reset", status=USAGE)
    ctl("reset", "--all", "--rule", "api", status=USAGE)


def test_reset_leaves_what_all_share(run, tmp_path):
    ctl = Ctl(run, tmp_path, rules='''{ name = "api"; per = [ "user" ]; rate = "3/day"; },
              { name = "all"; per = []; rate = "9/day"; }''')
    ctl.agent.check({"user": "r"})
    said = ctl("reset", "user=r").stdout.splitlines()
    assert said[0].startswith("forgotten: api, ") and len(said) == 2
    assert said[1] == "left: all, which is shared by all: name the rule to reset it"
    assert ctl("reset", "user=r", "-r", "all").stdout.startswith("forgotten: all, ")


# --- who may, and where --------------------------------------------------------------------------

def test_the_token(run, tmp_path):
    ctl = Ctl(run, tmp_path, token=TOKEN)
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert "--token-file" in ctl("reload", status=REFUSED).stderr
    ctl("reload", env={"RATELIMIT_ADMIN_TOKEN": TOKEN})
    ctl("reload", "--token-file", file)
    ctl("reload", "--token-file", file, env={"RATELIMIT_ADMIN_TOKEN": "wrong"})
    ctl("reload", env={"RATELIMIT_ADMIN_TOKEN": "wrong"}, status=REFUSED)
    ctl("reload", "--token-file", tmp_path / "none", status=USAGE)
    ctl("reload", "--token-file", "/dev/null", status=USAGE)
    ctl("reload", env={"RATELIMIT_ADMIN_TOKEN": "a\r\nX: y"}, status=USAGE)
    assert TOKEN not in ctl.agent.stderr


def test_it_finds_the_agent(ctl):
    generation = '"generation": 1'
    for args, env in ((["-f", ctl.agent.path], {}), (["--url", f"http://127.0.0.1:{ctl.port}"], {}),
                      (["--url", f"127.0.0.1:{ctl.port}/"], {}),
                      (["-s", os.path.basename(ctl.socket)], {}),
                      ([], {"RATELIMIT_ADMIN": ctl.socket}),
                      ([], {"RATELIMIT_ADMIN": f"127.0.0.1:{ctl.port}"}),
                      ([], {"RATELIMIT_ADMIN": f"*:{ctl.port}"})):
        r = call("status", "--json", *args, env=env, cwd=os.path.dirname(ctl.socket))
        assert r.status == DONE and generation in r.stdout, (args, env, r)
    assert call("status", "-s", ctl.socket, "--url", "http://127.0.0.1:1").status == USAGE


def test_nobody_answers(tmp_path):
    port = free_port()
    for where in (["-s", tmp_path / "none.sock"], ["--url", f"http://127.0.0.1:{port}"]):
        for command in (["status"], ["rules"], ["top"], ["top", "-w"], ["explain", "ip=192.0.2.1"],
                        ["reset", "--all"], ["override", "list"], ["enable"], ["disable"],
                        ["reload"], ["events"], ["ban", "list"]):
            r = call(*command, *where)
            assert r.status == AWAY and not r.stdout, (command, r)
            assert r.stderr.startswith("ratelimitctl: no agent answers at "), r
        assert call("version", *where).status == DONE


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_who_may_not_connect_is_told_who_may(run):
    """And not asked whether it runs."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are root's alone
        os.chmod(folder, 0o755)
        ctl = Ctl(run, pathlib.Path(folder))
        own = shutil.copy(CTL, folder)
        done = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                               own, "status"], capture_output=True, text=True, check=False,
                              timeout=30, env=environment({"RATELIMIT_ADMIN": ctl.socket}))
    assert done.returncode == AWAY and not done.stdout, done
    assert "Permission denied" in done.stderr and "who may connect there: root" in done.stderr, done
    assert "is it running" not in done.stderr, done


def test_somebody_else_answers(tmp_path):
    """Neither an HTTP server of another kind, nor one that speaks nonsense, or not at all."""
    for says, status in ((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", REFUSED),
                         (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n"
                          b"Content-Length: 0\r\n\r\n", REFUSED),
                         (b"\x00\x01nonsense", AWAY), (b"", AWAY)):
        with socket.create_server(("127.0.0.1", 0)) as server:
            def serve():
                with server.accept()[0] as c:
                    c.recv(4096)
                    c.sendall(says)
            t = threading.Thread(target=serve)
            t.start()
            r = call("status", "--url", f"http://127.0.0.1:{server.getsockname()[1]}")
            t.join()
            assert r.status == status and r.stderr and not r.stdout, (says, r)


def test_events_however_they_are_cut():
    says = (b": a comment\n\nevent: denied\r\ndata: {\"time\":86400.5,\"level\":\"info\",\"event\":"
            b"\"denied\",\ndata: \"client\":\"user=\\u001b[2J\\u0000a\"}\n\nevent: x\ndata: no JSON\n\n"
            b"data: {\"n\": 1}\n\nevent: cut")
    for step in (1, 7, len(says)):
        for args in ([], ["--json"]):
            with socket.create_server(("127.0.0.1", 0)) as server:
                def serve(step=step, server=server):
                    with server.accept()[0] as c:
                        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        c.recv(4096)
                        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                  b"Connection: close\r\n\r\n")
                        for i in range(0, len(says), step):
                            c.sendall(says[i:i + step])
                t = threading.Thread(target=serve)
                t.start()
                r = call("events", *args, "--url", f"127.0.0.1:{server.getsockname()[1]}")
                t.join()
            assert r.status == AWAY and "ended" in r.stderr, r
            if args:
                assert [json.loads(x) for x in r.stdout.splitlines()] == [
                    {"type": "denied", "time": 86400.5, "level": "info", "event": "denied",
                     "client": "user=\x1b[2J\0a"}, {"type": "message", "n": 1}]
            else:
                first, second = r.stdout.splitlines()
                assert first.endswith("  denied  client=user=\\u{1B}[2J\\u{0}a"), first
                assert second.endswith("  message  n=1"), second


def test_numbers_of_events_are_as_the_agent_wrote_them():
    numbers = ["1795433155.472", "1795433155.001", "0.8", "86400.5", "7", "1795433155.0"]
    says = "".join(f'data: {{"time":{n},"n":{n}}}\n\n' for n in numbers).encode()
    for args in ([], ["--json"]):
        with socket.create_server(("127.0.0.1", 0)) as server:
            def serve(server=server):
                with server.accept()[0] as c:
                    c.recv(4096)
                    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                              b"Connection: close\r\n\r\n" + says)
            t = threading.Thread(target=serve)
            t.start()
            lines = call("events", *args, "--url", f"127.0.0.1:{server.getsockname()[1]}").stdout.splitlines()
            t.join()
        if args:
            assert lines == [f'{{"time":{n},"n":{n},"type":"message"}}' for n in numbers], lines
        else:
            assert [x.split("  n=")[1] for x in lines] == numbers, lines


# --- without an agent ----------------------------------------------------------------------------

def test_usage():
    for args in ([], ["stauts"], ["status", "more"], ["status", "--tier", "x"], ["--nothing"],
                 ["explain"], ["explain", "ip"], ["explain", "=x"], ["explain", f"key={KEY}"],
                 ["explain", "key=-", "user=-"], ["explain", "key=-"], ["rules", "a", "b"],
                 ["explain", "ip=::1", "ip=::2"]):
        r = call(*args, "-s", "/nowhere") if args else call()
        assert r.status == USAGE and r.stderr and not r.stdout, (args, r)
    assert 'did you mean "status"' in call("stauts").stderr
    assert "key=-" in call("explain", f"key={KEY}").stderr
    for args in (["-h"], ["--help"], ["help"], ["help", "-h"]):
        r = call(*args)
        assert r.status == DONE and r.stdout == call("-h").stdout and "  override" in r.stdout, (args, r)
    for args in (["override", "-h"], ["-h", "override"], ["help", "override"]):
        r = call(*args)
        assert r.status == DONE and r.stdout.startswith("usage: ratelimitctl override [OPTIONS] add|"), (args, r)
    assert call("status", "-h").stdout.startswith("usage: ratelimitctl status [OPTIONS]\n")
    assert 'did you mean "status"' in call("help", "stauts").stderr
    for args in (["status", "--version"], ["help", "nothing"], ["help", "--nothing"]):
        r = call(*args)
        assert r.status == USAGE and r.stderr and not r.stdout, (args, r)


def test_help_that_nobody_got_is_not_done(tmp_path):
    cfg = tmp_path / "x.cfg"
    cfg.write_text("rules = ();\n")
    for args in ("-h", "help", "top -h", "help override", f"check-config -f {cfg}"):
        for out in (">/dev/full", ">&-"):
            done = subprocess.run(["sh", "-c", f'"$0" {args} {out}', CTL], capture_output=True, text=True,
                                  check=False, timeout=30, env=environment())
            assert done.returncode == REFUSED, (args, out, done)
            assert done.stderr.endswith("ratelimitctl: standard output cannot be written\n"), (args, out, done)


def test_check_config(tmp_path):
    good = tmp_path / "good.cfg"
    good.write_text("rules = ();\n")
    bad = tmp_path / "bad.cfg"
    bad.write_text("enabeld = true;\nagent: { drain = 3; };\n")
    r = call("check-config", "-f", good)
    assert (r.status, r.stdout) == (DONE, "Configuration file is valid\n")
    r = call("check-config", "-f", good, "-f", bad)
    assert r.status == REFUSED and not r.stdout, r
    assert f"{bad}:1: " in r.stderr and f"{bad}:2: " in r.stderr
    got = json.loads(call("check-config", "--json", "-f", bad).stdout)
    assert got["valid"] is False and len(got["problems"]) == 2
    assert call("check-config", "-f", tmp_path / "none.cfg").status == REFUSED


def test_version(ctl):
    own, its = ctl("version").stdout.splitlines()
    number = own.removeprefix("ratelimitctl ")
    assert its == f"agent {number} at {ctl.socket}"
    assert ctl.json("version") == {"ratelimitctl": number, "agent": number}
    for option in ("-v", "--version"):
        assert ctl(option).stdout.splitlines() == [own, its]
    assert ctl.json("--version") == ctl.json("version")


def test_explain_offline(tmp_path):
    file = tmp_path / "x.cfg"
    (tmp_path / "tiers.map").write_text(f"sha256:{HASH} gold\n")
    file.write_text('identity: { tiers_file = "tiers.map"; default_tier = "anonymous"; };\n'
                    'block = ( { ip = "192.0.2.0/24"; } );\n' + f"rules = ( {RULES} );\n")

    def explain(*args, typed=""):
        r = call("explain", "-f", file, *args, typed=typed)
        assert r.status == DONE and not r.stderr, r
        return r.stdout, json.loads(call("explain", "-f", file, *args, "--json", typed=typed).stdout)
    text, got = explain("ip=198.51.100.1", "path=/x")
    assert text.startswith("allowed: ok, rule api\ntier: anonymous"), text
    rules = {r["name"]: r for r in got["rules"]}
    assert rules["api"]["counts_by"] == "ip=198.51.100.1"
    assert rules["api"]["limits"][0]["remaining"] == 2
    assert rules["spy"]["why"] == "does not match: path is another" and rules["idle"]["why"] == "is off"
    for args, typed in ((["key=-"], KEY + "\n"), ([f"key=sha256:{HASH}"], "")):
        text, got = explain(*args, typed=typed)
        assert got["tier"] == "gold" and got["decision"]["limit"] == 9, got
        assert got["rules"][0]["counts_by"] == f"key=sha256:{HASH[:12]}" and KEY not in text
    assert explain("ip=192.0.2.3")[1]["decision"] == {"deny": True, "reason": "blocked", "warn": False}
    text, got = explain("user=al", "cost=4", "path=/spy/x")
    assert got["decision"]["reason"] == "oversize" and got["decision"]["shadow"] == "spy"
    assert "never passes" in text
    text, _ = explain("endpoint=GET:/x")
    assert "ignored: endpoint, which is made of method and path" in text
    r = call("explain", "-f", file, "ip=192.0.2.1.example")
    assert r.status == USAGE and "want an IPv4 or IPv6 address" in r.stderr, r


# --- secrets -------------------------------------------------------------------------------------

def test_no_secret_in_the_process_list(tmp_path):
    """While it waits for an answer: neither key nor token in its arguments."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = subprocess.Popen(
            [CTL, "explain", "key=-", "--url", f"http://127.0.0.1:{server.getsockname()[1]}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment({"RATELIMIT_ADMIN_TOKEN": TOKEN}))
        child.stdin.write(KEY.encode() + b"\n")
        child.stdin.close()
        with server.accept()[0] as c:
            sent = b""
            while KEY.encode() not in sent:
                sent += c.recv(4096)
            head = sent.split(b"\r\n")[0]
            line = pathlib.Path(f"/proc/{child.pid}/cmdline").read_bytes()
        assert child.wait(20) == AWAY
        child.stdout.close()
        child.stderr.close()
    assert b"Authorization: Bearer " + TOKEN.encode() in sent
    assert KEY.encode() not in line and TOKEN.encode() not in line and KEY.encode() not in head


# --- completion, manual ------------------------------------------------------------------------------

COMPLETION = ROOT / "contrib/completion"


def commands():
    """What ratelimitctl -h tells: commands, and each one's options."""
    names = re.findall(r"(?m)^  ([a-z-]+)  +\w", call("-h").stdout)
    assert len(names) > 10, names
    return {n: set(re.findall(r"(?m)^  (?:-\w, )?(--[\w-]+)", call(n, "-h").stdout)) for n in names}


def anywhere():
    """And the options that it has without a command."""
    return set(re.findall(r"(?m)^  (?:-\w, )?(--[\w-]+)", call("-h").stdout))


def complete(*words):
    """What bash offers for the last of these words."""
    quoted = " ".join(f"'{w}'" for w in ("ratelimitctl", *words))
    script = (f"source {COMPLETION}/ratelimitctl.bash; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; "
              '_ratelimitctl; printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False,
                          env=environment({"PATH": f"{os.path.dirname(CTL)}:{os.environ['PATH']}"}))
    assert done.returncode == 0 and not done.stderr, done
    return set(done.stdout.split())


def test_completion_of_bash(ctl):
    assert subprocess.run(["bash", "-n", COMPLETION / "ratelimitctl.bash"], check=False).returncode == 0
    known = commands()
    assert complete("") == set(known) and complete("--") == anywhere()
    for name, options in known.items():
        assert complete(name, "--") == options, name
    assert complete("--json", "ov") == {"override"} and complete("override", "a") == {"add"}
    assert complete("top", "--by", "") == {"denied", "checked", "cost", "shadow"}
    script = f"source {COMPLETION}/ratelimitctl.bash; _ratelimitctl_rules"
    env = environment({"PATH": f"{os.path.dirname(CTL)}:{os.environ['PATH']}",
                       "RATELIMIT_ADMIN": ctl.socket})
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == ["api", "spy", "idle"]


def test_completion_of_zsh():
    text = (COMPLETION / "_ratelimitctl").read_text()
    known = commands()
    listed = re.search(r"(?s)commands=\((.*?)\n\t\)", text).group(1)
    assert set(re.findall(r"'([a-z-]+):", listed)) == set(known)
    for name in known:
        assert re.search(rf"(?m)^\t\t(?:.* \| )?{name}(?: \| .*)?\)", text), name
    options = set(re.findall(r"(--[a-z][a-z-]*)\b", text))
    assert options == anywhere().union(*known.values())
    if shutil.which("zsh"):
        assert subprocess.run(["zsh", "-n", COMPLETION / "_ratelimitctl"], check=False).returncode == 0


def test_the_manual_has_all():
    text = (ROOT / "contrib/man/ratelimitctl.8").read_text()
    known = commands()
    for name in known:
        assert re.search(rf"(?m)^\.(It )?Ic {name}( |$)", text), name
    for option in anywhere().union(*known.values()):
        assert re.search(rf"(?m)^\.It Fl (\w , )?{option[1:]}( |$)", text), option
