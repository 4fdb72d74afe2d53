"""The configuration file: its grammar, its traps, and what is said of every mistake."""

import hashlib
import re

import pytest

from agent import check_file, config, execute

HEAD = 'agent: { listen = [ "127.0.0.1:9600" ]; };\n'
RULE = '{ name = "r"; per = [ "user" ]; rate = "5/day"; }'
GOOD = HEAD + f"rules = (\n{RULE}\n);\n"


def put(tmp_path, text, name="x.cfg"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems(result, path):
    """[(line, message)] of one file."""
    return [(int(n), text) for n, text in
            re.findall(rf"^{re.escape(str(path))}:(\d+): (.+)$", result.stderr, re.M)]


def is_valid(path, **kw):
    r = check_file(path, **kw)
    assert r.status == 0 and "Configuration file is valid" in r.stdout, r
    return r


def is_refused(path, line, word="", of=None, args=(), **kw):
    """Exit 1, nothing on stdout, and a problem at this line that has this word."""
    r = check_file(path, *args, **kw)
    assert r.status == 1 and not r.stdout, r
    found = problems(r, of or path)
    assert found, r
    if line is not None:
        assert any(n == line and re.search(word, text, re.I) for n, text in found), (line, word, r)
    else:
        assert any(re.search(word, text, re.I) for _, text in found), (word, r)
    return r


def rule(**settings):
    base = {"name": '"r"', "per": '[ "user" ]', "rate": '"5/day"'}
    base.update(settings)
    return "{ " + " ".join(f"{k} = {v};" for k, v in base.items() if v is not None) + " }"


def rules(*several):
    return HEAD + "rules = (\n" + ",\n".join(several) + "\n);\n"


# --- what the contract shows is valid --------------------------------------------------------

WHOLE = """
enabled = true;
agent: {
  listen          = [ "127.0.0.1:9600", "[::1]:9600", "/run/x.sock" ];
  threads         = 0;
  max_connections = 1024;
  max_frame_size  = 16380;
  allow_from      = [];
  socket_mode     = "0660";
  drain           = "2s";
  header_format   = "ietf-11";
  variables       = [ "deny", "reason", "limit" ];
};
store: { backend = "memory"; max_keys = 1000000; state_file = ""; };
redis: {
  mode       = "single";
  servers    = [ "127.0.0.1:6379" ];
  master     = "mymaster";
  username   = ""; password = "${REDIS_PASSWORD:-}"; db = 0;
  prefix     = "rl:";
  timeout    = "20ms";
  hash_secret = "";
  on_failure = "local";
  instances  = 1;
};
log: { target = "stderr"; format = "text"; level = "info"; };
identity: {
  ipv4_prefix  = 32;   ipv6_prefix = 64;
  secret       = [ "key" ];
  tiers_file   = "tiers.map";
  default_tier = "anonymous";
};
allow = ( { ip = [ "10.0.0.0/8", "::1" ]; }, { user = "monitor"; } );
block = ( { ip = "192.0.2.0/24"; } );
rules = (
  { name = "login";
    match     = { endpoint = "POST:/auth/*"; };
    per       = [ "ip" ];
    algorithm = "fixed-window";
    rate      = [ "5/5m", "10/hour" ]; },
  { name = "api";
    match     = { path = [ "/api/*", "/v2/*" ]; };
    per       = [ "key|user|ip" ];
    algorithm = "token-bucket";
    rate      = { anonymous = "5/minute"; free = "10/minute"; premium = "50/minute burst 100";
                  enterprise = [ "200/minute burst 500", "10000/hour" ]; };
    warn_at   = 0.8; },
  { name = "everything"; per = []; rate = "10000/minute"; mode = "shadow"; }
);
"""


def test_the_example_of_the_contract(tmp_path):
    put(tmp_path, "alice premium\n", "tiers.map")
    whole = put(tmp_path, WHOLE)
    r = check_file(whole)
    # The redis group is read when the backend is redis; beside memory it does no harm.
    assert r.status == 0, r


@pytest.mark.parametrize("text", [
    GOOD, GOOD.replace("\n", "\r\n"), GOOD.rstrip("\n"), GOOD.replace("= (", "=("),
    "# @include \"missing\"\n// @include \"missing\"\n/* @include \"missing\" */\n" + GOOD,
    rules(rule(match='{ path = [ "/api/*", "/v2/*" ]; }')),
    rules(rule(match='{ path = "/a\\"/*"; }')) + "# */\n",
    rules(rule(name='"@include"', tag='"# no comment // here /* either"')),
    rules(rule(per="[]"), rule(name='"s"', match='{ user = "!*bot*"; x = [ "a", "!b" ]; }')),
    rules(rule(rate='( { tier = "2024-gold"; rate = "5/minute"; }, '
                    '{ tier = "default"; rate = [ "1/minute", "5/hour" ]; } )')),
    "enabled = \"false\";\n" + GOOD,
    HEAD + "rules = ();\n",
    HEAD,
    "enabled : true;\n" + GOOD,
])
def test_valid(tmp_path, text):
    is_valid(put(tmp_path, text))


# --- unknown and doubled settings ------------------------------------------------------------

@pytest.mark.parametrize("text, line, wrong, right", [
    ("enabeld = true;\n" + GOOD, 1, "enabeld", "enabled"),
    ("agnet: { };\n" + GOOD, 1, "agnet", "agent"),
    (HEAD + f"rule = ( {RULE} );\n", 2, "rule", "rules"),
    ('agent: {\nlisten = [ "127.0.0.1:9600" ];\nmax_conections = 5; };\n', 3, "max_conections",
     "max_connections"),
    (GOOD + "store: {\n max_key = 5; };\n", 6, "max_key", "max_keys"),
    (GOOD + "log: {\n formt = \"json\"; };\n", 6, "formt", "format"),
    (GOOD + "identity: {\n\n ipv6_prefx = 64; };\n", 7, "ipv6_prefx", "ipv6_prefix"),
    (rules('{ name = "r"; per = [ "ip" ];\n rate = "5/day";\n algoritm = "fixed-window"; }'), 5,
     "algoritm", "algorithm"),
    (rules('{ name = "r"; per = [ "ip" ];\n rate = "5/day";\n mtach = { user = "x"; }; }'), 5,
     "mtach", "match"),
])
def test_unknown_settings(tmp_path, text, line, wrong, right):
    r = is_refused(put(tmp_path, text), line, rf"{wrong}\b.*\b{right}\b")
    assert len(r.stderr.splitlines()) <= 2, r


@pytest.mark.parametrize("text, line", [
    ("enabled = true;\nenabled = false;\n" + GOOD, 2),
    (HEAD + HEAD + f"rules = ( {RULE} );\n", 2),
    (rules('{ name = "r"; per = [ "ip" ];\n rate = "5/day";\n rate = "6/day"; }'), 5),
])
def test_a_setting_twice(tmp_path, text, line):
    is_refused(put(tmp_path, text), line)


def test_a_rule_name_twice(tmp_path):
    is_refused(put(tmp_path, rules(RULE, RULE)), None, r"\br\b")


# --- values ----------------------------------------------------------------------------------

@pytest.mark.parametrize("group, setting", [
    ("agent", "threads = -1"), ("agent", 'threads = "many"'), ("agent", "threads = 1.5"),
    ("agent", "threads = 1000000"), ("agent", "max_connections = 0"),
    ("agent", "max_connections = -5"), ("agent", "max_frame_size = 255"),
    ("agent", "max_frame_size = 2147483647"), ("agent", 'allow_from = [ "10.0.0.0/33" ]'),
    ("agent", 'allow_from = [ "example.org" ]'), ("agent", 'socket_mode = "0999"'),
    ("agent", 'socket_mode = "rw"'), ("agent", 'drain = "2"'), ("agent", 'drain = "2 years"'),
    ("agent", 'drain = "-2s"'), ("agent", 'drain = 2'), ("agent", 'header_format = "ietf-3"'),
    ("agent", 'variables = [ "deny", "dany" ]'),
    ("store", 'backend = "disk"'), ("store", "max_keys = 0"), ("store", "max_keys = -1"),
    ("store", "state_file = 7"), ("log", 'target = "relative/file"'), ("log", 'target = ""'),
    ("log", 'format = "xml"'), ("log", 'level = "loud"'), ("log", "level = true"),
    ("identity", "ipv4_prefix = 33"), ("identity", "ipv4_prefix = -1"),
    ("identity", "ipv6_prefix = 129"),
    ("identity", 'tiers_file = "missing.map"'), ("identity", 'tiers_file = "."'),
])
def test_values_out_of_range(tmp_path, group, setting):
    listen = 'listen = [ "127.0.0.1:9600" ];\n' if group == "agent" else "\n"
    rest = "" if group == "agent" else HEAD.rstrip("\n")
    text = f"{rest}{group}: {{ {listen}{setting};\n }};\nrules = ( {RULE} );\n"
    is_refused(put(tmp_path, text), 2, setting.split()[0])


@pytest.mark.parametrize("listen", [
    '"localhost"', '"127.0.0.1"', '"127.0.0.1:"', '"127.0.0.1:70000"', '"127.0.0.1:http?"',
    '"::1:9600x"', '"[::1]"', '"relative/path"', '""', '7', '"[::1:9600"',
    '"/' + "x" * 120 + '"',
])
def test_bad_listeners(tmp_path, listen):
    is_refused(put(tmp_path, f"agent: {{\n listen = [ {listen} ]; }};\nrules = ( {RULE} );\n"), 2)


@pytest.mark.parametrize("setting", [
    'name = ""', "name = 5", 'per = [ "" ]', 'per = [ "a||b" ]', 'per = [ "|a" ]', "per = 5",
    'algorithm = "leaky-bucket"', 'mode = "on"', 'mode = "shadw"', 'action = "allow"',
    'warn_at = 1.5', 'warn_at = -0.1', 'warn_at = "much"', 'count_denied = "perhaps"',
    'rate = 5', 'rate = []', 'rate = [ "5/day", 6 ]',
    'match = { ip = "10.0.0.0/33"; }', 'match = { ip = [ "10.0.0.0/8", "x" ]; }', 'match = "x"',
    'match = { path = { x = 1; }; }', 'action = "tga"',
])
def test_bad_rules(tmp_path, setting):
    name, what = setting.split(" = ", 1)
    r = rule(**{name: None})
    text = rules(r[:-1] + f"\n{setting}; }}").replace("\n\n", "\n")
    is_refused(put(tmp_path, text), 4)
    assert what


@pytest.mark.parametrize("missing", ["name", "rate"])
def test_a_rule_must_have(tmp_path, missing):
    is_refused(put(tmp_path, rules(rule(**{missing: None}))), None, missing)


# --- rates -----------------------------------------------------------------------------------

@pytest.mark.parametrize("rate", [
    "5/minute", "5/second", "5/hour", "5/day", "5/week", "5/1m", "5/10s", "5/5m", "5/1h", "5/1d",
    "5 per minute", "5 per 10s", "5/minute burst 10", "5/minute burst 1", "5 per hour burst 7",
    "unlimited", "0/minute", "1000000000/day", "5/minute burst 1000000000", "5/366d", "1/1s",
    "5/1000ms", "5/90m",
])
def test_rates(tmp_path, rate):
    is_valid(put(tmp_path, rules(rule(rate=f'"{rate}"'))))


@pytest.mark.parametrize("rate", [
    "", " ", "5", "/minute", "5/", "-5/minute", "+5/minute", "5.5/minute", "5/fortnight",
    "1000000001/day", "5/367d", "5/999ms", "5/500ms", "5/0s", "5/minute burst 0", "5/minute burst",
    "5/minute burst 1000000001", "5/minute burst -1", "5/minute bust 7", "5/minute 7",
    "5/minuteburst 7", "99999999999999999999/minute", "5/18446744073709551617s", "0x5/minute",
    "5/minutes and more", "five/minute", "5//minute", "5/m", "5/-1s", "5/1s5", "5/1h30", "5 minute",
    "5/month", "unlimited burst 5", "5/minute burst 10 burst 20", "5/1.5h",
    "5/9223372036854775807d",
])
def test_bad_rates(tmp_path, rate):
    r = is_refused(put(tmp_path, rules(rule(rate=None)[:-1] + f'\nrate = "{rate}"; }}')), 4)
    assert len(problems(r, tmp_path / "x.cfg")) == 1, r


@pytest.mark.parametrize("algorithm, rate, valid", [
    ("fixed-window", "5/month", True), ("sliding-window", "5/month", False),
    ("token-bucket", "5/month", False), ("fixed-window", "5/day burst 7", False),
    ("sliding-window", "5/day burst 7", False), ("fixed-window", "5/week", True),
    ("sliding-window", "5/week", True), ("fixed-window", "unlimited", True),
])
def test_rates_and_algorithms(tmp_path, algorithm, rate, valid):
    text = rules(rule(rate=None)[:-1] + f'\nalgorithm = "{algorithm}"; rate = "{rate}"; }}')
    path = put(tmp_path, text)
    is_valid(path) if valid else is_refused(path, 4)


@pytest.mark.parametrize("several, valid", [
    ('[ "5/minute", "50/hour" ]', True), ('[ "5/hour", "6/hour" ]', False),
    ('[ "5/1h", "6/hour" ]', False), ('[ "5/60s", "6/minute" ]', False),
    ('[ "5/60m", "6/hour", "7/day" ]', False), ('[ "5/7d", "6/week" ]', False),
    ('[ "5/24h", "6/1d" ]', False), ('[ "5/minute", "x" ]', False),
])
def test_lists_of_rates(tmp_path, several, valid):
    path = put(tmp_path, rules(rule(rate=several)))
    is_valid(path) if valid else is_refused(path, 3)


def test_at_most_32_limits_for_a_tier(tmp_path):
    def several(n):
        return "[ " + ", ".join(f'"5/{60 + i}s"' for i in range(n)) + " ]"
    is_valid(put(tmp_path, rules(rule(rate=several(32)))))
    is_refused(put(tmp_path, rules(rule(rate=several(33)))), None, "32")
    names = [f'"r{i}"' for i in range(33)]
    is_valid(put(tmp_path, rules(*(rule(name=n) for n in names[:32]))))
    is_refused(put(tmp_path, rules(*(rule(name=n) for n in names))), None, "32")
    # Tiers do not add up: each has its own 32. What `default` gives counts for every other.
    each = f"{{ gold = {several(32)}; silver = {several(32)}; default = {several(32)}; }}"
    is_valid(put(tmp_path, rules(rule(rate=each))))
    is_refused(put(tmp_path, rules(rule(rate=each), rule(name='"s"', rate='{ gold = "5/day"; }'))),
               None, "32")
    is_refused(put(tmp_path, rules(
        rule(rate=f"{{ default = {several(32)}; silver = \"5/day\"; }}"),
        rule(name='"s"', rate='{ gold = "5/day"; }'))), None, "32")


# --- patterns --------------------------------------------------------------------------------

@pytest.mark.parametrize("pattern, valid", [
    ("/auth/login", True), ("/auth/*", True), ("*", True), ("*/login", True), ("*//x", True),
    ("/", True), ("/a%2Fb", True), ("/a\\\\*b", True), ("!/admin/*", True), ("/a/", True),
    ("/a//b", False), ("/a/../b", False), ("/a/./b", False), ("/%61uth", False), ("/a%2fb", False),
    ("/a?b=c", False), ("/a#b", False), ("//a", False), ("/a/..", False), ("/a/.", False),
])
def test_patterns_in_normal_form(tmp_path, pattern, valid):
    path = put(tmp_path, rules(rule(match=f'{{\npath = "{pattern}"; }}')))
    is_valid(path) if valid else is_refused(path, 4)


# --- the environment -------------------------------------------------------------------------

def test_values_from_the_environment(run):
    env = {"NAME": "from-env", "RATE": "7", "EMPTY": "", "MAX": "17", "SHADOW": "shadow"}
    a = run(rules='{ name = "x-${NAME}-${UNSET:-default}-${EMPTY:-empty}${EMPTY}$"; '
                  'per = [ "user" ]; rate = "${RATE}/day"; warn_at = "${WARN:-0.5}"; },'
                  '{ name = "s"; per = [ "user" ]; rate = "1/day"; mode = "${SHADOW:-off}"; }',
            agent='max_connections = "${MAX}"; max_frame_size = "${MFS:-1000}";',
            top='enabled = "${ON:-true}";', env=env)
    with a.connect() as c:
        assert c.greeting["size"] == 1000
    answer = a.check(user="u")
    assert answer["rule"] == "x-from-env-default-empty$"
    assert (answer["limit"], answer["remaining"]) == (7, 6)
    assert a.check(user="u")["shadow"] == "s"


@pytest.mark.parametrize("value, reason", [("false", "disabled"), ("true", "ok"), ("", "ok")])
def test_the_switch_from_the_environment(run, value, reason):
    a = run(rules=RULE, top='enabled = "${RATELIMIT_ON:-true}";', env={"RATELIMIT_ON": value})
    assert a.check(user="u")["reason"] == reason


@pytest.mark.parametrize("setting, env, word", [
    ('max_connections = "${UNSET_A}"', {}, "UNSET_A"), ('max_connections = "${A}"', {"A": "x"}, ""),
    ('max_connections = "${A}"', {"A": ""}, ""), ('max_connections = "${A}"', {"A": "1 2"}, ""),
    ('max_connections = "${A}"', {"A": "99999999999999999999"}, ""),
    ('drain = "${A"', {"A": "2s"}, ""), ('drain = "${}"', {}, ""), ('drain = "${A-B}"', {}, ""),
    ('drain = "${A B}"', {}, ""),
])
def test_the_environment_is_wrong(tmp_path, setting, env, word):
    text = f'agent: {{ listen = [ "127.0.0.1:9600" ];\n{setting}; }};\nrules = ( {RULE} );\n'
    is_refused(put(tmp_path, text), 2, word, env=env)


def test_the_environment_is_no_configuration(tmp_path):
    """A value cannot bring settings of its own."""
    path = put(tmp_path, HEAD + 'rules = ( { name = "${A}"; per = []; rate = "5/day"; } );\n')
    is_valid(path, env={"A": 'x"; mode = "off'})


# --- traps of libconfig ----------------------------------------------------------------------

@pytest.mark.parametrize("broken, line", [
    (GOOD + "/* open\n", 5), ("/* a\n*/ /* open\n" + GOOD, 2), (GOOD + "x = \"open\n", 5),
    (GOOD.replace(");", ""), None), (GOOD + "}", 5), (GOOD + "rules", 5), (GOOD + "= 5;\n", 5),
], ids=["comment", "second comment", "string", "list", "brace", "word", "value"])
def test_the_grammar(tmp_path, broken, line):
    is_refused(put(tmp_path, broken), line)


@pytest.mark.parametrize("number", [
    "4294967297", "0x100000001", "4294967296", "8589934593", "18446744073709551617", "4294967297L",
    "-4294967295", "99999999999999999999999999", "2147483648",
])
def test_integers_do_not_wrap(tmp_path, number):
    text = f'agent: {{ listen = [ "127.0.0.1:9600" ];\nmax_connections = {number}; }};\n'
    is_refused(put(tmp_path, text), 2)


@pytest.mark.parametrize("octets", [b"\0", b"\0 enabled = false;\n", b"\xff\xfe", b"\x01"])
def test_odd_bytes_drop_nothing_in_silence(tmp_path, octets):
    path = put(tmp_path, GOOD.encode() + octets + b"\nthredas = 4;\n")
    r = check_file(path)
    assert r.status == 1, r


def test_includes_start_from_the_file_that_names_them(run, tmp_path):
    put(tmp_path, '@include "inner/deep.cfg"\n', "sub/one.cfg")
    put(tmp_path, '{ name = "deep"; per = [ "user" ]; rate = "5/day"; }', "sub/inner/deep.cfg")
    put(tmp_path, '{ name = "decoy"; per = [ "user" ]; rate = "9/day"; }', "inner/deep.cfg")
    a = run(rules='@include "sub/one.cfg"\n')
    assert a.check(user="u")["rule"] == "deep"


def test_errors_in_an_include_name_it(tmp_path):
    sub = put(tmp_path, "\n\nthredas = 4;\n", "sub/one.cfg")
    path = put(tmp_path, '@include "sub/one.cfg"\n' + GOOD)
    is_refused(path, 3, "thredas", of=sub)
    sub.write_text("x = = 5;\n")
    is_refused(path, 1, of=sub)
    sub.write_text("# fine\n/* open\n")
    is_refused(path, 2, of=sub)


@pytest.mark.parametrize("target", [".", "/", "missing.cfg", "sub", "", "/dev/null/x"])
def test_includes_that_cannot_be_read(tmp_path, target):
    (tmp_path / "sub").mkdir()
    is_refused(put(tmp_path, f'# one\n@include "{target}"\n' + GOOD), 2)


@pytest.mark.parametrize("what, said", [("missing.cfg", "cannot be opened"), ("${NOBODY_SET_IT}", "NOBODY_SET_IT"),
                                        ("${NOBODY_SET_IT:-}", "the path is empty"), (".", "is a folder")])
def test_what_cannot_be_included_hides_nothing(tmp_path, what, said):
    path = put(tmp_path, f'foo = 1;\n@include "{what}"\n{GOOD}enabled = "maybe";\n')
    r = is_refused(path, 2, said)
    assert [n for n, _ in problems(r, path)] == [2, 1, 7], r


def test_what_is_written_is_nothing_that_is_read(tmp_path):
    put(tmp_path, "alice gold\n", "tiers.map")
    put(tmp_path, "# empty\n", "more.cfg")
    (tmp_path / "other-name.cfg").symlink_to("x.cfg")
    for state, log, lines in (
            ("x.cfg", "/dev/null", [2]), ("more.cfg", "/dev/null", [2]), ("tiers.map", "/dev/null", [2]),
            ("other-name.cfg", "/dev/null", [2]), ("st", tmp_path / "x.cfg", [3]),
            ("st", tmp_path / "tiers.map", [3]), ("st", tmp_path / "st", [2]), ("st", tmp_path / "st.changes", [2]),
            ("x", "/dev/null", []), ("st", tmp_path / "log", [])):
        path = put(tmp_path, f'@include "more.cfg"\nstore: {{ state_file = "{state}"; }};\nlog: {{ target = "{log}"; }};\n'
                   'identity: { tiers_file = "tiers.map"; };\n' + GOOD)
        r = check_file(path)
        assert [n for n, x in problems(r, path) if "want a file of its own" in x] == lines, (state, log, r)
        assert r.status == bool(lines), r
    for name in ("st.tmp", "st.changes", "st.changes.tmp", "st.lock"):
        path = put(tmp_path, 'store: { state_file = "st"; };\n' + GOOD, name)
        is_refused(path, 1, re.escape(name) + " is a file of this configuration.*a file of its own")


def test_includes_in_a_circle(tmp_path):
    put(tmp_path, '@include "x.cfg"\n', "y.cfg")
    path = put(tmp_path, '@include "y.cfg"\n' + GOOD)
    r = check_file(path)
    assert r.status == 1 and re.search(r"[xy]\.cfg:\d+: ", r.stderr), r
    itself = put(tmp_path, '@include "z.cfg"\n' + GOOD, "z.cfg")
    is_refused(itself, 1)


def test_many_includes(tmp_path):
    for i in range(30):
        put(tmp_path, f"# {i}\n", f"i{i}.cfg")
    path = put(tmp_path, "".join(f'@include "i{i}.cfg"\n' for i in range(30)) + GOOD)
    is_valid(path)


def test_an_include_that_is_a_comment_or_a_text(tmp_path):
    is_valid(put(tmp_path, GOOD.replace('"r"', '"a @include \\"missing\\""') +
                 '/*\n@include "missing"\n*/\n# @include "missing"\n'))


def test_very_long_things(tmp_path):
    is_valid(put(tmp_path, "#" + "x" * 200000 + "\n" + GOOD))
    many = ",\n".join(f'{{ user = "u{i}"; }}' for i in range(5000))
    is_valid(put(tmp_path, GOOD + f"allow = (\n{many}\n);\n"))
    deep = "x = " + "{ a = " * 3000 + "1;" + " };" * 3000
    assert check_file(put(tmp_path, deep + GOOD)).status == 1
    deep = "rules = " + "( " * 20000 + " )" * 20000 + ";\n"
    assert check_file(put(tmp_path, HEAD + deep)).status == 1


# --- several files ---------------------------------------------------------------------------

def test_several_files_append_their_lists(run, tmp_path):
    more = put(tmp_path, """
        rules = ( { name = "second"; per = [ "user" ]; rate = "5/day"; } );
        allow = ( { user = "boss"; } );
        log: { level = "debug"; };""", "more.cfg")
    last = put(tmp_path, """rules = ( { name = "third"; per = [ "user" ]; rate = "5/day"; } );
        allow = ( { user = "chief"; } );""", "last.cfg")
    a = run(rules='{ name = "first"; per = [ "user" ]; rate = "5/day"; }',
            top='allow = ( { user = "monitor"; } );', args=["-f", more, "-f", last])
    # On a tie the first in the file is reported.
    assert a.check(user="u")["rule"] == "first"
    for user in ("boss", "chief", "monitor"):
        assert a.check(user=user)["reason"] == "bypassed"
    a.rewrite('{ name = "first"; per = [ "other" ]; rate = "5/day"; }')
    a.reload(lambda: a.check(user="u", cost=0)["rule"] == "second")


@pytest.mark.parametrize("second", [
    "enabled = true;\n", 'agent: { max_connections = 5; };\n', 'log: { level = "error"; };\n'])
def test_several_files_give_a_setting_once(tmp_path, second):
    one = put(tmp_path, 'enabled = true;\nlog: { level = "info"; };\n' + GOOD.replace(
        "agent: {", "agent: { max_connections = 6;"))
    two = put(tmp_path, second, "two.cfg")
    is_refused(one, 1, of=two, args=["-f", two])


def test_a_rule_name_in_two_files(tmp_path):
    one, two = put(tmp_path, GOOD), put(tmp_path, f"\nrules = ( {RULE} );\n", "two.cfg")
    is_refused(one, 2, of=two, args=["-f", two])


def test_errors_of_several_files_come_together(tmp_path):
    one = put(tmp_path, "\nenabeld = true;\n" + GOOD)
    two = put(tmp_path, "\n\nlog: { level = 5; };\n", "two.cfg")
    r = execute("-c", "-f", one, "-f", two)
    assert r.status == 1 and problems(r, one)[0][0] == 2 and problems(r, two)[0][0] == 3, r


def test_a_missing_second_file(tmp_path):
    r = execute("-c", "-f", put(tmp_path, GOOD), "-f", tmp_path / "missing.cfg")
    assert r.status == 1 and "missing.cfg" in r.stderr, r


# --- the tiers file --------------------------------------------------------------------------

TIERED = """{ name = "r"; per = [ "user|key" ];
	rate = { gold = "9/day"; silver = "7/day"; iron = "5/day"; default = "3/day"; }; }"""


def sha(text):
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_tiers_file(run, tmp_path):
    put(tmp_path, "# comment\n\n  alice   gold  \nbob\tsilver\r\n"
        f"k-plain iron\n{sha('k-hashed')} gold\n"
        "weird#name gold\nlast silver", "maps/tiers.map")
    a = run(rules=TIERED, top='identity: { tiers_file = "maps/tiers.map"; };')

    def tier(**who):
        answer = a.check(cost=0, **who)
        return answer["tier"], answer["limit"]
    assert tier(user="alice") == ("gold", 9)
    assert tier(user="bob") == ("silver", 7)
    assert tier(user="last") == ("silver", 7)
    assert tier(key="k-plain") == ("iron", 5)
    assert tier(key="k-hashed") == ("gold", 9)
    assert tier(key=b"k-hashed") == ("gold", 9)
    assert tier(key=sha("k-hashed")) == ("anonymous", 3)
    assert tier(user="nobody") == ("anonymous", 3)
    assert tier(user="Alice") == ("anonymous", 3)
    # The message first, then by key, then by user.
    assert tier(user="alice", key="k-plain", tier="silver") == ("silver", 7)
    assert tier(user="alice", key="k-plain") == ("iron", 5)
    assert tier(user="alice", key="unknown") == ("gold", 9)
    assert tier(user="alice", tier="") == ("gold", 9)
    assert tier(user="alice", tier=None) == ("gold", 9)
    assert tier(user="alice", tier="unlisted") == ("unlisted", 3)


@pytest.mark.parametrize("text", ["alice\n", "sha256:12 gold\n", f"sha256:{'g' * 64} gold\n"])
def test_a_bad_tiers_file(tmp_path, text):
    tiers = put(tmp_path, "# one\n" + text, "tiers.map")
    path = put(tmp_path, config("127.0.0.1:9600", TIERED,
                                top='identity: { tiers_file = "tiers.map"; };'))
    is_refused(path, 2, of=tiers)


def test_a_tier_that_no_rule_lists_is_a_warning(tmp_path):
    put(tmp_path, "alice gold\nbob glod\n", "tiers.map")
    path = put(tmp_path, config("127.0.0.1:9600", TIERED,
                                top='identity: { tiers_file = "tiers.map"; };'))
    r = is_valid(path)
    assert re.search(r"tiers\.map:2: .*glod", r.stderr), r
    assert "alice" not in r.stderr
    put(tmp_path, "alice gold\n", "tiers.map")
    assert not is_valid(path).stderr.strip()


def test_a_large_tiers_file(run, tmp_path):
    put(tmp_path, "".join(f"user-{i} {'gold' if i % 2 else 'silver'}\n" for i in range(100000)),
        "tiers.map")
    a = run(rules=TIERED, top='identity: { tiers_file = "tiers.map"; };')
    for i in (0, 1, 49999, 50000, 99999):
        assert a.check(user=f"user-{i}")["tier"] == ("gold" if i % 2 else "silver")
