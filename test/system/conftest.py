import os
import sys

sys.path.insert(0, os.path.dirname(__file__))

import pytest  # noqa: E402

import agent as agents  # noqa: E402
import redisd  # noqa: E402

# One suite, two stores. RATELIMIT_TEST_BACKEND=redis runs every test with the Redis store; a file
# that names STORES runs with each of them. What cannot hold there, and why:
MEMORY_ONLY = {
    "test_max_keys": "what is pushed out is the memory store's own",
    "test_counters_survive_a_restart": "a state file is the memory store's",
    "test_what_is_asked_during_the_drain_counts": "a state file is the memory store's",
    "test_relative_state_files_start_from_the_configuration": "a state file is the memory store's",
    "test_counters_that_find_no_room_at_the_start_are_told": "a state file is the memory store's",
    "test_many_counters_survive": "a state file is the memory store's",
    "test_a_damaged_state_file_is_set_aside": "a state file is the memory store's",
    "test_a_kill_does_not_cost_the_state_file": "a state file is the memory store's",
    "test_engine_counters_survive_a_restart": "a state file is the memory store's",
}


def pytest_generate_tests(metafunc):
    stores = getattr(metafunc.module, "STORES", ())
    if stores and agents.BACKEND == "memory":
        metafunc.parametrize("store", stores, indirect=True, scope="module")


@pytest.fixture(scope="session")
def suite(tmp_path_factory):
    """The server of every agent whose test does not choose a store."""
    server = redisd.Suite(tmp_path_factory.mktemp("redis"))
    try:
        yield server.start()
    finally:
        server.finish()


@pytest.fixture(scope="module", autouse=True)
def store(request):
    """The name of the store; agents made meanwhile use it."""
    name = getattr(request, "param", agents.BACKEND)
    agents.redis = request.getfixturevalue("suite") if name == "redis" else None
    yield name
    agents.redis = None


@pytest.fixture(autouse=True)
def not_with_this_store(request, store):
    why = MEMORY_ONLY.get(request.node.originalname)
    if store == "redis" and why:
        pytest.skip(why)


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
def shared(store, tmp_path_factory):
    """As run, for agents that a whole file asks; tests then use clients of their own."""
    started = []

    def start(text=None, **kw):
        directory = tmp_path_factory.mktemp("s")
        process = agents.Agent(directory, text, **kw)
        started.append(process)
        return process.start()

    yield start
    finish(started)


@pytest.fixture
def ends():
    """ends(thing): started now, and ended when the test is over, after its agents."""
    started = []

    def start(thing):
        started.append(thing)
        return thing.start() if hasattr(thing, "start") else thing

    yield start
    finish(started)
