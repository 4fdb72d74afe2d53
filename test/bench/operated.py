"""The part of the benchmark about operating: what it costs the checks that the agent is scraped,
asked, reloaded and listened to while it is fully loaded, and what two open pages add."""

import contextlib
import http.client
import json
import re
import selectors
import socket
import threading
import time

from common import ROOT, Failed, free_port, median

TOKEN = "of-the-benchmark"
STREAMS = 10
PAGES = 2
# Once a second each: a Prometheus asks every ten or fifteen.
JSON = {"Content-Type": "application/json"}
ASKS = (
	("GET", "/metrics", None),
	("GET", "/api/v1/status", None),
	("GET", "/api/v1/top?by=denied", None),
	("GET", "/api/v1/top?by=checked", None),
	("POST", "/api/v1/explain", {"fields": {"user": "user-000001", "ip": "10.0.0.1",
						"method": "GET", "path": "/api/v1/things"}}),
	("POST", "/api/v1/reload", None),
)


class Watcher:
	"""One thread, that asks and listens until its `with` ends, which begins when it listens."""

	def __init__(self, port):
		self.port = port
		self.stop = threading.Event()
		self.listens = threading.Event()
		self.asked = self.read = 0
		self.failed = None
		self.thread = threading.Thread(target=self.run)

	def __enter__(self):
		self.thread.start()
		self.listens.wait(10)  # what failed is told at the end
		return self

	def __exit__(self, *unused):
		self.stop.set()
		self.thread.join()

	def run(self):
		try:
			with contextlib.ExitStack() as self.stack, selectors.DefaultSelector() as self.streams:
				self.operate()
		except (OSError, http.client.HTTPException, Failed) as e:
			self.failed = e

	def connect(self):
		return self.stack.enter_context(contextlib.closing(
			http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)))

	def listen(self):
		s = self.stack.enter_context(socket.create_connection(("127.0.0.1", self.port), 10))
		s.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		self.streams.register(s, selectors.EVENT_READ)

	def hear(self, seconds):
		"""What the streams bring meanwhile; whatever came together is read together."""
		until = time.monotonic() + seconds
		while (left := until - time.monotonic()) > 0 and not self.stop.is_set():
			for key, _ in self.streams.select(left):
				got = len(key.fileobj.recv(65536))
				if not got:
					raise Failed("a stream of events ended")
				self.read += got
			time.sleep(0.02)

	def send(self, to, method, path, body=None):
		headers = {"Authorization": f"Bearer {TOKEN}", **(JSON if method == "POST" else {})}
		to.request(method, path, json.dumps(body) if body else None, headers)

	def answer(self, to):
		answer = to.getresponse()
		said = answer.read()
		if answer.status != 200:
			raise Failed(f"{answer.status} {said[:300]!r}")
		self.asked += 1
		return said


class Operator(Watcher):
	"""Asks everything once a second and reads ten streams of events."""

	def operate(self):
		to = self.connect()
		for _ in range(STREAMS):
			self.listen()
		self.listens.set()
		turn = 0
		while not self.stop.is_set():
			self.send(to, *ASKS[turn % len(ASKS)])
			self.answer(to)
			turn += 1
			self.hear(1 / len(ASKS))


class Page(Watcher):
	"""What the page asks in a browser, when, and how much of it at once; from what its script says."""

	def __init__(self, port):
		super().__init__(port)
		with open(f"{ROOT}/agent/admin/page.html") as f:
			script = f.read()
		self.every = re.search(r"^const EVERY = (\d+);", script, re.M)
		self.parts = re.findall(r'\{ path: "(/api/v1/\w+)"', script)
		if not self.every or len(self.parts) < 5 or "/api/v1/history" not in self.parts:
			raise Failed("page.html: what it asks for is not where operated.py looks for it")
		self.rounds = 0

	def operate(self):
		to = [self.connect() for _ in self.parts]
		for path in ("/", "/api/v1"):
			self.send(to[0], "GET", path)
			self.answer(to[0])
		self.listen()
		self.listens.set()
		query = {"/api/v1/history": "?after=0", "/api/v1/top": "?by=denied&n=10"}
		while not self.stop.is_set():
			self.send(to[0], "GET", "/api/v1/status")
			self.answer(to[0])
			for c, path in zip(to, self.parts):
				self.send(c, "GET", path + query.get(path, ""))
			for c, path in zip(to, self.parts):
				said = json.loads(self.answer(c))
				if path == "/api/v1/history":
					query[path] = f"?after={said['next']}"
			self.rounds += 1
			self.hear(int(self.every[1]) / 1000)


WATCHED = {
	"alone": (),
	"operated": (Operator,),
	"shown": (Operator,) + (Page,) * PAGES,
}


def beside_us(agent):
	"""Processor time of all threads but those that decide."""
	return agent.thread_cpu_us() - agent.thread_cpu_us("worker-")


def turn(bench, agent, watched, seconds):
	"""Checks a second, and the share of one core that the agent's other threads took meanwhile."""
	who = [watcher(agent.admin) for watcher in WATCHED[watched]]
	with contextlib.ExitStack() as stack:
		for w in who:
			stack.enter_context(w)
		began, spent = time.monotonic(), beside_us(agent)
		got = bench.load(agent, denials=True, seconds=seconds)["per_second"]
		share = (beside_us(agent) - spent) / 1e6 / (time.monotonic() - began)
	for w in who:
		if w.failed or not w.asked or not w.read:
			raise Failed(f"{type(w).__name__}: {w.failed or 'nothing asked, or no event'}")
		if isinstance(w, Page) and not w.rounds:  # each takes its time, and asks again when it has all answers
			raise Failed("Page: not one round")
	return got, share


@contextlib.contextmanager
def agent(bench):
	port = free_port()
	with bench.agent("three", 1, ["operated"], {"BENCH_ADMIN": f"127.0.0.1:{port}",
						    "BENCH_TOKEN": TOKEN}) as p:
		p.admin = port
		yield p.await_port(p.port)


def part(bench):
	"""Every NOTIFY has its ACK, or the load generator fails. Few per cent are looked for where one
	turn differs from the next by more: so there are many turns, no longer than it takes to ask
	everything once, and who was first is last in the next round. What the agent's other threads
	take of a core says how much of that is its own doing: it hardly differs from turn to turn."""
	bench.section("At full load, operated against left alone",
		      ("three rules, TCP, depth 32: requests", "ratio", "wanted", "met"))
	seconds = max(1.5, bench.args.seconds)
	with agent(bench) as p:
		bench.load(p, denials=True, seconds=0.2)
		got = {watched: [] for watched in WATCHED}
		for i in range(max(3, 3 * bench.args.rounds)):
			for watched in list(WATCHED)[::1 if i % 2 else -1]:
				got[watched].append(turn(bench, p, watched, seconds))
	for watched, what in (("operated", "scraped, asked, reloaded and ten times listened to"),
			      ("shown", f"the same, and in {PAGES} open pages")):
		bench.ratio_row(what, [o / a for (o, _), (a, _) in zip(got[watched], got["alone"])], 0.97)
		shares = [100 * share for _, share in got[watched]]
		bench.row("meanwhile, processor time of the agent beside its worker's, per cent of one core",
			  f"{median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})")


def smoke(bench):
	with agent(bench) as p:
		turn(bench, p, "shown", 1.5)
