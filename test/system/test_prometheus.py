"""contrib/prometheus and contrib/grafana: they ask for nothing that the agent does not tell, every
alert fires when it should and not when it should not, and a real Prometheus takes all of it."""

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml

import alerts
from agent import ROOT, Process, free_port, until
from test_admin import Admin

both_stores = pytest.mark.parametrize("store", ("memory", "redis"), indirect=True, scope="module")
HERE = ROOT / "contrib/prometheus"
RULES = [HERE / "recording.yml", HERE / "alerts.yml"]
DASHBOARD = json.loads((ROOT / "contrib/grafana/spoa-ratelimit.json").read_text())
needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="needs prometheus and promtool (Debian: prometheus)")

AGENT_RULES = '''
{ name = "api"; per = [ "user" ]; rate = { gold = "9/day"; default = "3/day"; }; },
{ name = "spy"; per = [ "user" ]; rate = "1/day"; mode = "shadow"; }
'''
# Prometheus makes these by itself.
ITS_OWN = {"up", "ALERTS"}
WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless",
         "bool", "offset", "inf", "nan"}


# --- what they ask for ---------------------------------------------------------------------------

def rules():
    return [r for f in RULES for g in yaml.safe_load(f.read_text())["groups"] for r in g["rules"]]


def panels(of=DASHBOARD):
    for p in of["panels"]:
        yield p
        yield from panels(p) if p.get("panels") else ()


def expressions():
    """(where, PromQL) of the whole dashboard, but for the variables' queries."""
    for p in panels():
        for t in p.get("targets", ()):
            yield f'{p["title"]}/{t["refId"]}', t["expr"]
    for a in DASHBOARD["annotations"]["list"]:
        yield a["name"], a["expr"]


def variables():
    return [v for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]


def names(promql):
    """The metrics, and the labels, that an expression asks for."""
    text = re.sub(r'"(\\.|[^"\\])*"', '""', promql)
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"\"", text))
    for group in re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", text):
        labels.update(re.findall(r"\w+", group))
    text = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    text = re.sub(r"\{[^}]*\}|\[[^]]*\]|\$\w+", " ", text)
    metrics = {n for n, call in re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)\s*(\(?)", text)
               if not call and n.lower() not in WORDS}
    return metrics, labels


def test_names_are_found():
    """What finds them, tried on what it has to tell apart."""
    assert names('sum by (job, le) (rate(a_total{x="by {b}", y!~"z"}[5m])) / on (i) group_left (v) '
                 '(b:c > 1e3 and d offset 5m)') == (
        {"a_total", "b:c", "d"}, {"job", "le", "x", "y", "i", "v"})


@pytest.fixture
def busy(run, tmp_path):
    """An agent that has allowed, denied and been sent nonsense: series appear with their first use."""
    admin = Admin(run, tmp_path, rules=AGENT_RULES)
    traffic(admin, 0)
    with admin.agent.connect() as c:
        c.sock.sendall(b"\x00\x00\x00\x07\x63\x00\x00\x00\x01\x00\x00")
        until(lambda: admin.value("ratelimit_frames_bad_total") == 1)
    return admin


def traffic(admin, n):
    for _ in range(5):
        admin.agent.check(user=f"u{n}")
    admin.agent.check(user=f"g{n}", tier="gold")


def told(admin):
    """Every name of a sample that /metrics has, or will have, and every label."""
    families, samples = admin.samples()
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return ({f.name + e for f in families for e in endings[f.type]},
            {k for _, labels in samples for k, _ in labels} | {"job", "instance"})


@both_stores
def test_nothing_is_asked_for_that_is_not_there(busy, store):
    metrics, labels = told(busy)
    recorded = {r["record"] for r in rules() if "record" in r}
    asked = [(r.get("record") or r["alert"], r["expr"]) for r in rules()] + list(expressions())
    asked += [(v["name"], re.fullmatch(r"label_values\((.*), (\w+)\)", v["query"]["query"])
               .expand(r"count by (\2) (\1)")) for v in variables()]
    assert len(asked) > 100
    for where, promql in asked:
        of_metrics, of_labels = names(promql)
        assert of_metrics, (where, promql)
        lacking = of_metrics - metrics - recorded - ITS_OWN
        if store == "memory":
            lacking = {n for n in lacking if not n.startswith("ratelimit_redis_")}
        assert not lacking, f"{where} asks for {lacking}, which /metrics has not"
        assert not of_labels - labels - {"alertname", "alertstate"}, (where, of_labels - labels)
    # What texts speak of is there as well.
    if store == "redis":
        for f in [*RULES, ROOT / "contrib/grafana/spoa-ratelimit.json"]:
            for n in re.findall(r"(?<![\w:])(?:ratelimit|process)_\w+", f.read_text()):
                assert n in metrics, f"{f.name}: {n}"
    shown = {v["name"] for v in DASHBOARD["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) <= shown
    legends = {x for p in panels() for t in p.get("targets", ())
               for x in re.findall(r"\{\{\s*(\w+)\s*\}\}", t["legendFormat"])}
    assert legends <= labels


def test_every_metric_is_shown():
    """None of conf/admin.md's metrics is on no panel."""
    of = (ROOT / "conf/admin.md").read_text().split("## Metrics")[1]
    listed = re.findall(r"^\| `(\w+)` \| \w+ \|", of, re.M)
    assert len(listed) > 60
    shown = " ".join(e for _, e in expressions())
    # Sums of these are shown by reason, and by rule.
    by_label = re.compile(r"ratelimit_checks_(limited|oversize|disabled|shadow|tagged|warned)_total")
    left_out = {"ratelimit_redis_lease_blocks_total", "ratelimit_redis_refunds_total",
                "ratelimit_redis_connects_total", "ratelimit_busy_polls_total",
                "ratelimit_state_file_up", "ratelimit_redis_changes_up"}   # an alert has it
    lacking = {n for n in listed if n not in shown and not by_label.fullmatch(n)} - left_out
    assert not lacking, f"no panel of contrib/grafana shows {lacking}: one should, or left_out say so"


def test_the_dashboard_is_in_order():
    all_of = list(panels())
    assert len({p["id"] for p in all_of}) == len(all_of)
    taken = set()
    for p in all_of:
        g = p["gridPos"]
        assert g["x"] + g["w"] <= 24, p["title"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert not cells & taken, f'{p["title"]} lies on another panel'
        taken |= cells
        if p["type"] != "row":
            assert p["description"].endswith(".") and p["targets"], p["title"]
            assert p["fieldConfig"]["defaults"]["unit"], p["title"]
            assert p["datasource"]["uid"] == "${datasource}", p["title"]


def test_alerts_say_what_to_do():
    for r in rules():
        if "record" in r:
            continue
        a = r["annotations"]
        assert r["alert"].startswith("Ratelimit") and set(a) == {"summary", "description", "guide"}
        assert r["labels"]["severity"] in ("critical", "warning"), r["alert"]
        assert len(a["description"]) > 60 and a["description"].endswith("."), r["alert"]
        path, _, part = a["guide"].partition("#")
        headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.M)
        assert not part or part in [h.lower().replace(" ", "-") for h in headings], r["alert"]
    guide = (HERE / "README.md").read_text()
    assert not [r["alert"] for r in rules() if "alert" in r and f'`{r["alert"]}`' not in guide]


# --- promtool ------------------------------------------------------------------------------------

def promtool(*argv, cwd=None):
    return subprocess.run(["promtool", *map(str, argv)], cwd=cwd, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, check=False, timeout=120)


@needs_prometheus
def test_promtool_likes_them():
    for argv in (("check", "config", HERE / "prometheus.yml"), ("check", "rules", *RULES)):
        done = promtool(*argv)
        assert done.returncode == 0 and "FAILED" not in done.stdout, done.stdout + done.stderr


def unit_tests(tmp_path, cases):
    path = tmp_path / "unit.yml"    # JSON is YAML
    path.write_text(json.dumps({"rule_files": [str(f) for f in RULES], "evaluation_interval": "1m",
                                "tests": cases}))
    return promtool("test", "rules", path)


def test_each_alert_has_both_cases():
    both = {r["alert"] for r in rules() if "alert" in r}
    assert {name for name, _, _ in alerts.FIRING} == both == {name for name, _, _ in alerts.QUIET}


@needs_prometheus
def test_alerts_fire_when_they_should(tmp_path):
    cases = [alerts.case(name, series, at, {name}) for name, series, at in alerts.FIRING]
    done = unit_tests(tmp_path, cases)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_and_not_when_they_should_not(tmp_path):
    cases = [alerts.case(name, series, at, set()) for name, series, at in alerts.QUIET]
    done = unit_tests(tmp_path, [alerts.case("all is well", {}, "75m", set()), *cases])
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_their_texts_are_whole(tmp_path):
    """promtool is told that none of them fires, and says what did: with the texts filled in."""
    done = unit_tests(tmp_path, [alerts.wrong(name, series, at) for name, series, at in alerts.FIRING])
    said = done.stdout + done.stderr
    for name, _, _ in alerts.FIRING:
        assert f'alertname="{name}"' in said, said
    texts = re.findall(r'summary="(.*?)"\}', said)
    assert len(texts) >= len(alerts.FIRING)
    for text in texts:
        assert not re.search(r"error expanding|<no value>|\{\{|^ | $|NaN", text), text


# --- a real Prometheus ---------------------------------------------------------------------------

class Prometheus(Process):
    def __init__(self, directory, target):
        self.port = free_port()
        text = (HERE / "prometheus.yml").read_text().replace("127.0.0.1:9601", target)
        text = re.sub(r"(scrape|evaluation)_interval: 15s", r"\1_interval: 1s", text)
        (directory / "prometheus.yml").write_text(text)
        for f in RULES:
            shutil.copy(f, directory)
        super().__init__(["prometheus", "--config.file=prometheus.yml", "--log.level=warn",
                          f"--storage.tsdb.path={directory / 'tsdb'}",
                          f"--web.listen-address=127.0.0.1:{self.port}"], directory, "prometheus")

    def start(self):
        super().start()
        until(self.ready, "Prometheus to be ready")
        return self

    def ready(self):
        assert self.running, self.stderr
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as a:
                return a.status == 200
        except OSError:
            return False

    def ask(self, what, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as a:
                return json.load(a)["data"]
        except urllib.error.HTTPError as e:
            raise AssertionError(f"{query}: {e.read().decode()}") from None

    def query(self, promql):
        return self.ask("query", query=promql)["result"]

    def finish(self):
        if self.running:
            self.stop()
        self.kill()


def filled(promql):
    """As Grafana sends it, with all agents and rules chosen."""
    return (promql.replace("$__rate_interval", "1m").replace("$instance", ".*")
            .replace("$rule", ".*"))


@needs_prometheus
@both_stores
def test_a_real_prometheus(busy, store, tmp_path, ends):
    prometheus = ends(Prometheus(tmp_path, f"127.0.0.1:{busy.port}"))
    until(lambda: prometheus.query('up{job="spoa-ratelimit"} == 1'), "the first scrape")
    target, = prometheus.ask("targets")["activeTargets"]
    assert target["health"] == "up" and not target["lastError"], target

    # Every panel has something to show: with the memory store, every one that is not about Redis.
    # The annotations, and what is above, tell of what has not happened yet.
    wanted = {w: filled(e) for p in panels() for t in p.get("targets", ())
              for w, e in [(f'{p["title"]}/{t["refId"]}', t["expr"])]
              if store == "redis" or "ratelimit_redis_" not in e}
    turn = 0

    def all_there():
        nonlocal turn
        turn += 1
        traffic(busy, turn)
        for where in [w for w, e in wanted.items() if prometheus.query(e)]:
            del wanted[where]
        return not wanted
    try:
        until(all_there, "a sample for each panel", 40)
    except AssertionError:
        raise AssertionError(f"these show nothing: {wanted}") from None
    for _, e in expressions():
        prometheus.query(filled(e))
    assert prometheus.query("min(ratelimit_store_up)")[0]["value"][1] == "1"

    # Its rules are all taken and give no error; nothing is wrong yet.
    def evaluated():
        of = [r for g in prometheus.ask("rules")["groups"] for r in g["rules"]]
        return all(r["health"] == "ok" for r in of) and of
    got = until(evaluated, "all rules to be evaluated")
    assert sorted(r["name"] for r in got) == sorted(r.get("record") or r["alert"] for r in rules())
    until(lambda: prometheus.query("instance:ratelimit_checks:rate5m > 0"), "a recorded rate")
    assert not [a for a in prometheus.ask("alerts")["alerts"] if a["state"] == "firing"]

    # And one of them, from the agent to the alert.
    busy.agent.write("rules = (")
    assert busy.ask("/api/v1/reload", "POST", headers={"Authorization": f"Bearer {busy.token}"}
                    ).status == 422

    def refused():
        return [a for a in prometheus.ask("alerts")["alerts"]
                if a["labels"]["alertname"] == "RatelimitReloadRefused" and a["state"] == "firing"]
    alert, = until(refused, "an alert for the refused reload")
    assert alert["labels"]["instance"] == f"127.0.0.1:{busy.port}"
    assert alert["annotations"]["summary"].startswith(f"127.0.0.1:{busy.port} refused a reload")
