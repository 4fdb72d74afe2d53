"""Each service of conf/examples behind a real HAProxy: what its head promises."""

import contextlib
import json
import re
import shutil
import socket
import subprocess

import pytest

import agent as agents
import stack

EXAMPLES = stack.ROOT / "conf/examples"
PROXY = "127.9.9.9"
new_client = stack.Clients()


def example(name):
    """A fixture: the example, one for all tests of this file; tests use clients of their own."""
    @pytest.fixture(scope="module", name=name.replace("-", "_"))
    def start(tmp_path_factory):
        with running(tmp_path_factory.mktemp("e"), name) as s:
            yield s
    return start


def running(folder, name, env=None):
    return stack.running(folder, EXAMPLES / name / "ratelimit.cfg", EXAMPLES / name, env=env,
                         edit=stack.trust(PROXY))


def key(user):
    return {"X-API-Key": f"key-of-{user}"}


comfyui_stack = example("comfyui")
ray_stack = example("ray")
engine_stack = example("deployment-engine")
training_stack = example("training-server")


@pytest.mark.parametrize("name, path, method, limit, least_known", [
    ("deployment-engine", "/api/x", "GET", 5, "emil  entreprise"),
    ("comfyui", "/prompt", "POST", 3, "otto  amdin"),
])
def test_a_mistyped_tier_is_limited(tmp_path, name, path, method, limit, least_known):
    with stack.running(tmp_path, EXAMPLES / name / "ratelimit.cfg", EXAMPLES / name,
                       edit=lambda s: [(f / "tiers.map").write_text(least_known + "\n")
                                       for f in (s.folder / "conf", s.haproxy_dir)]) as s:
        stack.until_denied(s, limit, path, method, headers=key(least_known.split()[0]))


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.iterdir() if p.is_dir()))
def test_haproxys_log_names_who_is_over_a_limit_in_shadow_mode(name):
    formats = re.findall(r"(?m)^\tlog-format .*", (EXAMPLES / name / "haproxy.cfg").read_text())
    assert formats and all(" shadow=%[var(txn.rl.shadow)] " in f for f in formats)


@pytest.mark.parametrize("name", ["comfyui", "deployment-engine", "ray", "training-server"])
def test_a_nul_behind_a_key_gives_no_counter_of_its_own(request, name):
    """keys.map would find the key before it."""
    s = request.getfixturevalue(name.replace("-", "_"))
    known = re.search(r"^(key\S+)", (EXAMPLES / name / "keys.map").read_text(), re.M)[1]
    assert [s.ask("/api/x", headers={"X-API-Key": f"{known}\0{n}"}, client=new_client()).status
            for n in range(3)] == [400] * 3


@pytest.mark.parametrize("name", ["comfyui", "deployment-engine", "ray", "training-server"])
def test_a_key_that_is_there_twice_is_refused(request, name):
    """The service might take the other one."""
    s = request.getfixturevalue(name.replace("-", "_"))
    known = re.search(r"^(key\S+)", (EXAMPLES / name / "keys.map").read_text(), re.M)[1]
    with s.connect(new_client()) as c:
        c.connect()
        c.sock.sendall(f"GET /api/x HTTP/1.1\r\nHost: a\r\nX-API-Key: {known}\r\nX-API-Key: x\r\n\r\n".encode())
        assert c.sock.makefile("rb").readline().split()[1] == b"400"


def test_training_a_rule_in_shadow_mode_is_seen_in_haproxys_log(tmp_path):
    def shadow(s):
        s.cfg.write_text(stack.replaced(s.cfg.read_text(), '{ name = "execute";',
                                        '{ name = "execute"; mode = "shadow";', s.cfg))
    with stack.running(tmp_path, EXAMPLES / "training-server/ratelimit.cfg",
                       EXAMPLES / "training-server", edit=shadow) as s:
        client = new_client()
        assert s.statuses(21, "/execute", "POST", client=client) == [200] * 21
        agents.until(lambda: re.search(rf"(?m)^{client} .* shadow=execute ", s.haproxy.stdout),
                     "the rule in HAProxy's log")


# --- ComfyUI -----------------------------------------------------------------------------------

def test_comfyui_prompts_by_tier(comfyui):
    client = new_client()
    stack.until_denied(comfyui, 3, "/prompt", "POST", client=client)
    stack.until_denied(comfyui, 15, "/prompt", "POST", headers=key("ada"))
    assert comfyui.statuses(40, "/prompt", "POST", headers=key("rita")) == [200] * 40


def test_comfyui_a_busy_user_still_sees_the_queue(comfyui):
    client = new_client()
    stack.until_denied(comfyui, 3, "/prompt", "POST", client=client)
    assert comfyui.statuses(20, "/queue", client=client) == [200] * 20
    assert comfyui.statuses(5, "/history", client=client) == [200] * 5


def test_comfyui_both_prefixes_are_one_endpoint(comfyui):
    stack.until_denied(comfyui, 3, lambda n: ["/prompt", "/api/prompt", "/api//prompt"][n % 3],
                       "POST", client=new_client())


def test_comfyui_reduced_service_before_none(comfyui):
    served = []
    for _ in range(31):
        got = comfyui.ask("/prompt", "POST", headers=key("otto"))
        if got.status == 429:
            break
        served.append(got.body)
    assert served[:5] == [b"full service\n"] * 5
    assert b"reduced service\n" in served
    assert got.status == 429


def test_comfyui_the_message_gives_no_limit_away(comfyui):
    got = stack.until_denied(comfyui, 3, "/prompt", "POST", client=new_client())
    assert int(got.headers["Retry-After"]) >= 1
    assert not [h for h in got.headers if "ratelimit" in h.lower()]
    problem = json.loads(got.body)
    assert problem["status"] == 429 and not re.search(r"\d", problem["detail"])


def test_comfyui_guessing_at_the_login(comfyui):
    client = new_client()
    stack.until_denied(comfyui, 5, "/login", "POST", client=client)
    # Who goes on is kept out, and who does not guess is not.
    assert 429 in comfyui.statuses(10, "/api/login", "POST", client=client)
    assert comfyui.ask("/queue", client=client).status == 200
    assert comfyui.ask("/login", "POST", client=new_client()).status == 200


def test_comfyui_uploads(comfyui):
    stack.until_denied(comfyui, 5, lambda n: ["/upload/image", "/upload/mask"][n % 2], "POST",
                       client=new_client())


def test_comfyui_every_other_handler_is_limited_too(comfyui):
    stack.until_denied(comfyui, 30, "/interrupt", "POST", client=new_client())


@pytest.mark.parametrize("method, path", [("PUT", "/upload/x"), ("DELETE", "/prompt"),
                                          ("PATCH", "/api/login")])
def test_comfyui_no_method_falls_between_two_rules(comfyui, method, path):
    stack.until_denied(comfyui, 30, path, method, client=new_client())


@pytest.mark.parametrize("name", ["comfyui", "deployment-engine"])
def test_every_denial_is_in_haproxys_log(request, name):
    """More of them at once than the agent's log takes."""
    s, client = request.getfixturevalue(name.replace("-", "_")), new_client()
    path, method, n = {"comfyui": ("/prompt", "POST", 3),
                       "deployment-engine": ("/api/x", "GET", 5)}[name]
    stack.until_denied(s, n, path, method, client=client)
    denied = 1 + s.statuses(60, path, method, client=client).count(429)

    def logged():
        return [x for x in s.haproxy.stdout.splitlines()
                if x.startswith(f"{client} ") and " 429 " in x and "rl=limited/" in x]
    agents.until(lambda: len(logged()) >= denied, "each denial in HAProxy's log")
    assert len(logged()) == denied
    agents.until(lambda: client in s.agent.stderr, "a denial in the agent's log")


def test_comfyui_numbers_from_the_environment(tmp_path):
    env = {"COMFYUI_PROMPT": "7/hour", "COMFYUI_LOGIN": "2/hour"}
    with running(tmp_path, "comfyui", env) as s:
        stack.until_denied(s, 7, "/prompt", "POST")
        stack.until_denied(s, 2, "/login", "POST")


# --- Ray ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("method, user", [("GET", "ada"), ("HEAD", "otto")])
def test_ray_status_queries_do_not_starve_submissions(ray, method, user):
    who = key(user)
    got = stack.until_denied(ray, 30, "/api/jobs/raysubmit_1", method, headers=who)
    assert got.headers["RateLimit"].startswith('"status')
    assert ray.statuses(5, "/api/jobs/", "POST", headers=who) == [200] * 5
    assert ray.ask("/api/jobs/", "POST", headers=who).body == b"submitted\n"


def test_ray_submissions_by_second_minute_and_hour(ray):
    got = ray.ask("/api/jobs/", "POST", client=new_client())
    policy = got.headers["RateLimit-Policy"]
    assert re.findall(r'"submit[^"]*";q=(\d+);w=(\d+)', policy) == [("10", "2"), ("20", "60"),
                                                                     ("200", "3600")]
    stack.until_denied(ray, 20, "/api/jobs", "POST", client=new_client(), least=10)


def test_ray_logs_and_stops_have_limits_of_their_own(ray):
    client = new_client()
    stack.until_denied(ray, 20, "/api/jobs/raysubmit_1/logs", client=client)
    assert ray.ask("/api/jobs/raysubmit_1", client=client).status == 200
    stack.until_denied(ray, 60, "/api/jobs/raysubmit_1/stop", "POST", client=client)
    assert ray.ask("/api/jobs/", "POST", client=client).status == 200


@pytest.mark.parametrize("method, path", [
    ("PUT", "/api/packages/gcs/x.zip"), ("PUT", "/api/serve/applications/"), ("POST", "/nodes"),
    ("DELETE", "/api/serve/applications/"), ("POST", "/api/jobs/x/y"),
])
def test_ray_whatever_else_changes_something(ray, method, path):
    client = new_client()
    got = stack.until_denied(ray, 60, path, method, client=client)
    assert got.headers["RateLimit"].startswith('"write"')
    assert ray.ask("/api/jobs/", "POST", client=client).status == 200


def test_ray_nothing_is_without_a_limit(tmp_path):
    with running(tmp_path, "ray", {"RAY_ADDRESS": "7/hour"}) as s:
        got = stack.until_denied(s, 7, lambda n: ["/nodes", "/", "/api/jobs"][n % 3],
                                 "HEAD", client=new_client())
        assert got.headers["RateLimit"].startswith('"address"')


def test_ray_less_status_while_the_head_node_is_busy(tmp_path):
    """30 requests held by a dashboard that is slow: HAProxy sends load=high from then on."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as slow:
        def behind(s):
            cfg = s.haproxy_dir / "haproxy.cfg"
            cfg.write_text(stack.replaced(
                cfg.read_text(), "backend ray_dashboard\n\thttp-request return",
                "backend ray_dashboard\n"
                f"\tserver head 127.0.0.1:{slow.getsockname()[1]} maxconn 40\n"
                '\thttp-request return if { path -m beg /api/jobs }\n#', cfg))
        with stack.running(tmp_path, EXAMPLES / "ray/ratelimit.cfg", EXAMPLES / "ray",
                           edit=behind) as s, contextlib.ExitStack() as held:
            client, busy = new_client(), new_client()
            assert s.statuses(12, "/api/jobs/x", client=client) == [200] * 12
            for _ in range(30):
                c = held.enter_context(s.connect(new_client()))
                c.request("GET", "/slow")
                held.enter_context(slow.accept()[0])
            got = stack.until_denied(s, 6, "/api/jobs/x", client=busy)
            assert got.headers["RateLimit"].startswith('"status-busy"')
            assert "load=high" in s.haproxy.stdout
            # Submissions have limits of their own, as ever.
            assert s.statuses(3, "/api/jobs/", "POST", client=busy) == [200] * 3


def test_ray_by_application(ray):
    client = new_client()
    got = stack.until_denied(ray, 30, "/serve/translate/x", "POST", client=client)
    assert '"application"' in got.headers["RateLimit-Policy"]
    assert ray.ask("/serve/summarise/x", "POST", client=client).status == 200


def test_ray_an_application_in_other_words(ray):
    """Nobody gets more of it so, nor of one that is in no list."""
    client = new_client()
    escaped = stack.until_denied(ray, 30, "/%73erve/translate/x", client=client)
    assert escaped.headers["RateLimit"].startswith('"application-user"')
    ways = ["//serve/translate/x", "/serve/./translate/x", "/x/../serve/translate/x", "/serve/translate",
            "/serve/%zz/../translate/x", "/serve/invented/x"]
    for method in ("GET", "POST"):
        got = stack.until_denied(ray, 30, lambda n: ways[n % len(ways)], method, client=new_client())
        assert got.headers["RateLimit"].startswith('"application-none"')


def test_ray_by_user_not_by_address(ray):
    client = new_client()
    stack.until_denied(ray, 20, "/api/jobs/x/logs", client=client, headers=key("otto"))
    assert ray.ask("/api/jobs/x/logs", client=client).status == 200
    assert ray.ask("/api/jobs/x/logs", client=new_client(), headers=key("otto")).status == 429


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_ray_client_is_told_in_grpc(ray):
    # Only the frontend in clear text, for HTTP/2 by prior knowledge.
    def stream():
        said = subprocess.run(
            ["curl", "-si", "--http2-prior-knowledge", "--max-time", str(stack.BOUND), "-X", "POST",
             "-H", "content-type: application/grpc", "-H", "te: trailers",
             f"http://127.0.0.1:{ray.grpc_port}/ray.rpc.RayletDriver/Datapath"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
        assert said.startswith("HTTP/2 200")
        return said
    said = [stream() for _ in range(25)]
    assert all("grpc-status: 0" in x for x in said[:12])
    denied = [x for x in said if "grpc-status: 8" in x]
    assert denied and "content-type: application/grpc" in denied[0]
    assert re.search(r"retry-after: [1-9]", denied[0])


def test_ray_an_administrator_changes_a_limit(tmp_path):
    with running(tmp_path, "ray", {"RAY_LOGS": "3/hour"}) as s:
        stack.until_denied(s, 3, "/api/jobs/x/logs")
        text = stack.replaced(s.cfg.read_text(), '"${RAY_LOGS:-20/minute}"', '"9/hour"', s.cfg)
        s.cfg.write_text(text)
        s.agent.send_signal(1)
        agents.until(lambda: s.ask("/api/jobs/x/logs").status == 200, "the new limit")


# --- the deployment engine -----------------------------------------------------------------------

@pytest.mark.parametrize("user, limits", [
    ("fred", [(10, 60), (100, 3600)]),
    ("petra", [(100, 120), (1000, 3600)]),
    ("emil", [(500, 150), (10000, 3600)]),
])
def test_engine_plans(deployment_engine, user, limits):
    burst = limits[0][0]
    got = stack.until_denied(deployment_engine, burst, "/api/deployments", headers=key(user))
    found = re.findall(r'"api[^"]*";q=(\d+);w=(\d+)', got.headers["RateLimit-Policy"])
    assert [(int(q), int(w)) for q, w in found] == limits
    assert got.headers["X-RateLimit-Limit"] == str(burst)
    assert got.headers["X-RateLimit-Remaining"] == "0"
    assert got.headers["X-RateLimit-Scope"] == "key"
    assert got.headers["X-RateLimit-Algorithm"] == "token-bucket"
    assert int(got.headers["X-RateLimit-Reset"]) > 1_700_000_000
    assert int(got.headers["Retry-After"]) >= 1


def test_engine_anonymous_users(deployment_engine):
    got = stack.until_denied(deployment_engine, 5, "/v1/api/x", client=new_client())
    assert got.headers["X-RateLimit-Scope"] == "ip"


def test_engine_a_warning_before_the_limit(deployment_engine):
    client = new_client()
    answers = [deployment_engine.ask("/api/x", client=client) for _ in range(5)]
    assert not answers[0].headers["X-RateLimit-Warning"]
    assert answers[4].headers["X-RateLimit-Warning"]


@pytest.mark.parametrize("path", ["/auth/login/", "/AUTH/login", "/Auth/Login;x=1", "/auth;x/login",
                                  "/auth//%6cogin", "/auth/./login%20"])
def test_engine_a_login_in_other_words_is_a_login(deployment_engine, path):
    """What a service may take for the same is counted with it."""
    client = new_client()
    stack.until_denied(deployment_engine, 5, lambda n: ["/auth/login", path][n % 2], "POST",
                       client=client)
    assert deployment_engine.ask(path, "POST", client=client).status == 429


@pytest.mark.parametrize("path", ["/auth%2flogin", "/auth%2Flogin", "/v1%2Fapi/x"])
def test_engine_an_escaped_slash_is_refused(deployment_engine, path):
    assert deployment_engine.ask(path, "POST", client=new_client()).status == 400


@pytest.mark.parametrize("path", ["/auth/%4Cogin", "/%41uth/login", "/auth/logi%4e", "/%5auth"])
def test_engine_an_escaped_capital_is_refused(deployment_engine, path):
    """HAProxy's `lower` comes before it is unescaped: it would be a login in no rule's words."""
    assert deployment_engine.ask(path, "POST", client=new_client()).status == 400


@pytest.mark.parametrize("path", ["/API/x", "/v1/Api/x", "/api;v=1/x"])
def test_engine_the_api_in_other_words(deployment_engine, path):
    stack.until_denied(deployment_engine, 5, path, client=new_client())


def test_engine_with_the_store_of_two_nodes(tmp_path):
    """As its head says to move to Redis: the two groups of two-nodes in place of its own."""
    text = (EXAMPLES / "two-nodes/ratelimit.cfg").read_text()
    groups = re.findall(r"(?ms)^(?:store|redis): \{.*?\};", text)
    assert [g.split(":")[0] for g in groups] == ["store", "redis"]
    mine = EXAMPLES / "deployment-engine"
    own = re.search(r"(?m)^store: \{.*\};$", (mine / "ratelimit.cfg").read_text())[0]
    cfg = tmp_path / "ratelimit.cfg"
    cfg.write_text((mine / "ratelimit.cfg").read_text().replace(own, "\n\n".join(groups)))
    shutil.copy(mine / "tiers.map", tmp_path)
    said = agents.check_file(cfg, env={"REDIS_PASSWORD": "x", "RATELIMIT_HASH_SECRET": "x"})
    assert said.status == 0 and not said.stderr, said


def test_engine_logins_in_a_fixed_window(deployment_engine):
    got = stack.until_denied(deployment_engine, 5, "/auth/login", "POST", client=new_client())
    assert got.headers["X-RateLimit-Algorithm"] == "fixed-window"


def test_engine_uploads_in_a_sliding_window(deployment_engine):
    got = stack.until_denied(deployment_engine, 5, "/upload/image", "POST", client=new_client())
    assert got.headers["X-RateLimit-Algorithm"] == "sliding-window"


def test_engine_the_administrator_is_not_limited(deployment_engine):
    client = new_client()
    assert deployment_engine.statuses(30, "/auth/login", "POST", client=client,
                                      headers=key("admin")) == [200] * 30
    # And nobody becomes one by saying so.
    stack.until_denied(deployment_engine, 5, "/api/x", client=new_client(),
                       headers={"X-User": "admin", "X-API-Key": "admin"})


def test_engine_spoofed_addresses(deployment_engine):
    stack.until_denied(deployment_engine, 5, "/api/x", client=new_client(),
                       headers=lambda n: {"X-Forwarded-For": f"10.0.0.{n}"})
    stack.until_denied(deployment_engine, 5, "/api/x", client=PROXY,
                       headers=lambda n: {"X-Forwarded-For": f"10.0.0.{n}, 10.5.5.5"})
    assert deployment_engine.ask("/api/x", client=PROXY,
                                 headers={"X-Forwarded-For": "10.5.5.6"}).status == 200


def test_engine_several_layers_at_once(tmp_path):
    """Many users behind one address: each within its plan, the address is not."""
    with running(tmp_path, "deployment-engine", {"RATELIMIT_ADDRESS": "8/hour"}) as s:
        got = stack.until_denied(
            s, 8, "/api/x", headers=lambda n: key(["fred", "petra", "emil"][n % 3]))
        assert got.headers["RateLimit"].startswith('"address"')
        assert s.ask("/api/x", client=new_client(), headers=key("fred")).status == 200


def test_engine_health_checks_cost_nothing(deployment_engine):
    client = new_client()
    assert deployment_engine.statuses(10, "/health", client=client) == [200] * 10
    assert deployment_engine.ask("/api/x", client=client).headers["X-RateLimit-Remaining"] == "4"


def test_engine_an_audit_line_for_each_denial(tmp_path):
    log = tmp_path / "audit.log"
    with running(tmp_path, "deployment-engine", {"RATELIMIT_AUDIT_LOG": str(log)}) as s:
        client = new_client()
        stack.until_denied(s, 5, "/api/x", client=client)
        agents.until(lambda: client in log.read_text(), "the denial in the audit log")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    denied = [x for x in lines if client in json.dumps(x)]
    assert len(denied) == 1 and "api" in json.dumps(denied[0])


def test_engine_counters_survive_a_restart(tmp_path):
    with running(tmp_path, "deployment-engine", {"RATELIMIT_STATE": str(tmp_path / "state"),
                                                 "RATELIMIT_LOGIN": "5/day"}) as s:
        client = new_client()
        stack.until_denied(s, 5, "/auth/login", "POST", client=client)
        s.stop_agent()
        s.start_agent()
        agents.until(lambda: s.agent_is("UP"), "HAProxy to take the agent for UP", stack.BOUND)
        assert s.ask("/auth/login", "POST", client=client).status == 429


# --- the training server ---------------------------------------------------------------------------

@pytest.mark.parametrize("path, method, limit", [
    ("/api/jobs/execute", "POST", 10),
    ("/api/jobs/7/cancel", "POST", 30),
    ("/api/jobs/7/force-start", "POST", 30),
    ("/api/files/list", "GET", 60),
    ("/api/files/read", "POST", 60),
])
def test_training_limits(training_server, path, method, limit):
    got = stack.until_denied(training_server, limit, path, method, client=new_client())
    assert got.headers["X-RateLimit-Limit"] == str(limit)
    assert json.loads(got.body)["status"] == 429


def test_training_kinds_of_requests_do_not_share(training_server):
    client = new_client()
    stack.until_denied(training_server, 10, "/execute", "POST", client=client)
    assert training_server.ask("/jobs/1/pause", "POST", client=client).status == 200
    assert training_server.ask("/files/info", client=client).status == 200


def test_training_each_control_has_its_own_limit(training_server):
    client = new_client()
    stack.until_denied(training_server, 30, lambda n: f"/jobs/{n}/validate", "POST", client=client)
    for verb in ("cancel", "pause", "resume", "force-start"):
        assert training_server.ask(f"/jobs/1/{verb}", "POST", client=client).status == 200


@pytest.mark.parametrize("path", ["/jobs/1/execute/", "/jobs/1/Execute", "/jobs/1/execute;a",
                                  "/jobs/1%2fexecute", "/jobs/1%2FEXECUTE/", "/jobs/1/%65xecute"])
def test_training_a_job_in_other_words_is_a_job(training_server, path):
    client = new_client()
    got = stack.until_denied(training_server, 10, lambda n: ["/jobs/1/execute", path][n % 2], "POST",
                             client=client)
    assert got.headers["X-RateLimit-Limit"] == "10"
    assert training_server.ask(path, "POST", client=client).status == 429


@pytest.mark.parametrize("path", ["/jobs/1/%45xecute", "/jobs/1/execut%45", "/jobs%2F1%2f%50ause"])
def test_training_an_escaped_capital_is_refused(training_server, path):
    assert training_server.ask(path, "POST", client=new_client()).status == 400


@pytest.mark.parametrize("path, method, limit", [
    ("/jobs/1/cancel/", "POST", 30), ("/jobs/1%2FPause", "POST", 30), ("/Files/list", "GET", 60),
    ("/files%2fread", "GET", 60),
])
def test_training_the_others_in_other_words(training_server, path, method, limit):
    stack.until_denied(training_server, limit, path, method, client=new_client())


def test_training_looser_inside(training_server):
    def inside(_):
        return {"X-Forwarded-For": "10.7.7.7"}
    got = stack.until_denied(training_server, 20, "/execute", "POST", client=PROXY, headers=inside)
    assert got.headers["X-RateLimit-Limit"] == "20"
    # Whoever says so without coming through the proxy is public.
    stack.until_denied(training_server, 10, "/execute", "POST", client=new_client(), headers=inside)


def test_training_by_key_and_else_by_address(training_server):
    client = new_client()
    stack.until_denied(training_server, 10, "/execute", "POST", client=client, headers=key("ada"))
    assert training_server.ask("/execute", "POST", client=client).status == 200
    assert training_server.ask("/execute", "POST", client=new_client(),
                               headers=key("ada")).status == 429
    # A key that is not one: by address, as without.
    stack.until_denied(training_server, 10, "/execute", "POST", client=new_client(),
                       headers=lambda n: {"X-API-Key": f"guess{n}"})


def test_training_by_the_environment(tmp_path):
    env = {"RATE_LIMIT_EXECUTE": "3/hour", "RATE_LIMIT_TRUSTED": "127.2.0.0/16",
           "RATE_LIMIT_TRUSTED_2": "127.3.0.1", "RATE_LIMIT_TRUSTED_4": "127.3.0.2"}
    with running(tmp_path, "training-server", env) as s:
        stack.until_denied(s, 3, "/execute", "POST", client=new_client())
        for trusted in ("127.2.0.1", "127.3.0.1", "127.3.0.2"):
            assert s.statuses(12, "/execute", "POST", client=trusted) == [200] * 12


def test_training_off_in_development(tmp_path):
    with running(tmp_path, "training-server", {"RATE_LIMIT_ENABLED": "false"}) as s:
        assert s.statuses(25, "/execute", "POST") == [200] * 25


def test_training_says_at_its_start_what_is_active(training_server):
    said = training_server.agent.stderr
    for word in ("execute", "validate", "force-start", "files", "10", "30", "60"):
        assert word in said


def test_training_a_job_is_never_started_unchecked(tmp_path):
    with running(tmp_path, "training-server") as s:
        s.stop_agent()
        for path in ("/execute", "/Execute/", "/jobs%2f%45xecute", "/execute%", "/%zz/../execute"):
            assert s.ask(path, "POST").status == 503
        assert s.ask("/files/list").status == 200
