import os
import sys

sys.path.insert(0, os.path.dirname(__file__))

import pytest  # noqa: E402

import agent as agents  # noqa: E402


def finish(started):
    """End all of them, and only then say what was wrong."""
    wrong = []
    for process in reversed(started):
        try:
            process.finish()
        except AssertionError as e:
            wrong.append(str(e))
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def run(tmp_path):
    """run(rules=…, agent=…, top=…): a started agent that is stopped, and judged, at the end."""
    started = []

    def start(text=None, ready=True, **kw):
        kw.setdefault("name", f"a{len(started)}")
        process = agents.Agent(tmp_path, text, **kw)
        started.append(process)
        return process.start(ready)

    yield start
    finish(started)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """As run, for agents that a whole file asks; tests then use clients of their own."""
    started = []

    def start(text=None, **kw):
        directory = tmp_path_factory.mktemp("s")
        process = agents.Agent(directory, text, **kw)
        started.append(process)
        return process.start()

    yield start
    finish(started)
