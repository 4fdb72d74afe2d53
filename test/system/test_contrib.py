"""contrib/, and the scripts: what a tool can say of them, and the quick start from end to end."""

import os
import re
import shutil
import socket
import subprocess

import pytest

import stack

ROOT = stack.ROOT
UNIT = ROOT / "contrib/systemd/spoa-ratelimit.service"
SCRIPTS = [ROOT / "contrib/quickstart.sh", ROOT / "test/run.sh", ROOT / "test/layers.sh",
           ROOT / "test/package.sh",
           *(ROOT / "contrib/package" / name for name in ("postinst", "prerm", "postrm"))]
PAGES = [ROOT / "contrib/man/spoa-ratelimit.8", ROOT / "contrib/man/spoa-ratelimit.cfg.5",
         ROOT / "contrib/man/ratelimitctl.8"]


def needs(tool):
    return pytest.mark.skipif(not shutil.which(tool), reason=f"needs {tool}")


def say(*argv, **kw):
    return subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False, **kw)


@needs("systemd-analyze")
def test_the_unit_is_sandboxed():
    done = say("systemd-analyze", "security", "--offline=true", "--no-pager", UNIT)
    overall = re.search(r"Overall exposure level for \S+: ([\d.]+) (\w+)", done.stdout)
    assert overall, done.stdout + done.stderr
    assert overall.group(2) in ("SAFE", "OK"), overall.group()


def test_the_unit_says_what_the_agent_needs():
    lines = UNIT.read_text().splitlines()
    for line in ("Type=notify", "User=spoa-ratelimit", "ExecReload=/bin/sh -c 'kill -HUP $MAINPID'",
                 "StateDirectory=spoa-ratelimit", "RuntimeDirectory=spoa-ratelimit"):
        assert line in lines
    assert [x for x in lines if x.startswith("WatchdogSec=")]


def test_the_socket_unit_is_of_the_configuration():
    """Where they differ, the agent does not start."""
    unit = (ROOT / "contrib/systemd/spoa-ratelimit.socket").read_text()
    listen = re.findall(r"(?m)^ListenStream=(\S+)$", unit)
    text = (ROOT / "conf/ratelimit.cfg").read_text()
    assert re.findall(r'(?m)^\tlisten = \[ "(\S+)" \];', text) == listen


BOUNDS = {
    "agent/store/bans.h": ("BANS_MAX",),
    "agent/limit/policy.h": ("PLAN_MAX", "RULES_MAX", "RULE_WINDOWS_MAX", "TIERS_MAX", "PER_MAX", "PER_ALT_MAX",
                             "TIER_NAME_MAX", "RULE_NAME_MAX"),
    "agent/limit/view.h": ("FIELDS_MAX", "FIELD_NAME_MAX"),
    "agent/config/snapshot.h": ("LISTEN_MAX", "ADMIN_LISTEN_MAX", "SERVERS_MAX", "CONFIG_FILES_MAX"),
    "agent/config/prescan.h": ("SOURCE_FILE_MAX", "SOURCE_TOTAL_MAX", "SOURCE_FILES_MAX", "INCLUDE_DEPTH_MAX",
                               "SETTINGS_MAX"),
    "agent/config/grammar.h": ("NESTING_MAX", "GROUP_SETTINGS_MAX"),
    "agent/config/env.h": ("ENV_TEXT_MAX",),
    "agent/config/rules.c": ("TAG_MAX",),
    "agent/config/rates.c": ("LIMITS_MAX",),
    "agent/config/rate.c": ("UNITS_MAX", "WINDOW_MAX_DAYS"),
    "agent/config/patterns.c": ("LISTED_MAX",),
    "agent/config/tiers_file.c": ("TIERS_FILE_MAX",),
}


def test_the_manual_has_the_bounds_of_the_code():
    page = (ROOT / "contrib/man/spoa-ratelimit.cfg.5").read_text()
    bounds = page[page.index(".Sh BOUNDS"):page.index(".Sh EXAMPLES")]
    for path, names in BOUNDS.items():
        for name in names:
            value, shift = re.search(rf"\b{name} = (\d+)(?: << (\d+))?", (ROOT / path).read_text()).groups()
            number = int(value) << int(shift or 0)
            told = f"{number >> 20} MiB" if shift == "20" and number > 1 << 20 else str(number)
            assert re.search(rf"\b{told}\b", bounds), f"{name} of {path} is {told}"


@needs("mandoc")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_manual_pages_are_well_formed(page):
    done = say("mandoc", "-T", "lint", "-W", "warning", page)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_manual_names_every_variable():
    text = PAGES[0].read_text()
    for name in stack.answer_vars():
        assert re.search(rf"(?m)^\.It Ic (.* , )?{name}( ,|$)", text), name


def test_the_manual_names_every_setting():
    text = PAGES[1].read_text()
    full = say(stack.agents.BINARY, "--full-config").stdout
    # In groups, and of rules, which the full configuration has in a comment.
    names = set(re.findall(r"(?m)^(?:#~ )?\t?(\w+) = ", full)) | set(re.findall(r"(?m)^#   (\w+)  +", full))
    assert len(names) > 30
    for name in names:
        assert re.search(rf"(?m)^\.It Ic (.* , )?{name}( ,|$)", text), name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_the_scripts_are_posix_shell(script):
    sh = shutil.which("dash") or "sh"
    done = say(sh, "-n", script)
    assert done.returncode == 0, done.stderr
    if shutil.which("shellcheck"):
        done = say("shellcheck", "-s", "sh", script)
        assert done.returncode == 0, done.stdout


def test_run_sh_explains_itself():
    done = say("sh", ROOT / "test/run.sh", "--help")
    assert done.returncode == 0 and "--on SUITE" in done.stdout
    assert say("sh", ROOT / "test/run.sh", "--unknown").returncode == 1


def copy_programs(build):
    """What they do is what other tests are about: their place is enough here."""
    for name in ("spoa-ratelimit", "ratelimitctl"):
        shutil.copy(os.path.join(os.path.dirname(stack.agents.BINARY), name), build / "agent" / name)


def links_and_commands(folder):
    """What the guides in there link to is there, and so is what their printed commands name."""
    seen = 0
    for guide in folder.rglob("*.md"):
        text = guide.read_text()
        links = {x.partition("#")[0] for x in re.findall(r"\]\(([^)\s]+)\)", text)}
        for link in {x for x in links if x and not re.match(r"[a-z]+:", x)}:
            seen += 1
            assert (guide.parent / link).exists(), f"{guide.relative_to(folder)}: {link}"
        for line in re.findall(r"(?m)^    +(.*)$", text):
            for path in re.findall(r"(?<![\w/.$])((?:conf|contrib|haproxy)/[\w./-]+)", line):
                seen += 1
                assert (folder / path).exists(), f"{guide.relative_to(folder)}: {line}"
    assert seen > 30


@needs("cmake")
def test_what_is_installed(tmp_path):
    """Under a prefix of its own; the operator's files are kept by the second time."""
    build = tmp_path / "build"
    done = say("cmake", "-S", ROOT, "-B", build, "-G", "Ninja", "-DTESTS=OFF",
               "-DCMAKE_INSTALL_PREFIX=/usr")
    assert done.returncode == 0, done.stderr
    copy_programs(build)
    env = {**os.environ, "DESTDIR": str(tmp_path / "root")}
    root = tmp_path / "root"
    done = say("cmake", "--install", build, env=env)
    assert done.returncode == 0, done.stderr
    for name in ("usr/sbin/spoa-ratelimit", "usr/share/man/man8/spoa-ratelimit.8",
                 "usr/bin/ratelimitctl", "usr/share/man/man8/ratelimitctl.8",
                 "usr/share/bash-completion/completions/ratelimitctl",
                 "usr/share/zsh/vendor-completions/_ratelimitctl",
                 "usr/share/man/man5/spoa-ratelimit.cfg.5", "etc/spoa-ratelimit/ratelimit.cfg",
                 "etc/spoa-ratelimit/tiers.map"):
        assert (root / name).exists(), name
    links_and_commands(root / "usr/share/doc/spoa-ratelimit")
    unit = next(root.glob("usr/lib/systemd/system/spoa-ratelimit.service")).read_text()
    assert unit == UNIT.read_text()

    mine = root / "etc/spoa-ratelimit/ratelimit.cfg"
    mine.write_text("# mine\n")
    assert say("cmake", "--install", build, env=env).returncode == 0
    assert mine.read_text() == "# mine\n"


def container_file():
    """How it builds, and the image."""
    return (ROOT / "contrib/Containerfile").read_text().split("FROM debian:bookworm-slim\n")


def copy_as_container_file(source):
    """What it copies, to where it does."""
    for line in re.findall(r"(?m)^COPY (.*)$", container_file()[0]):
        *names, place = line.split()
        (source / place).mkdir(parents=True, exist_ok=True)
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / place, dirs_exist_ok=True)
            else:
                shutil.copy(ROOT / name, source / place)


def test_the_container_file():
    """No container is run here, test/container.sh does; but what it installs and starts is what there
    is."""
    build, image = container_file()
    # It builds with what the README installs.
    readme = (ROOT / "README.md").read_text()
    wanted = re.search(r"(?s)apt-get install (cmake .*?)\n +cmake --preset", readme).group(1)
    assert set(wanted.replace("\\", " ").split()) <= set(build.replace("\\", " ").split())
    changed = re.search(r"sed -i 's/\"(\S+?)\"/", image).group(1).replace("\\", "")
    assert f'listen = [ "{changed}" ];' in (ROOT / "conf/ratelimit.cfg").read_text()
    assert re.search(r"(?m)^USER spoa-ratelimit$", image)
    assert 'HEALTHCHECK' in image and 'ENTRYPOINT ["/usr/sbin/spoa-ratelimit"]' in image


@needs("cpack")
@needs("dpkg-shlibdeps")
def test_the_package(tmp_path):
    """What is in it and what it says, from no more than a container has. test/package.sh installs one."""
    source, build = tmp_path / "source", tmp_path / "build"
    copy_as_container_file(source)
    done = say("cmake", "-S", source, "-B", build, "-G", "Ninja", "-DTESTS=OFF",
               "-DCMAKE_INSTALL_PREFIX=/usr")
    assert done.returncode == 0, done.stderr
    copy_programs(build)
    done = say("cpack", "-G", "DEB", cwd=build)
    assert done.returncode == 0, done.stdout + done.stderr
    (deb,) = build.glob("*.deb")
    control = tmp_path / "control"
    assert say("dpkg-deb", "-e", deb, control).returncode == 0
    listed = say("dpkg-deb", "-c", deb).stdout
    files = re.findall(r"(?m)^-\S+ root/root .* \./(\S+)$", listed)
    assert len(files) == len(re.findall("(?m)^-", listed)) > 20, "all are root's"

    # Each file in /etc is the operator's.
    conffiles = (control / "conffiles").read_text().split()
    assert sorted(conffiles) == sorted("/" + x for x in files if x.startswith("etc/"))
    for name in ("usr/lib/systemd/system/spoa-ratelimit.service",
                 "usr/lib/systemd/system/spoa-ratelimit.socket", "usr/sbin/spoa-ratelimit",
                 "usr/lib/sysusers.d/spoa-ratelimit.conf", "usr/lib/tmpfiles.d/spoa-ratelimit.conf",
                 "usr/share/doc/spoa-ratelimit/copyright",
                 "usr/share/doc/spoa-ratelimit/changelog.Debian.gz",
                 "usr/share/doc/spoa-ratelimit/haproxy/haproxy.cfg",
                 "usr/share/man/man8/spoa-ratelimit.8.gz"):
        assert name in files, name
    for name in ("postinst", "prerm", "postrm"):
        assert (control / name).stat().st_mode & 0o777 == 0o755
    fields = (control / "control").read_text()
    for name in ("libev4", "libconfig", "libhiredis", "libmicrohttpd", "libsodium"):
        assert re.search(rf"(?m)^Depends: .*\b{name}", fields), fields
    if shutil.which("lintian"):
        done = say("lintian", "--allow-root", "--fail-on", "error", deb)
        assert done.returncode == 0, done.stdout


@needs("cpack")
def test_a_package_is_for_usr(tmp_path):
    done = say("cmake", "-S", ROOT, "-B", tmp_path, "-G", "Ninja", "-DTESTS=OFF")
    assert done.returncode == 0, done.stderr
    done = say("cpack", "-G", "DEB", cwd=tmp_path)
    assert done.returncode and "--preset package" in done.stderr, done.stdout + done.stderr


def free(port):
    with socket.socket() as s:
        try:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


@needs("cmake")
@needs("curl")
@needs("ninja")
def test_the_quick_start(tmp_path):
    if not (free(8080) and free(9600) and free(9601)):
        pytest.skip("needs the ports 8080, 9600 and 9601")
    # A copy of what it needs: its build folder and this tree's are two things.
    for name in ("agent", "conf", "contrib", "haproxy"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("CMakeLists.txt", "CMakePresets.json"):
        shutil.copy(ROOT / name, tmp_path)
    # An agent that is slow to start, as on a busy machine: HAProxy must not take it for DOWN.
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin/cmake"
    slow.write_text(f"""#!/bin/sh
'{shutil.which("cmake")}' "$@" || exit 1
[ "$1" = --build ] || exit 0
agent=build/release/agent/spoa-ratelimit
mv $agent $agent-at-once
printf '#!/bin/sh\\nsleep 0.6\\nexec %s "$@"\\n' $agent-at-once >$agent
chmod +x $agent
""")
    slow.chmod(0o755)
    done = say("sh", tmp_path / "contrib/quickstart.sh", timeout=600,
               env=dict(os.environ, PATH=f"{tmp_path}/bin:{os.environ['PATH']}"))
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    for n, codes in (("8", r"5 x 200 +3 x 429"), ("13", r"10 x 200 +3 x 429"),
                     ("104", r"10\d x 200 +\d+ x 429"), ("510", r"50\d x 200 +\d+ x 429")):
        assert re.search(rf"(?m)^ +\w+ +{n} requests .* {codes}", said), said
    for field in ("HTTP/1.1 200 OK", "HTTP/1.1 429 Too Many Requests", "retry-after: ",
                  "ratelimit: ", "ratelimit-policy: ", "application/problem+json", "slower lane"):
        assert field in said, said
    # Nothing of it is left.
    assert free(8080) and free(9600)
