"""The part of the benchmark about the Redis store: what it reaches beside redis-benchmark, beside an
agent that does one INCR for each request, and beside the memory store. The redis-server is the
benchmark's own: a free port, nothing kept."""

import contextlib
import csv
import io
import os
import re
import shutil
import subprocess
import tempfile

from common import HERE, Failed, Process, free_port, median, say

BASELINE_CLIENTS = 1000  # as many as the load generator has
DAY_US = 86400 * 1000000
POOL = 20  # connections of the agent that keeps a pool: what a Redis client has by default on two cores
MILLION = 1000000
GOPATH = "/usr/share/gocode"  # where Debian keeps the sources of Go's libraries
GO_REDIS = "src/gopkg.in/redis.v5"
INCR = {  # the agents that do one for each request; README.md says which of them are the measure
	"go": (("go",), 1.5, "Go", "by go-redis' pool"),
	"one": (("plain", 1), 1.5, "C", "each waited for, by one thread"),
	"threads": (("plain",), 1.5, "C", "each waited for, by a thread for each connection of HAProxy"),
	"pool": (("incr", POOL), None, "C", f"by a pool of {POOL} connections"),
	"pipelined": (("incr",), None, "C", "pipelined"),
}
IS_THERE = ("redis-server", "redis-cli", "redis-benchmark")


def is_there():
	return all(shutil.which(name) for name in IS_THERE)


@contextlib.contextmanager
def server(port=None, *settings):
	port = port or free_port()
	with tempfile.TemporaryDirectory(prefix="bench-redis-") as folder:
		with Process(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
			      "--appendonly", "no", "--dir", folder, *settings]) as p:
			p.port = port
			yield p.await_port(port)


def ask(redis, *words, timeout=30):
	done = subprocess.run(["redis-cli", "-p", str(redis.port), *words], capture_output=True,
			      text=True, timeout=timeout, stdin=subprocess.DEVNULL)
	if done.returncode or done.stdout.startswith("(error)"):
		raise Failed(f"redis-cli {words[0]}: {done.stdout}{done.stderr}")
	return done.stdout.strip()


def used_memory(redis):
	return int(re.search(r"used_memory:(\d+)", ask(redis, "INFO", "memory"))[1])


def build_go(bench):
	"""False: there is no Go here, or not its client of Redis."""
	if not shutil.which("go") or not os.path.isdir(f"{GOPATH}/{GO_REDIS}"):
		return False
	env = {"GO111MODULE": "off", "GOPATH": GOPATH, "GOFLAGS": "", "GOCACHE": f"{bench.tmp}/go"}
	done = subprocess.run(["go", "build", "-o", bench.program("incr_go"), f"{HERE}/incr.go"],
			      env=dict(os.environ, **env), capture_output=True, text=True, timeout=100,
			      stdin=subprocess.DEVNULL)
	if done.returncode:
		raise Failed(f"incr.go:\n{done.stdout}{done.stderr}")
	return True


def incr_agents(bench):
	"""{who: how it counts, what is wanted, its language, the rest of its label}, of those that there
	can be here."""
	if build_go(bench):
		return INCR
	say("  no Go or no go-redis: the agent in Go is left out")
	return {who: row for who, row in INCR.items() if who != "go"}


def env_of(redis):
	return {"BENCH_REDIS": f"127.0.0.1:{redis.port}", "BENCH_LOG": "info"}


@contextlib.contextmanager
def agent(bench, redis, rules, store="redis"):
	"""With the Redis store; fails if anything was answered without Redis."""
	with bench.agent(rules, 1, [store], env_of(redis), pin=False) as p:
		yield p.await_port(p.port)
		p.p.terminate()
		p.p.wait(20)
		totals = dict(re.findall(r" (\w+)=(\d+)", p.said().rsplit(" stopped ", 1)[-1]))
		if not int(totals.get("redis_answered", 0)) or int(totals["checks_degraded"]):
			raise Failed(f"the agent did without Redis:\n{p.said()[-2000:]}")


def gcra_rate(redis, script, calls):
	"""Calls a second that redis-benchmark gets of the script, pipelined by 16."""
	limits = []
	for per_day, burst in ((1000, 10**9), (1000, 10**9), (10**6, 10**9)):  # as plain.cfg
		interval = DAY_US // per_day
		limits += [str(interval), str(interval * burst)]
	done = subprocess.run([
		"redis-benchmark", "-p", str(redis.port), "-P", "16", "-n", str(calls),
		"-r", str(BASELINE_CLIENTS), "--csv", "EVALSHA", script, "3", "gcra:ip:__rand_int__",
		"gcra:user:__rand_int__", "gcra:global", *limits],
		capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
	rows = list(csv.DictReader(io.StringIO(done.stdout)))
	if done.returncode or not rows:
		raise Failed(f"redis-benchmark: {done.stdout}{done.stderr}")
	return float(rows[-1]["rps"])


def load_gcra(redis):
	with open(f"{HERE}/gcra.lua") as f:
		return ask(redis, "SCRIPT", "LOAD", f.read())


def check_gcra(redis, script):
	"""That it does what it is for: two of the smallest pass, the third is denied, nothing is charged
	then, all have TTLs."""
	words = ["EVALSHA", script, "3", "try:a", "try:b", "try:c", "60000000", "120000000", "1000",
		 "3000", "1000", "9000"]
	got = [ask(redis, *words).split("\n")[0] for _ in range(3)]
	ttls = [int(ask(redis, "PTTL", f"try:{k}")) for k in "ab"]
	if got != ["1", "1", "0"] or not 60000 < ttls[0] <= 120000:
		raise Failed(f"gcra.lua: {got}, TTLs {ttls}")
	ask(redis, "FLUSHALL")


def part(bench):
	if not is_there():
		say("no Redis: left out")
		return
	with server() as redis:
		strict(bench, redis)
		through_haproxy(bench, redis)
		flood(bench, redis)
		leases(bench, redis)
		memory(bench, redis)


def strict(bench, redis):
	bench.section("Redis: strict, three limits a request, raw SPOP, 4 connections, depth 32, one thread",
		      ("", "ratio", "wanted", "met"))
	script = load_gcra(redis)
	check_gcra(redis, script)
	calls = int(80000 * bench.args.seconds)
	gcra, ours, each = [], [], []
	with agent(bench, redis, "plain") as p:
		bench.load(p, seconds=0.3)
		gcra_rate(redis, script, calls // 4)
		for _ in range(bench.args.rounds):
			at = [redis.thread_cpu_us()]
			gcra.append(gcra_rate(redis, script, calls))
			at.append(redis.thread_cpu_us())
			run = bench.load(p, seconds=bench.args.seconds)
			at.append(redis.thread_cpu_us())
			ours.append(run["per_second"])
			each.append((at[2] - at[1]) / run["requests"] / ((at[1] - at[0]) / calls))
	bench.ratio_row("requests, of calls that redis-benchmark gets of a script with three keys (GCRA), "
			"pipelined by 16", [o / g for o, g in zip(ours, gcra)], 0.9)
	bench.ratio_row("Redis' CPU time for a request, of that for such a call", each)
	bench.row("thousands a second: redis-benchmark, the agent",
		  f"{median(gcra) / 1000:.0f}, {median(ours) / 1000:.0f}")
	instructions_row(bench, redis, "a request", "plain", "plain", clients=1000)


def through_haproxy(bench, redis):
	bench.section("Redis: through HAProxy, 50 connections, strict, three limits",
		      ("", "ratio", "wanted", "met"))
	if not shutil.which("haproxy") or not shutil.which("wrk"):
		say("  no haproxy or no wrk: left out")
		return
	incr = incr_agents(bench)
	with contextlib.ExitStack() as stack:
		null = stack.enter_context(bench.null(1, pin=False))
		others = {"null": null, **{
			who: stack.enter_context(bench.incr(redis.port, *how)) for who, (how, *_) in incr.items()}}
		for p in others.values():
			p.await_port(p.port)
		ours = stack.enter_context(agent(bench, redis, "plain"))
		ways = {}  # who: the port, and the processes that a request costs time
		for who, p in others.items():
			ports, haproxy = stack.enter_context(bench.haproxy(p, ours))
			ways[who] = ports["null"], (haproxy, p, redis)
		ways["ours"] = ports["ours"], (haproxy, ours, redis)
		for port, _ in ways.values():
			bench.wrk(port, 1)
		got = {who: [] for who in ways}
		cpu = {who: [] for who in ways}
		seconds = max(1, round(bench.args.seconds * 2))
		for _ in range(bench.args.rounds):
			for who, (port, processes) in ways.items():
				before = sum(p.thread_cpu_us() for p in processes)
				got[who].append(bench.wrk(port, seconds))
				spent = sum(p.thread_cpu_us() for p in processes) - before
				cpu[who].append(spent / (got[who][-1] * seconds))

	def ratios(one, other, of=got):
		return [a / b for a, b in zip(of[one], of[other])]
	for who, (_, wanted, language, label) in incr.items():
		bench.ratio_row(f"the agent, of one that does an INCR for each request, in {language}, {label}",
				ratios("ours", who), wanted)
	labels = {"ours": "the agent", **{who: f"INCR {label}" for who, (*_, label) in incr.items()}}
	for who, label in labels.items():
		bench.ratio_row(f"{label}, of the do-nothing agent", ratios(who, "null"))
	for who, label in labels.items():
		bench.ratio_row(f"CPU time for a request, HAProxy's and Redis' included: {label}, times the "
				"do-nothing agent's", ratios(who, "null", cpu))


def flood(bench, redis):
	bench.section("Redis: a flood of denied requests, one client, raw SPOP, depth 32",
		      ("", "ratio to the memory store", "wanted", "met"))
	with bench.agent("flood", 1, env={"BENCH_LOG": "info"}, pin=False) as near, \
			agent(bench, redis, "flood") as far:
		near.await_port(near.port)
		bench.ratio_row("requests", against(bench, near, far, flood=True, clients=1), 0.8)
	instructions_row(bench, redis, "a denied request", "flood", "flood", flood=True)


def instructions_row(bench, redis, what, near, far, **load):
	if not shutil.which("valgrind"):
		return
	env = {"BENCH_REDIS": f"127.0.0.1:{redis.port}"}
	each = [instructions(bench, near, **load), instructions(bench, far, ["redis"], env, **load)]
	bench.row(f"instructions in user space for {what}: memory, Redis, ratio",
		  f"{each[0]:.0f}, {each[1]:.0f}, {each[1] / each[0]:.2f}")


def instructions(bench, rules, extra=(), env=None, **load):
	load = {"clients": 1, **load}
	counts = [bench.callgrind_agent(n, rules, extra, env, **load)[0] for n in (20000, 40000)]
	return (counts[1] - counts[0]) / 20000


def against(bench, near, far, **load):
	for p in (near, far):
		bench.load(p, seconds=0.3, **load)
	ratios = []
	for _ in range(bench.args.rounds):
		got = [bench.load(p, seconds=bench.args.seconds, **load)["per_second"] for p in (near, far)]
		ratios.append(got[1] / got[0])
	return ratios


def knows_leases(bench):
	done = subprocess.run([bench.agent_binary, "-c", "-f", f"{HERE}/lease.cfg"], capture_output=True,
			      text=True, timeout=10)
	return "reserved for a later version" not in done.stderr


def leases(bench, redis):
	bench.section("Redis: leased hot keys, one client, raw SPOP, depth 32",
		      ("", "ratio to the memory store", "wanted", "met"))
	if not knows_leases(bench):
		say("  the agent has none yet: left out")
		return
	with bench.agent("plain", 1, pin=False) as near, agent(bench, redis, "lease") as far:
		near.await_port(near.port)
		bench.ratio_row("requests", against(bench, near, far, clients=1), 0.8)
	instructions_row(bench, redis, "a leased request", "plain", "lease")


def memory(bench, redis):
	bench.section("Redis: memory", ("", "", "wanted", "met"))
	ask(redis, "FLUSHALL")
	before = used_memory(redis)
	with agent(bench, redis, "one") as p:
		bench.load(p, requests=MILLION, clients=MILLION, seconds=60)
		keys = int(ask(redis, "DBSIZE"))
		each = (used_memory(redis) - before) / keys
	if keys != MILLION:
		raise Failed(f"{keys} keys of {MILLION} clients")
	bench.row(f"used_memory for each key, bytes, at {keys:,} active keys", f"{each:.1f}", "at most 200",
		  each <= 200)


def smoke(bench):
	"""That the programs work together; no time is looked at."""
	if not is_there():
		return
	with server() as redis, contextlib.ExitStack() as stack, agent(bench, redis, "plain") as ours:
		script = load_gcra(redis)
		check_gcra(redis, script)
		gcra_rate(redis, script, 3000)
		others = [stack.enter_context(bench.incr(redis.port, *how))
			  for how, *_ in incr_agents(bench).values()]
		for p in (*others, ours):
			ask(redis, "FLUSHALL")
			ask(redis, "CONFIG", "RESETSTAT")
			got = bench.load(p.await_port(p.port), requests=3000, seconds=30)
			if got["requests"] != 3000:
				raise Failed(f"{p.args[0]}: {got}")
			if p in others:
				check_incr(redis, p, 3000)


def check_incr(redis, p, requests):
	"""That it did one INCR for each request, and no counter stays for ever."""
	calls = re.search(r"cmdstat_incr:calls=(\d+)", ask(redis, "INFO", "commandstats"))
	keys = re.search(r"keys=(\d+),expires=(\d+)", ask(redis, "INFO", "keyspace"))
	if not calls or int(calls[1]) != requests or not keys or keys[1] != keys[2]:
		raise Failed(f"{p.args[0]}: {requests} requests, {calls and calls[0]}, {keys and keys[0]}")
