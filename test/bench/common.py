"""What the parts of the benchmark share: processes that end with their `with`, ports, ratios."""

import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


class Failed(Exception):
	pass


def say(text=""):
	print(text, flush=True)


def free_port():
	with socket.socket() as s:
		s.bind(("127.0.0.1", 0))
		return s.getsockname()[1]


def pairs(text):
	return {k: float(v) for k, v in re.findall(r"^([\w.]+)=([-\d.]+)$", text, re.M)}


def median(values):
	return statistics.median(values)


class Process:
	"""A child that lives as long as its `with`, and not a second longer."""

	def __init__(self, args, env=None):
		self.args = args
		self.env = dict(os.environ, **(env or {}))

	def __enter__(self):
		self.log = tempfile.TemporaryFile("w+")
		self.p = subprocess.Popen(self.args, env=self.env, stdout=self.log, stderr=self.log,
					  stdin=subprocess.DEVNULL)
		return self

	def __exit__(self, *unused):
		if self.p.poll() is None:
			self.p.send_signal(signal.SIGCONT)
			self.p.terminate()
			try:
				self.p.wait(10)
			except subprocess.TimeoutExpired:
				self.p.kill()
				self.p.wait()
		self.log.close()

	def said(self):
		self.log.seek(0)
		return self.log.read()

	def await_port(self, port, seconds=20):
		deadline = time.monotonic() + seconds
		while time.monotonic() < deadline:
			if self.p.poll() is not None:
				raise Failed(f"{self.args[0]} ended with {self.p.returncode}:\n{self.said()}")
			with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
				return self
			time.sleep(0.02)
		raise Failed(f"{self.args[0]} does not listen:\n{self.said()}")

	def resident(self):
		with open(f"/proc/{self.p.pid}/statm") as f:
			return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")

	def thread_cpu_us(self, name=""):
		"""CPU time of the threads whose name begins so, in microseconds."""
		total = 0
		task = f"/proc/{self.p.pid}/task"
		for tid in os.listdir(task):
			with open(f"{task}/{tid}/comm") as f:
				if not f.read().startswith(name):
					continue
			with open(f"{task}/{tid}/schedstat") as f:
				total += int(f.read().split()[0])
		return total / 1000
