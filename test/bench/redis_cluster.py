"""The part of the benchmark about a Redis Cluster: three masters beside one server, for requests whose
limits lie in one slot, and for those whose limits lie in several. The masters are the benchmark's own."""

import contextlib
import socket
import subprocess
import time

import redis_store
from common import Failed, free_port, median, say

MASTERS = 3
BUS = 10000  # a node's bus is that far above its port
WAYS = (("slot", "in one slot"), ("plain", "in several slots"))


class Nodes:
	"""Of a cluster, or the one server: `port` is where to begin, CPU time is that of all."""

	def __init__(self, servers):
		self.servers = servers
		self.port = servers[0].port

	def thread_cpu_us(self):
		return sum(s.thread_cpu_us() for s in self.servers)


def free_port_pair():
	while True:
		port = free_port()
		with socket.socket() as s, contextlib.suppress(OSError, OverflowError):
			s.bind(("127.0.0.1", port + BUS))
			return port


def await_whole(servers, seconds=30):
	deadline = time.monotonic() + seconds
	while not all("cluster_state:ok" in redis_store.ask(s, "CLUSTER", "INFO") for s in servers):
		if time.monotonic() > deadline:
			raise Failed("the cluster does not come together")
		time.sleep(0.1)


@contextlib.contextmanager
def cluster():
	with contextlib.ExitStack() as stack:
		servers = [stack.enter_context(redis_store.server(free_port_pair(), "--cluster-enabled", "yes"))
			   for _ in range(MASTERS)]
		made = subprocess.run(
			["redis-cli", "--cluster", "create", *(f"127.0.0.1:{s.port}" for s in servers),
			 "--cluster-yes"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
		if made.returncode:
			raise Failed(f"redis-cli --cluster create: {made.stdout}{made.stderr}")
		await_whole(servers)
		yield Nodes(servers)


def part(bench):
	if not redis_store.is_there():
		say("no Redis: left out")
		return
	bench.section(f"Redis Cluster: {MASTERS} masters, three limits a request, raw SPOP, 4 connections, "
		      "depth 32, one thread", ("limits of one client", "ratio to one server", "wanted", "met"))
	with redis_store.server() as one, cluster() as many:
		for rules, where in WAYS:
			compare(bench, Nodes([one]), many, rules, where)


def compare(bench, one, many, rules, where):
	got = {who: [] for who in ("one", "many")}
	cpu = {who: [] for who in got}
	with redis_store.agent(bench, one, rules) as near, \
			redis_store.agent(bench, many, rules, "cluster") as far:
		sides = {"one": (one, near), "many": (many, far)}
		for _, p in sides.values():
			bench.load(p, seconds=0.3)
		for _ in range(bench.args.rounds):
			for who, (nodes, p) in sides.items():
				before = nodes.thread_cpu_us()
				run = bench.load(p, seconds=bench.args.seconds)
				got[who].append(run["per_second"])
				cpu[who].append((nodes.thread_cpu_us() - before) / run["requests"])

	def ratios(of):
		return [a / b for a, b in zip(of["many"], of["one"])]
	bench.ratio_row(f"{where}: requests", ratios(got))
	bench.ratio_row(f"{where}: CPU time of all servers for a request", ratios(cpu))
	bench.row(f"{where}: thousands a second, one server and the cluster",
		  f"{median(got['one']) / 1000:.0f}, {median(got['many']) / 1000:.0f}")


def smoke(bench):
	"""That the programs work together; no time is looked at."""
	if not redis_store.is_there():
		return
	with cluster() as many:
		for rules, _ in WAYS:
			with redis_store.agent(bench, many, rules, "cluster") as p:
				got = bench.load(p, requests=3000, seconds=30)
				if got["requests"] != 3000:
					raise Failed(f"{rules}: {got}")
