"""What a reader of the README wants to know first, of RESULTS.md: a short table and a picture."""

import html
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BEGIN, END = "<!-- bench:begin -->\n", "<!-- bench:end -->"

# (section of RESULTS.md, row of it, in the README's words); each by how it begins.
ROWS = (
	("Through HAProxy", "the agent, three rules, of the do-nothing",
	 "requests through HAProxy, three rules, of those with an agent that does nothing and sets one variable"),
	("Through HAProxy", "the agent, three rules, of a do-nothing",
	 "the same, of one that does nothing and sets the same twelve"),
	("Through HAProxy", "the do-nothing agent that sets twelve",
	 "that one, of the first: what HAProxy's own work for twelve variables leaves"),
	("Through HAProxy", "the agent, of three stick tables",
	 "the same, of those with three stick tables"),
	("Raw SPOP, 4 connections", "tcp, 32, 1, three",
	 "requests without HAProxy, 32 in flight, of the do-nothing agent's"),
	("Raw SPOP, 4 connections", "tcp, 1, 1, three", "the same, one at a time"),
	("A decision", "instructions for a decision, three plain", "instructions for a decision, three plain rules"),
	("A decision", "instructions for a decision, three rules of",
	 "the same, three rules of three algorithms, with patterns"),
	("A decision", "allocations of the whole agent", "allocations for 20,000 requests"),
	("Memory", "resident bytes", "bytes of memory for a key, of a million"),
	("A million keys", "requests, TCP", "requests with a million keys, of those with a thousand"),
	("Redis: strict", "requests, of calls",
	 "Redis, exact, three limits: requests, of what `redis-benchmark` gets of a like script"),
	("Redis: through HAProxy", "the agent, of one that does an INCR for each request, in Go",
	 "the same through HAProxy, of an agent in Go with one INCR for each request"),
	("Redis: through HAProxy", "the agent, of one that does an INCR for each request, in C, each waited for, by a",
	 "the same through HAProxy, of an agent in C with one INCR for each request, and a thread for each connection"),
	("Redis: a flood", "requests", "a flood of denied requests, Redis, of the memory store's"),
	("Redis: leased", "requests", "leased hot keys, Redis, of the memory store's"),
	("Redis: memory", "used_memory", "bytes of Redis' memory for a key, of a million"),
)


def read(table):
	"""[(section, [row's cells])] of a RESULTS.md."""
	found = []
	for part in table.split("\n**")[1:]:
		title, _, body = part.partition("**")
		for line in body.splitlines():
			if line.startswith("| ") or line.startswith("|  |"):
				found.append((title, [c.strip() for c in line.strip("|").split("|")]))
	return found


def cells(rows, section, what):
	"""The row's cells, or None where that was not measured."""
	for title, row in rows:
		if title.startswith(section) and row[0].startswith(what):
			return (row + ["", "", ""])[:4]
	return None


def summary(table):
	"""What stands between the README's marks."""
	rows = read(table)
	lines = [table.split("\n**")[0].strip(), "",
		 "![Requests a second through HAProxy, as shares](test/bench/results.svg)", "",
		 "|  | measured | wanted | met |", "|---|---|---|---|"]
	for section, what, words in ROWS:
		row = cells(rows, section, what)
		if row:
			lines.append(f"| {words} | {row[1]} | {row[2]} | {row[3]} |")
	lines += ["", "All of it: [`test/bench/RESULTS.md`](test/bench/RESULTS.md); how to read it, and to "
		  "measure it yourself: [`test/bench`](test/bench).", ""]
	return "\n".join(lines)


def shares(table):
	"""[(who, share of HAProxy alone, whether it is this agent)], as far as they were measured."""
	rows = read(table)

	def share(section, what):
		row = cells(rows, section, what)
		number = re.match(r"[0-9.]+", row[1]) if row else None
		return float(number[0]) if number else None

	null = share("Through HAProxy", "the do-nothing agent, of HAProxy alone")
	found = [("HAProxy alone", 1.0, False),
		 ("three stick tables", share("Through HAProxy", "three stick tables"), False),
		 ("an agent that does nothing", null, False),
		 ("spoa-ratelimit, memory, three limits",
		  share("Through HAProxy", "the agent, of HAProxy alone"), True)]
	# Measured in another part of the run, of the do-nothing agent there.
	for who, what, ours in (
			("spoa-ratelimit, Redis, three limits, exact", "the agent, of the do-nothing", True),
			("an agent in Go with one INCR", "INCR by go-redis", False),
			("an agent with one INCR, a thread each", "INCR each waited for, by a thread", False)):
		got = share("Redis: through HAProxy", what)
		if got is not None and null is not None:
			found.append((who, got * null, ours))
	return [f for f in found if f[1] is not None]


def picture(table):
	"""Bars, as SVG that follows the reader's light or dark."""
	bars = shares(table)
	step, left, full = 30, 290, 380
	height = step * len(bars) + 40
	out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 {height}" width="740" height="{height}" '
	       'font-family="sans-serif" font-size="14" role="img">',
	       "<title>Requests a second through HAProxy, 50 connections, as shares of HAProxy alone</title>",
	       "<style>text{fill:#24292f}.o{fill:#8c959f}.u{fill:#1a7f37}"
	       "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.o{fill:#6e7681}.u{fill:#3fb950}}</style>",
	       '<text x="0" y="16">Requests a second through HAProxy, 50 connections; HAProxy alone is 1</text>']
	for i, (who, part, ours) in enumerate(bars):
		y = 32 + i * step
		out += [f'<text x="{left - 10}" y="{y + 16}" text-anchor="end">{html.escape(who)}</text>',
			f'<rect x="{left}" y="{y}" width="{full * min(part, 1.1):.0f}" height="22" rx="3" '
			f'class="{"u" if ours else "o"}"/>',
			f'<text x="{left + full * min(part, 1.1) + 8:.0f}" y="{y + 16}">{part:.2f}</text>']
	return "\n".join([*out, "</svg>", ""])


def files(table):
	"""{path: text}: the README and the picture as they belong to this table."""
	with open(f"{ROOT}/README.md") as f:
		before, rest = f.read().split(BEGIN)
	after = rest.split(END)[1]
	return {f"{ROOT}/README.md": before + BEGIN + summary(table) + END + after,
		f"{HERE}/results.svg": picture(table)}


def write(table):
	for path, text in files(table).items():
		with open(path, "w") as f:
			f.write(text)


def stale(table):
	"""The files that say something else than the table."""
	found = []
	for path, text in files(table).items():
		with open(path) as f:
			if f.read() != text:
				found.append(os.path.relpath(path, ROOT))
	return found
