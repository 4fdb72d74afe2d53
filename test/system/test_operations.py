"""What conf/operations.md tells operators is there: commands with their options, and metrics."""

import re
import subprocess

import pytest

from agent import BINARY, ROOT

TEXT = (ROOT / "conf/operations.md").read_text()
CTL = str(BINARY).replace("spoa-ratelimit", "ratelimitctl")
COMMANDS = sorted({c.replace("\\|", "|") for c in re.findall(r"`ratelimitctl ([^`]*)`", TEXT)})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command):
    """Each is one, with these options: so its help says."""
    name, *words = command.split()
    if name == "--help":
        name = "status"
    told = subprocess.run([CTL, name, "--help"], capture_output=True, text=True, timeout=20)
    assert told.returncode == 0, told
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"(^|\s){word}\b", told.stdout), (command, word)


def test_metrics():
    admin = (ROOT / "conf/admin.md").read_text()
    named = set(re.findall(r"`(ratelimit_\w+)`", TEXT))
    assert named
    for metric in named:
        assert f"`{metric}`" in admin, metric
