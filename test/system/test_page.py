"""The page of the admin interface, in a real browser: that it is live, that nothing in it runs but its
own script, that it can be used without a mouse and on a phone, and that changes go through."""

import base64
import hashlib
import re
import signal
import threading

import pytest

import browser as browsers
import redisd
from agent import ROOT, until
from spop import Connection
from test_admin import BEARER, TOKEN, Admin
from test_admin_changes import change, override

HOSTILE = '"><img src=x onerror=hit()><script>hit()</script>\'&lt;'
RULES = '''
{ name = "api"; per = [ "user" ]; rate = "3/day"; },
{ name = "wide"; per = [ "ip" ]; rate = { default = "100000/second"; free = "100/minute"; premium = "600/minute burst 1000";
  enterprise = [ "6000/minute burst 10000", "100000/day" ]; }; },
{ name = "login"; match = { path = "/login"; }; per = [ "ip" ]; rate = "1/day";
  penalty = { after = "2/1m"; ban = "10m"; }; }
'''


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browsers.needed()
    browser = browsers.Browser(tmp_path_factory.mktemp("browser"))
    try:
        yield browser.start()
    finally:
        browser.finish()


@pytest.fixture
def admin(run, tmp_path):
    return Admin(run, tmp_path, rules=RULES)


@pytest.fixture
def page(chromium, admin):
    """The page of an agent, that complained of nothing in the end."""
    chromium.admin = admin
    chromium.url = f"http://127.0.0.1:{admin.port}/"
    opened(chromium)
    yield chromium
    # A refusal that a test provoked is in the console by its status.
    rest = [c for c in chromium.complaints() if not re.search(r"status of (401|422)", c)]
    assert rest == []


def opened(page, **kw):
    page.open(page.url, **kw)
    until(lambda: page.text("state") == "serving", "the first numbers")
    return page


def unlock(page, token=TOKEN):
    page.element("lock").click()
    page.element("token").send_keys(token + "\n")


def unlocked(page):
    unlock(page)
    until(lambda: page.text("override-form"), "the forms")


def decide(admin, n, **fields):
    for _ in range(n):
        admin.agent.check(**fields)


# --- what is sent --------------------------------------------------------------------------------

def test_what_is_sent(admin):
    a = admin.ask("/")
    assert a.status == 200 and a.headers["Content-Type"] == "text/html; charset=utf-8"
    assert a.headers["Cache-Control"] == "no-store"
    assert a.text == (ROOT / "agent/admin/page.html").read_text()
    assert len(a.text.encode()) < 60_000
    policy = dict(p.split(" ", 1) for p in a.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'" and "unsafe" not in str(policy)
    for name, directive in (("style", "style-src"), ("script", "script-src")):
        found = re.findall(f"<{name}>(.*?)</{name}>", a.text, re.S)
        assert len(found) == 1, name
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"


def test_nothing_from_outside_and_no_markup_from_texts():
    text = (ROOT / "agent/admin/page.html").read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "localStorage",
                 "style=", "@import", " on"):
        assert not re.search(re.escape(word) + (r"\w+=" if word == " on" else ""), text), word
    urls = set(re.findall(r"https?://[^\s'\"`]+", text))
    assert urls == {"http://www.w3.org/2000/svg"}     # a name, not a place


def test_history(admin):
    decide(admin, 5, user="h", ip="10.0.0.1")
    def h():
        return admin.ask("/api/v1/history").json
    until(lambda: sum(h()["denied"]) == 2)
    got = h()
    assert sum(got["allowed"]) == 3 and got["next"] - got["first"] == len(got["allowed"])
    assert all(len(got[k]) == len(got["allowed"]) for k in ("denied", "shadow", "p50_us", "p99_us"))
    for p50, p99, n in zip(got["p50_us"], got["p99_us"], map(sum, zip(got["allowed"], got["denied"]))):
        assert (p50 is None and n == 0) or 0 < p50 <= p99
    more = admin.ask(f"/api/v1/history?after={got['next']}").json
    assert more["first"] == got["next"]
    assert admin.ask("/api/v1/history?after=999999").json["first"] == 0
    for wrong in ("x", "", "-1", "1abc", "1e400", "1%20"):
        assert admin.ask(f"/api/v1/history?after={wrong}").status == 400, wrong


# --- in the browser ------------------------------------------------------------------------------

def test_numbers_move(page):
    """Without a reload, and at once for who comes later."""
    stop = threading.Event()

    def load():
        with Connection(page.admin.agent.address) as c:
            while not stop.wait(0.01):
                c.check(user="u", ip="10.0.0.1")
    thread = threading.Thread(target=load)
    thread.start()
    try:
        until(lambda: page.text("denied") not in (None, "0 /s", "–"), "denials a second")
        first = page.text("checks-sub")
        until(lambda: page.text("checks-sub") != first, "another number")
        until(lambda: "%" in (page.text("share") or "") and page.text("share") != "0.0 %")
        until(lambda: re.search(r"\d (µs|ms|s)$", page.text("latency") or ""), "a latency")
        until(lambda: page.js("return document.querySelectorAll('#rules-body tr').length") == 3)
        until(lambda: page.js(
            "return document.querySelector('#rate-chart path.deny').getAttribute('d').length") > 20)
        opened(page)
        until(lambda: page.js("return shown.denied.some(n => n > 0)"), "what was before")
    finally:
        stop.set()
        thread.join()


def test_names_from_outside_are_text(page):
    admin = page.admin
    decide(admin, 5, user=HOSTILE, ip="10.0.0.1")
    body = f'{{"user": {__import__("json").dumps(HOSTILE)}, "bypass": true, "reason": "{HOSTILE[2:12]}"}}'
    a = admin.ask("/api/v1/overrides", "PUT", body=body, headers={
        "Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"})
    assert a.status == 200, a
    page.js("window.hits = 0; window.hit = () => hits++")
    until(lambda: HOSTILE in (page.text("overrides") or ""), "the name")
    page.js("showEvent('denial', arguments[0]); "
            "const t = { rule: 'api', client: arguments[0], endpoint: arguments[0], count: 1, error: 0 };"
            "showTop({ clients: { seconds: 9, items: [t] }, endpoints: { items: [t] } })", HOSTILE)
    assert page.js("return hits") == 0
    assert page.js("return document.querySelectorAll('img, script').length") == 1
    # Nor would a slip of the script let it in: the browser takes no text for markup here.
    with pytest.raises(Exception, match="TrustedHTML"):
        page.js("document.body.innerHTML = arguments[0]", HOSTILE)
    page.complaints()


def test_events_come_as_they_happen(page):
    """And a name in them is text, too."""
    admin = page.admin
    page.js("window.hits = 0; window.hit = () => hits++")
    decide(admin, 5, user=HOSTILE, ip="10.0.0.1")
    until(lambda: "denied" in (page.text("events-list") or ""), "the denial")
    admin.agent.send_signal(signal.SIGHUP)
    until(lambda: "reloaded" in page.text("events-list"), "the reload")
    assert page.js("return hits") == 0
    page.element("events-hold").click()
    assert page.js("return document.getElementById('events-hold').ariaPressed") == "true"
    # Not for ever: what is shown is bounded.
    page.js("for (let i = 0; i < 500; i++) showEvent('denied', '{}')")
    assert page.js("return document.querySelectorAll('#events-list li').length") == 100


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [browsers.PHONE, browsers.DESK], ids=["phone", "desk"])
def test_it_fits_and_can_be_read(page, size, dark):
    decide(page.admin, 30, user="alice", ip="10.0.0.1")
    opened(page, size=size, dark=dark)
    unlocked(page)
    page.picture(f"{'dark' if dark else 'light'}-{size[0]}")
    assert page.js(WIDER, size[0]) == []
    assert page.js(BROKEN) == []
    back = page.js("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back))) < 200) == dark
    assert page.js(CONTRAST) == []


# What reaches beyond the right edge, and so makes the page wider than its window.
WIDER = """
return document.documentElement.scrollWidth <= arguments[0] ? [] : [...document.querySelectorAll("body *")]
	.filter(e => e.checkVisibility() && e.getBoundingClientRect().right > arguments[0])
	.map(e => `${e.tagName} ${e.id} ${e.textContent.slice(0, 30)}`);
"""
# Words of ordinary length in tables that go on in another line.
BROKEN = """
const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
	const node = walk.currentNode;
	if (!node.parentElement.closest("td")?.checkVisibility())
		continue;
	for (const word of node.data.matchAll(/[a-z]{3,15}/g)) {
		const range = document.createRange();
		range.setStart(node, word.index);
		range.setEnd(node, word.index + word[0].length);
		if (new Set([...range.getClientRects()].map(r => Math.round(r.top))).size > 1)
			found.push(word[0]);
	}
}
return found;
"""
# Texts with less contrast to what is behind them than WCAG's AA wants.
CONTRAST = """
const rgb = c => (c.match(/[\\d.]+/g) || []).map(Number);
const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
	return .2126 * r + .7152 * g + .0722 * b; };
const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
return [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && !e.closest("svg")
	&& [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
	const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e));
	return [e.tagName, e.textContent.slice(0, 30), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
}).filter(([, , ratio]) => ratio < 4.5);
"""


def test_without_a_mouse(page):
    """Tab reaches everything there is to use, in the order in which it is shown."""
    from selenium.webdriver import ActionChains, Keys
    unlocked(page)
    until(lambda: page.js("return document.querySelectorAll('#rules-body button').length") == 6)
    controls = """
        return [...document.querySelectorAll("a[href], button, input, select, textarea, [tabindex='0']")]
            .filter(e => e.checkVisibility() && !e.disabled)"""
    wanted = page.js(controls + ".length")
    page.js("window.seen = []; document.addEventListener('focusin', e => seen.push(e));"
            "document.querySelector('.skip').focus()")
    visible = 1
    for _ in range(wanted - 1):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        visible += page.js("return getComputedStyle(document.activeElement).outlineStyle !== 'none'")
    missed = "const all = (() => {" + controls + "})(); return all.filter((e, i) => e !== seen[i]?.target)"
    assert page.js(missed + ".map(e => e.outerHTML)") == []
    assert visible == wanted
    # Each has a name for who does not see it.
    assert page.js("""return (() => {""" + controls + """})().filter(e => !(e.textContent.trim()
        || e.ariaLabel || e.labels?.length)).map(e => e.id)""") == []
    # A chart is walked with the arrows.
    page.js("document.getElementById('rate-chart').focus()")
    ActionChains(page.driver).send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT).perform()
    assert page.text("rate-read").startswith("2 s ago")
    assert page.js("return document.getElementById('rate-chart').ariaValueText").startswith("2 s ago")


# --- changes -------------------------------------------------------------------------------------

def test_nothing_to_change_without_the_token(page):
    unlock(page, "wrong")
    until(lambda: "not the token" in (page.text("token-error") or ""), "the error")
    assert not page.text("override-form")
    page.element("token-cancel").click()
    assert page.js("return sessionStorage.length + localStorage.length") == 0
    unlocked(page)
    page.element("lock").click()
    until(lambda: not page.text("override-form"))
    assert page.js("return sessionStorage.length") == 0 and TOKEN not in page.driver.page_source


def test_an_override_is_set_and_removed(page):
    admin = page.admin
    decide(admin, 3, user="bob", ip="10.0.0.2")
    assert admin.agent.check(user="bob", ip="10.0.0.2")["deny"]
    unlocked(page)
    page.element("o-who").send_keys("bob")
    page.element("o-for").send_keys("1h")
    page.element("o-reason").send_keys("a customer called\n")
    until(lambda: "user bob" in (page.text("overrides-body") or ""), "the override")
    assert "no limit" in page.text("overrides-body") and "a customer called" in page.text("overrides-body")
    until(lambda: not admin.agent.check(user="bob", ip="10.0.0.2")["deny"], "bob to pass")
    page.driver.find_element("css selector", "#overrides-body button").click()
    page.element("ask-do").click()
    until(lambda: not page.text("overrides-body"), "it to go")
    until(lambda: admin.agent.check(user="bob", ip="10.0.0.2")["deny"], "bob to be denied")


def test_an_override_without_effect_says_so(page):
    admin = page.admin
    override(admin, user="bob", rates={"api": "9/day"})
    until(lambda: "api: 9/day" in (page.text("overrides-body") or ""), "the override")
    assert "without effect" not in page.text("overrides-body")
    admin.agent.rewrite(RULES.replace('"api"', '"renamed"'), top=admin.top())
    change(admin, "/api/v1/reload", "POST")
    until(lambda: 'without effect: there is no rule "api"' in page.text("overrides-body"), "why")


def test_who_is_denied_most_is_helped(page):
    """From the list of who is denied most to an override: two fields are filled in."""
    admin = page.admin
    decide(admin, 9, user="bob", ip="10.0.0.2")
    unlocked(page)
    until(lambda: "user=bob" in (page.text("top-clients") or ""), "bob")
    page.driver.find_element("css selector", "[aria-label='Override for user=bob']").click()
    assert page.js("return document.activeElement.id") == "o-what"
    page.element("o-reason").send_keys("helped\n")
    until(lambda: not admin.agent.check(user="bob", ip="10.0.0.2")["deny"], "bob to pass")


def test_who_is_not_one_field_is_not_helped(chromium, run, tmp_path):
    """Several fields, or a part of one, would be another client's name."""
    admin = Admin(run, tmp_path, rules='''{ name = "both"; per = [ "user", "host" ]; rate = "1/day"; },
                  { name = "one"; match = { path = "/one"; }; per = [ "user" ]; rate = "1/day"; }''')
    chromium.admin = admin
    chromium.url = f"http://127.0.0.1:{admin.port}/"
    decide(admin, 3, user="bob", host="a.example")
    for user in ("eve+host=b.example", "m" * 200):
        decide(admin, 3, user=user, path="/one")
    unlocked(opened(chromium))
    until(lambda: "mmm" in (chromium.text("top-clients") or ""), "all of them")
    assert "user=bob+host=a.example" in chromium.text("top-clients")

    def helped():
        return chromium.js("return [...document.querySelectorAll('#top-clients .set')]"
                           ".filter(b => b.checkVisibility()).map(b => b.ariaLabel)")
    until(lambda: helped() == ["Override for user=eve+host=b.example"], "help for eve alone")


def test_why_somebody_is_denied(page):
    """From the list of who is denied most to the reason, with what is left of each limit."""
    admin = page.admin
    decide(admin, 9, user="bob", ip="10.0.0.2")
    until(lambda: "user=bob" in (page.text("top-clients") or ""), "bob")
    page.driver.find_element("css selector", "[aria-label='Explain user=bob']").click()
    until(lambda: (page.text("e-said") or "").startswith("Denied: limited, by rule api"), "why")
    assert "0 of 3" in page.text("e-rules") and "wide" in page.text("e-rules")
    fields = page.element("e-fields")
    fields.clear()
    fields.send_keys("user=eve ip=10.0.0.3\n")
    until(lambda: page.text("e-said").startswith("Allowed"), "another")
    decide(admin, 9, user='a "b" c', ip="10.0.0.4")
    fields.clear()
    fields.send_keys('ip=10.0.0.4  user="a \\"b\\" c"\n')
    until(lambda: 'user=a "b" c' in page.text("e-rules"), "one with blanks")
    fields.clear()
    fields.send_keys("nonsense=1\n")
    until(lambda: "no use to this configuration: nonsense" in page.text("e-said"), "the hint")


def test_what_was_explained_is_reset(page):
    """For this client alone; only with the token."""
    admin = page.admin
    for user in ("bob", "eve"):
        decide(admin, 9, user=user, ip="10.0.0.2")
    opened(page)
    page.element("e-fields").send_keys("user=bob\n")
    until(lambda: (page.text("e-said") or "").startswith("Denied"), "why")
    assert page.text("e-reset") is None
    unlocked(page)
    until(lambda: page.text("e-reset"), "the button")
    page.element("e-fields").clear()
    page.element("e-fields").send_keys("user=bob\n")
    until(lambda: (page.text("e-said") or "").startswith("Denied"), "why")
    page.element("e-reset").click()
    page.element("ask-reason").send_keys("a test")
    page.element("ask-do").click()
    until(lambda: (page.text("e-said") or "").startswith("Allowed"), "it to be shown")
    assert not admin.agent.check(user="bob")["deny"] and admin.agent.check(user="eve")["deny"]


def test_what_is_not_known_is_not_said_to_be_allowed(chromium, run, tmp_path):
    """A key's hash that the agent has not seen; whom a counter is not for; a reset of nothing."""
    page = chromium
    page.admin = Admin(run, tmp_path, rules='{ name = "keys"; per = [ "key|user" ]; rate = "3/day"; }')
    page.url = f"http://127.0.0.1:{page.admin.port}/"
    opened(page)
    fields = page.element("e-fields")
    fields.send_keys(f"key=sha256:{'0' * 64}\n")
    until(lambda: (page.text("e-said") or "").startswith("Not known: rule keys counts by key"), "that")
    assert "Without that: Allowed: ok" in page.text("e-said")
    unlocked(page)
    fields.clear()
    fields.send_keys("user=bob\n")
    until(lambda: page.text("e-said").startswith("Allowed"), "one that is known")
    assert "rule keys counts so only requests without key" in page.text("e-said")
    page.element("e-reset").click()
    page.element("ask-do").click()
    until(lambda: "nothing was counted" in (page.text("said") or ""), "what came of it")


def test_a_ban_is_lifted(page):
    admin = page.admin
    opened(page)
    assert page.text("bans") is None    # nobody: nothing to see
    decide(admin, 6, ip="10.0.0.9", path="/login")
    assert admin.agent.check(ip="10.0.0.9", path="/login")["reason"] == "banned"
    page.element("e-fields").send_keys("ip=10.0.0.9 path=/login\n")
    until(lambda: "banned by rule login as ip=10.0.0.9: the ban ends in " in (page.text("e-said") or ""), "why")
    unlocked(page)
    until(lambda: "ip=10.0.0.9" in (page.text("bans-body") or ""), "the ban")
    page.driver.find_element("css selector", "#bans-body button").click()
    page.element("ask-do").click()
    until(lambda: page.text("bans") is None, "it to go")
    until(lambda: admin.agent.check(ip="10.0.0.9", path="/login")["reason"] != "banned")


def test_what_is_refused_is_told(page):
    from selenium.webdriver.support.select import Select
    unlocked(page)
    Select(page.element("o-by")).select_by_value("ip")
    page.element("o-who").send_keys("no address\n")
    until(lambda: page.text("o-error"), "the error")
    assert page.js("return document.getElementById('o-who').value") == "no address"


def test_a_switch(page):
    from selenium.webdriver.support.select import Select
    admin = page.admin
    unlocked(page)
    until(lambda: page.js("return document.querySelectorAll('#rules-body button').length") == 6)
    page.driver.find_element("css selector", "#rules-body button").click()
    Select(page.element("ask-mode")).select_by_value("shadow")
    page.element("ask-reason").send_keys("to see")
    page.element("ask-do").click()
    until(lambda: "shadow" in (page.text("rules-body") or ""), "the mode")
    decide(admin, 5, user="carol", ip="10.0.0.3")
    assert not admin.agent.check(user="carol", ip="10.0.0.3")["deny"]
    until(lambda: "shadow, without an end; to see" in (page.text("notices") or ""), "the notice")
    # Off, all of it; and as it was.
    for mode, state in (("shadow", "all in shadow"), ("off", "limiting is off"), ("configured", "serving")):
        page.element("switch-all").click()
        Select(page.element("ask-mode")).select_by_value(mode)
        page.element("ask-do").click()
        until(lambda state=state: page.text("state") == state, state)
        if mode == "shadow":  # the rule's own switch goes before that of all
            admin.ask("/api/v1/enabled", "PUT", False, {"Content-Type": "application/json", **BEARER},
                      '{"rule": "api", "mode": "enforce"}')
            until(lambda: page.text("state") == "mostly in shadow")


def test_a_reset_and_a_reload(page):
    admin = page.admin
    decide(admin, 4, user="dave", ip="10.0.0.4")
    unlocked(page)
    until(lambda: page.js("return document.querySelectorAll('#rules-body button').length") == 6)
    page.driver.find_element("css selector", "[aria-label='Reset rule api']").click()
    page.element("ask-do").click()
    until(lambda: not admin.agent.check(user="dave", ip="10.0.0.4")["deny"], "dave to pass")
    generation = admin.ask("/api/v1/status").json["generation"]
    page.element("reload").click()
    page.element("ask-do").click()
    until(lambda: admin.ask("/api/v1/status").json["generation"] > generation, "the reload")


def test_which_rules_apply(page):
    def applied(name):
        return page.js(f"""return [...document.querySelectorAll("#rules-body tr")].filter(
            r => r.firstChild.textContent.includes("{name}")).map(r => r.children[6].textContent)[0]""")
    decide(page.admin, 3, user="bob", ip="10.0.0.2")
    until(lambda: applied("api") == "3", "the rule by users")
    assert applied("login") == "never"


def test_what_keeps_the_store_from_its_work(chromium, run, ends, tmp_path):
    """A Redis that is away: since when, where, and what to do."""
    redis = ends(redisd.Server(tmp_path, "r"))
    admin = Admin(run, tmp_path, rules=RULES, top=redis.group())
    chromium.url = f"http://127.0.0.1:{admin.port}/"
    opened(chromium)
    assert not chromium.text("notices")
    redis.kill()
    admin.agent.check(user="bob")
    until(lambda: "The store is away, since " in (chromium.text("notices") or ""), "it to be told")
    until(lambda: str(redis.port) in chromium.text("notices") and "What to do: " in chromium.text("notices"),
          "where, and what to do")
    until(lambda: "is not shared with the other agents, since " in chromium.text("notices"), "what else is away")
    redis.start()
    until(lambda: not chromium.text("notices"), "it to be over")


def test_what_explain_cannot_know_is_said(chromium, run, ends, tmp_path):
    """A Redis that takes no writes tells explain what it has, and refuses the checks."""
    def said():
        fields = chromium.element("e-fields")
        fields.clear()
        fields.send_keys("user=bob\n")
        return chromium.text("e-said") or ""

    redis = ends(redisd.Server(tmp_path, "r"))
    admin = Admin(run, tmp_path, rules=RULES, top=redis.group(on_failure="closed"))
    chromium.url = f"http://127.0.0.1:{admin.port}/"
    opened(chromium)
    until(lambda: admin.agent.check(user="bob")["reason"] == "ok", "Redis")
    until(lambda: said().startswith("Allowed") and "failure policy" not in said(), "all is well")
    redis("CONFIG", "SET", "maxmemory", "1")
    # A thread without checks soon takes Redis for well again, which answers all but writes.
    until(lambda: admin.agent.check(user="bob")["reason"] == "degraded" and
          "by the failure policy, and may say otherwise" in said(), "it to be told")


def test_a_state_file_that_is_not_written(chromium, run, tmp_path):
    (tmp_path / "d").mkdir()
    admin = Admin(run, tmp_path, rules=RULES,
                  top=f'store: {{ state_file = "{tmp_path}/d/state"; state_interval = "1s"; }};')
    chromium.url = f"http://127.0.0.1:{admin.port}/"
    opened(chromium)
    (tmp_path / "d" / "state.tmp").mkdir()      # a file of that name cannot be made
    until(lambda: "The state file is not written, since " in (chromium.text("notices") or ""), "it to be told")
    assert "state.tmp: cannot create" in chromium.text("notices")
    (tmp_path / "d" / "state.tmp").rmdir()
    until(lambda: not chromium.text("notices"), "it to be over")


def test_an_agent_that_is_gone_and_comes_back(page):
    admin = page.admin
    assert admin.agent.stop() == 0
    until(lambda: page.text("state") == "not reachable", "the page to say so")
    page.complaints()
    admin.agent.start()
    until(lambda: page.text("state") == "serving", "the page to go on", 60)
    page.complaints()
