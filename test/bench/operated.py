"""The part of the benchmark about operating: what it costs the checks that the agent is scraped,
asked, reloaded and listened to while it is fully loaded."""

import contextlib
import http.client
import json
import selectors
import socket
import threading
import time

from common import Failed, free_port

TOKEN = "of-the-benchmark"
STREAMS = 10
# Once a second each: a Prometheus asks every ten or fifteen, a page every one or two.
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


class Operator:
	"""One thread, that asks everything once a second and reads ten streams of events."""

	def __init__(self, port):
		self.port = port
		self.stop = threading.Event()
		self.asked = self.read = 0
		self.failed = None
		self.thread = threading.Thread(target=self.run)

	def __enter__(self):
		self.thread.start()
		return self

	def __exit__(self, *unused):
		self.stop.set()
		self.thread.join()

	def run(self):
		try:
			self.operate()
		except (OSError, http.client.HTTPException, Failed) as e:
			self.failed = e

	def operate(self):
		with contextlib.ExitStack() as stack, selectors.DefaultSelector() as streams:
			http_to = stack.enter_context(contextlib.closing(
				http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)))
			for _ in range(STREAMS):
				s = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), 10))
				s.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
				streams.register(s, selectors.EVENT_READ)
			turn = 0
			while not self.stop.is_set():
				self.ask(http_to, *ASKS[turn % len(ASKS)])
				turn += 1
				until = time.monotonic() + 1 / len(ASKS)
				while (left := until - time.monotonic()) > 0 and not self.stop.is_set():
					for key, _ in streams.select(left):
						self.read += len(key.fileobj.recv(65536))
					time.sleep(0.02)  # whatever came together is read together

	def ask(self, to, method, path, body):
		headers = {"Authorization": f"Bearer {TOKEN}", **(JSON if method == "POST" else {})}
		to.request(method, path, json.dumps(body) if body else None, headers)
		answer = to.getresponse()
		said = answer.read()
		if answer.status != 200:
			raise Failed(f"{method} {path}: {answer.status} {said[:300]!r}")
		self.asked += 1


def turn(bench, agent, operated, seconds):
	if not operated:
		return bench.load(agent, denials=True, seconds=seconds)["per_second"]
	with Operator(agent.admin) as operator:
		time.sleep(0.2)  # the streams are there
		got = bench.load(agent, denials=True, seconds=seconds)["per_second"]
	if operator.failed or not operator.asked or not operator.read:
		raise Failed(f"operator: {operator.failed or 'nothing asked, or no event'}")
	return got


@contextlib.contextmanager
def agent(bench):
	port = free_port()
	with bench.agent("three", 1, ["operated"], {"BENCH_ADMIN": f"127.0.0.1:{port}",
						    "BENCH_TOKEN": TOKEN}) as p:
		p.admin = port
		yield p.await_port(p.port)


def part(bench):
	"""Every NOTIFY has its ACK, or the load generator fails."""
	bench.section("Scraped, asked, reloaded and ten times listened to at full load, against left alone",
		      ("three rules, TCP, depth 32", "ratio", "wanted", "met"))
	seconds = max(3, bench.args.seconds * 3)
	ratios = []
	with agent(bench) as p:
		bench.load(p, denials=True, seconds=0.2)
		for i in range(max(5, bench.args.rounds)):
			first = i % 2 == 1  # who comes first has the machine as it was left
			got = {o: turn(bench, p, o, seconds) for o in (first, not first)}
			ratios.append(got[True] / got[False])
	bench.ratio_row("requests", ratios, 0.97)


def smoke(bench):
	with agent(bench) as p:
		turn(bench, p, True, 1.5)
