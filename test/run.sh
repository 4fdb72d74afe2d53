#!/bin/sh
# Installs what the tests need (Debian 12 or newer, as root), builds, runs all of them, and ends
# with a line "N passed, N failed". Not as root, or offline, it works where the packages are there.
#
#   sh test/run.sh                      all of it
#   sh test/run.sh --only PART[,PART]   parts: format release dev tsan fuzz tidy system races package
#   sh test/run.sh --on SUITE           all of it in a Debian of its own (bookworm, trixie, testing,
#                                       sid) under build/on/SUITE, by debootstrap and chroot; root
#   sh test/run.sh --haproxy SUITE      what goes through HAProxy, with that of another Debian
#                                       (bullseye: 2.2); root. HAPROXY=FILE ... --only dev,haproxy:
#                                       with one of your own
#
# The parts in words: format and tidy, the tools' word on the source; dev, tsan and fuzz, the unit
# tests, scenarios and fuzz targets under AddressSanitizer with UBSan, under ThreadSanitizer, by
# libFuzzer; release, that it builds; system, the agent as a process and behind a real HAProxy;
# races, part of these with ThreadSanitizer; haproxy, those of system that go through HAProxy (only if
# asked for); package, a Debian package and lintian's word on it (with --on only, if not asked for),
# which --on then tries in a second Debian that has nothing else.
set -u

usage() {
	sed -n '2,19s/^# \{0,1\}//p' "$0"
}

cd "$(dirname "$0")/.." || exit 1
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
parts="format release dev tsan fuzz tidy system races"
chosen=
suite=
haproxy_suite=
while [ $# -gt 0 ]; do
	case $1 in
	--only) parts=$(echo "${2-}" | tr , ' ') chosen=yes; shift ;;
	--on) suite=${2-}; shift ;;
	--haproxy) haproxy_suite=${2-}; shift ;;
	-h | --help) usage; exit 0 ;;
	*) usage >&2; exit 1 ;;
	esac
	shift || { usage >&2; exit 1; }
done
[ -z "$suite" ] || [ -z "$haproxy_suite" ] || { echo "--on and --haproxy: one of them" >&2; exit 1; }
[ -z "$haproxy_suite" ] || [ -n "$chosen" ] || parts="dev haproxy"

packages="gcc libc6-dev cmake ninja-build pkg-config libev-dev libconfig-dev libjansson-dev libsodium-dev
libsystemd-dev libhiredis-dev libmicrohttpd-dev libcurl4-openssl-dev libcmocka-dev clang libclang-rt-dev
llvm clang-format clang-tidy haproxy redis-server openssl libssl-dev iproute2 curl mandoc systemd python3
python3-pytest python3-pytest-xdist python3-prometheus-client python3-selenium chromium chromium-driver
python3-yaml prometheus"

missing() {
	for p; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo "$p"
	done
}

# install_packages PACKAGE...: those that are not there
install_packages() {
	command -v dpkg-query >/dev/null || { echo "no Debian: taking it that everything is there"; return; }
	lacking=$(missing "$@" | tr '\n' ' ')
	[ -n "$lacking" ] || return 0
	if [ "$(id -u)" != 0 ]; then
		echo "not root, and these are missing: $lacking"
		return
	fi
	echo "installing: $lacking"
	export DEBIAN_FRONTEND=noninteractive
	# Retried once: a mirror in the middle of its update mends itself.
	for _ in 1 2; do
		# shellcheck disable=SC2086
		{ apt-get -qq update && without_services apt-get -qq install -y --no-install-recommends $lacking; } \
			>build/log/apt.txt 2>&1 </dev/null && return
	done
	tail -n 20 build/log/apt.txt
}

# Redis, HAProxy, Prometheus: tests start their own, and the packages' services stay off.
without_services() (
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		trap 'rm -f $policy' EXIT
		trap 'exit 130' INT TERM HUP
		no_service >$policy
		chmod 755 $policy
	fi
	"$@"
)

no_service() {
	printf '#!/bin/sh\nexit 101\n'
}

# --- in a Debian of its own ----------------------------------------------------------------------

# bootstrap SUITE ROOT: a Debian, made once
bootstrap() {
	[ "$(id -u)" = 0 ] || { echo "--on and --haproxy need root" >&2; exit 1; }
	install_packages debootstrap
	# Where this machine has its packages from, unless DEBIAN_MIRROR says where.
	# shellcheck disable=SC2016
	mirror=${DEBIAN_MIRROR-$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 2>/dev/null |
		awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }')}
	[ ! -e "$2/.complete" ] || return 0
	rm -rf "$2"
	mkdir -p "$2"
	echo "debootstrap $1: some minutes, once"
	debootstrap --variant=minbase "$1" "$2" ${mirror:+"$mirror"} >build/log/debootstrap.txt 2>&1 ||
		{ tail -n 20 build/log/debootstrap.txt >&2; exit 1; }
	# No service starts in there.
	no_service >"$2/usr/sbin/policy-rc.d"
	chmod 755 "$2/usr/sbin/policy-rc.d"
	# A mirror that is some weeks behind is no reason not to test.
	echo 'Acquire::Check-Valid-Until "false";' >"$2/etc/apt/apt.conf.d/90-mirror"
	for f in /etc/apt/apt.conf.d/*proxy* /etc/apt/apt.conf; do
		[ -e "$f" ] && cp "$f" "$2/etc/apt/apt.conf.d/"
	done
	touch "$2/.complete"
}

# What is installed there may apply its sysctl.d, and the kernel is this machine's.
mount_proc() {
	mount -t proc proc "$1/proc" 2>/dev/null || return 1
	mount --bind -o ro "$1/proc/sys" "$1/proc/sys" && return
	umount "$1/proc"
	return 1
}

on_suite() {
	root=$PWD/build/on/$suite
	[ -n "$chosen" ] || parts="$parts package"
	bootstrap "$suite" "$root"
	cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null
	rm -rf "$root/src"
	mkdir "$root/src"
	# What is committed: this is about the project, not about what lies around.
	git archive HEAD | tar -x -C "$root/src" || exit 1
	mounted=
	trap '[ -z "$mounted" ] || umount -R "$root/proc"' EXIT
	trap 'exit 130' INT TERM HUP
	mount_proc "$root" && mounted=yes
	chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root \
		RESULT=/src/build/result ${http_proxy:+http_proxy="$http_proxy"} \
		sh /src/test/run.sh --only "$(echo "$parts" | tr ' ' ,)"
	passed=0 failed=1
	read -r passed failed <"$root/src/build/result"
	if wanted package; then
		try_package
		try_units
		if grep -q "^FROM debian:$suite-slim" contrib/Containerfile; then
			try_container
		fi
	fi
	say "done"
	echo "$passed passed, $failed failed"
	[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
	exit $?
}

# What was built in there, in a Debian that has nothing of it.
try_package() {
	bootstrap "$suite" "$root-empty"
	for deb in "$root"/src/build/package/*.deb; do
		run "package-$suite" sh test/package.sh "$deb" "$root-empty"
		status=$?
		log=build/log/package-$suite.txt
		count "package-$suite" "$(grep -c '^ok: ' "$log")" "$(grep -c '^FAILED: ' "$log")" $status \
			"the package in an empty $suite"
	done
}

# Its units under a systemd of their own, where one can be started.
try_units() {
	bootstrap "$suite" "$root-systemd"
	for deb in "$root"/src/build/package/*.deb; do
		run "systemd-$suite" sh test/systemd.sh "$deb" "$root-systemd"
		status=$?
		log=build/log/systemd-$suite.txt
		if [ $status = 77 ]; then
			say "the units: left out: $(tail -n 1 "$log")"
			continue
		fi
		count "systemd-$suite" "$(grep -c '^ok: ' "$log")" "$(grep -c '^FAILED: ' "$log")" $status \
			"the units in a booted $suite"
	done
}

# The container, from a Debian that has nothing of it either.
try_container() {
	install_packages buildah
	bootstrap "$suite" "$root-image"
	run container sh test/container.sh "$root/src" "$root-image" "$PWD/build/on/container"
	status=$?
	log=build/log/container.txt
	count container "$(grep -c '^ok: ' "$log")" "$(grep -c '^FAILED: ' "$log")" $status "the container"
}

# The HAProxy of $haproxy_suite, run from here with the libraries that it came with.
other_haproxy() {
	root=$PWD/build/on/$haproxy_suite-haproxy
	bootstrap "$haproxy_suite" "$root"
	if [ ! -e "$root/usr/sbin/haproxy" ]; then
		cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null
		{ chroot "$root" apt-get -qq update && DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -qq install -y \
			--no-install-recommends haproxy; } >build/log/apt-haproxy.txt 2>&1 </dev/null ||
			{ tail -n 20 build/log/apt-haproxy.txt >&2; exit 1; }
	fi
	# The linker by its own name: what it is known by is a link, and may lead out of there.
	linker=$(chroot "$root" sh -c 'readlink -f /lib*/ld-linux*.so.* | head -n 1')
	HAPROXY=$root/run-haproxy
	cat >"$HAPROXY" <<-END
		#!/bin/sh
		exec "$root$linker" --library-path "$(echo "$root"/usr/lib/*-linux-*):$(echo "$root"/lib/*-linux-*)" \
			"$root/usr/sbin/haproxy" "\$@"
	END
	chmod 755 "$HAPROXY"
	"$HAPROXY" -v || exit 1
	export HAPROXY
}

# --- here ----------------------------------------------------------------------------------------

mkdir -p build/log
passed=0
failed=0
began=$(date +%s)
jobs=$(nproc 2>/dev/null || echo 2)
tidying=

# Address space randomisation with more bits than a sanitizer of the time knew ends it at its start,
# "unexpected memory mapping"; where it can be switched off, it is, for what is run from here.
fixed=
if setarch "$(uname -m)" -R true 2>/dev/null; then
	fixed="setarch $(uname -m) -R"
fi
export ASAN_OPTIONS="${ASAN_OPTIONS-detect_leaks=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS-print_stacktrace=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS-second_deadlock_stack=1}"

say() {
	printf '%4d s  %s\n' $(($(date +%s) - began)) "$*"
}

wanted() {
	case " $parts " in *" $1 "*) return 0 ;; esac
	return 1
}

# alive PID: a dot now and then, until it ends
alive() {
	ticks=0
	while kill -0 "$1" 2>/dev/null; do
		sleep 1
		ticks=$((ticks + 1))
		[ $((ticks % 20)) != 0 ] || printf .
	done
	[ $ticks -lt 20 ] || echo
}

# run LOG COMMAND...: into build/log/LOG.txt; its status
run() {
	log=build/log/$1.txt
	shift
	"$@" >"$log" 2>&1 </dev/null &
	alive $!
	wait $!
}

show() {
	say "FAILED: $1; the end of build/log/$2.txt:"
	# Of what ctest says, only the tests that failed.
	grep -vE '^ +Start +[0-9]+: |^ *[0-9]+/[0-9]+ Test .* Passed ' "build/log/$2.txt" |
		tail -n "${3:-60}" | sed 's/^/        /'
}

# judge NAME LOG STATUS: one step that passes or fails
judge() {
	if [ "$3" = 0 ]; then
		passed=$((passed + 1))
		say "$1: ok"
	else
		failed=$((failed + 1))
		show "$1" "$2"
	fi
}

# build PRESET [cmake's options]: all of it, or $targets
build() {
	preset=$1
	shift
	# A cache from another place (the tree was moved, or copied into a chroot) knows only its own.
	grep -qsx "CMAKE_HOME_DIRECTORY:INTERNAL=$(pwd -P)" "build/$preset/CMakeCache.txt" ||
		rm -rf "build/$preset"
	# shellcheck disable=SC2016
	run "build-$preset" sh -c 'preset=$1; targets=$2; shift 2
		cmake --preset "$preset" "$@" && cmake --build "build/$preset" ${targets:+--target $targets}' \
		sh "$preset" "${targets:-}" "$@"
	judge "build $preset" "build-$preset" $?
	[ "$failed_before" = "$failed" ]
}

# count LOG PASSED FAILED STATUS NAME: a test runner's own numbers; one that has none has failed
count() {
	passed=$((passed + ${2:-0}))
	failed=$((failed + ${3:-0}))
	if [ "$4" != 0 ] && [ "${3:-0}" = 0 ]; then
		failed=$((failed + 1))
	fi
	if [ "$4" = 0 ]; then
		say "$5: ${2:-0} passed"
	else
		show "$5: ${2:-0} passed, ${3:-0} failed" "$1" 120
	fi
}

ctests() {
	# shellcheck disable=SC2086
	run "ctest-$1" $fixed ctest --test-dir "build/$1" -j "$jobs" --output-on-failure --no-tests=error
	status=$?
	first=build/log/ctest-$1.txt
	bad=$(sed -n 's/.*tests passed, \([0-9]*\) tests\{0,1\} failed out of \([0-9]*\).*/\1/p' "$first")
	all=$(sed -n 's/.*tests passed, \([0-9]*\) tests\{0,1\} failed out of \([0-9]*\).*/\2/p' "$first")
	# As with the system tests, below: a few that fail beside others are asked three times more, alone.
	# shellcheck disable=SC2086
	if [ "${bad:-0}" -gt 0 ] && [ "$bad" -le 3 ] && run "ctest-$1-alone" $fixed ctest --test-dir "build/$1" \
		--rerun-failed --repeat until-fail:3 --output-on-failure --no-tests=error; then
		say "ctest $1: failed beside others, passed alone three times of three:"
		sed -n '/The following tests FAILED/,/^Errors/{/^\t/p}' "$first" | sed 's/^/        /'
		bad=0 status=0
	fi
	count "ctest-$1" $((${all:-0} - ${bad:-0})) "${bad:-0}" $status "ctest $1"
}

# pytest_number LOG WORD: how many of its last line
pytest_number() {
	tail -n 1 "build/log/$1.txt" | grep -oE "[0-9]+ $2" | awk '{ n += $1 } END { print n + 0 }'
}

# alone LOG AGENT [pytest's arguments]: of a few that failed while others took the cores, whether they
# pass three times of three with nothing beside them. What the machine did to them is no fault of the
# agent's; a fault of the agent's is there again. They are named either way.
alone() {
	first=$1
	tested=$2
	shift 2
	cache=build/log/$first.cache
	cp "$cache/v/cache/lastfailed" "build/log/$first-failed.json" || return 1
	for _ in 1 2 3; do
		cp "build/log/$first-failed.json" "$cache/v/cache/lastfailed"
		# shellcheck disable=SC2086
		AGENT=$PWD/$tested run "$first-alone" $fixed /usr/bin/python3 -m pytest -q -ra -o cache_dir="$PWD/$cache" \
			--last-failed --last-failed-no-failures=none "$@" || return 1
		[ "$(pytest_number "$first-alone" passed)" = "$bad" ] || return 1
	done
	say "$first: failed beside others, passed alone three times of three:"
	grep -E '^(FAILED|ERROR) ' "build/log/$first.txt" | sed 's/^/        /'
}

# pytests LOG AGENT [pytest's arguments]
pytests() {
	name=$1
	agent=$2
	shift 2
	# They mostly wait: more side by side than there are cores, each file in one place.
	shards=
	if /usr/bin/python3 -c 'import xdist' 2>/dev/null; then
		shards="-n $((jobs < 7 ? jobs + 1 : 8)) --dist loadfile"
	fi
	# shellcheck disable=SC2086
	AGENT=$PWD/$agent run "$name" $fixed /usr/bin/python3 -m pytest -q -ra -o cache_dir="$PWD/build/log/$name.cache" $shards "$@"
	status=$?
	bad=$(pytest_number "$name" '(failed|errors?)')
	good=$(pytest_number "$name" passed)
	if [ "$bad" -gt 0 ] && [ "$bad" -le 5 ] && alone "$name" "$agent" "$@"; then
		good=$((good + bad)) bad=0 status=0
	fi
	count "$name" "$good" "$bad" $status "$name"
	grep -E '^SKIPPED' "build/log/$name.txt" | sed 's/^/        /'
}

# Other versions of these tools have other opinions: theirs is asked where it is the one that the
# tree was formatted with.
known_version() {
	"$1" --version 2>/dev/null | grep -q 'version 14\.'
}

# As long as nobody else wants a core: it takes minutes of one, and the tests that follow mostly wait.
begin_tidy() {
	idle="nice -n 19"
	if chrt --idle 0 true 2>/dev/null; then
		idle="chrt --idle 0"
	fi
	find agent -name '*.c' | sort >build/log/tidy-sources.txt
	$idle xargs -a build/log/tidy-sources.txt -P "$jobs" -n 1 clang-tidy --quiet -p build/dev \
		>build/log/tidy.txt 2>&1 </dev/null &
	tidying=$!
	trap 'kill $tidying 2>/dev/null' EXIT
	trap 'exit 130' INT TERM HUP
}

end_tidy() {
	alive $tidying
	wait $tidying
	judge "clang-tidy" tidy $?
	trap - EXIT INT TERM HUP
}

sources() {
	find agent test -name '*.[ch]' -not -path '*/build/*' | sort
}

[ -z "$suite" ] || on_suite
[ -z "$haproxy_suite" ] || other_haproxy

say "packages"
# shellcheck disable=SC2086
install_packages $packages
# A Debian that debootstrap made knows no names yet, not even this one.
if ! getent hosts localhost >/dev/null && [ "$(id -u)" = 0 ]; then
	say "/etc/hosts: localhost is added"
	echo '127.0.0.1 localhost' >>/etc/hosts
fi
# Debian 13 and newer have Valkey as well.
if [ -n "$(apt-cache --quiet=2 search --names-only '^valkey-server$' 2>/dev/null)" ]; then
	install_packages valkey-server
fi

if wanted format; then
	if known_version clang-format; then
		# shellcheck disable=SC2046
		run format clang-format --dry-run -Werror $(sources)
		judge "clang-format" format $?
	else
		say "clang-format: left out, this is not version 14"
	fi
fi

if wanted dev; then
	failed_before=$failed
	build dev -DTESTS=ON && ctests dev
fi

# Its word is heard at the end.
if wanted tidy; then
	if known_version clang-tidy; then
		[ -e build/dev/compile_commands.json ] || cmake --preset dev >/dev/null
		# Fuzz targets and tests are for tests; the agent is what is shipped.
		begin_tidy
	else
		say "clang-tidy: left out, this is not version 14"
	fi
fi

for preset in tsan fuzz; do
	if wanted $preset; then
		failed_before=$failed
		build "$preset" -DTESTS=ON && ctests "$preset"
	fi
done

if wanted release; then
	failed_before=$failed
	# What is handed out and what is measured; the unit tests, each linked anew with all of it, run elsewhere.
	targets="spoa-ratelimit ratelimitctl bench"
	build release -DTESTS=ON || :
	targets=
fi

if wanted system; then
	if [ -x build/dev/agent/spoa-ratelimit ]; then
		pytests system build/dev/agent/spoa-ratelimit test/system
		# One suite, two stores: what the wire and HAProxy see is the same.
		RATELIMIT_TEST_BACKEND=redis
		export RATELIMIT_TEST_BACKEND
		pytests system-redis build/dev/agent/spoa-ratelimit test/system/test_wire.py \
			test/system/test_process.py test/system/test_config.py test/system/test_haproxy.py \
			test/system/test_haproxy_files.py test/system/test_examples.py
		unset RATELIMIT_TEST_BACKEND
		# And two servers: what is true of Redis is true of Valkey.
		if command -v valkey-server >/dev/null; then
			RATELIMIT_TEST_REDIS=valkey-server
			export RATELIMIT_TEST_REDIS
			pytests system-valkey build/dev/agent/spoa-ratelimit test/system/test_redis.py \
				test/system/test_redis_sentinel.py test/system/test_redis_tls.py
			unset RATELIMIT_TEST_REDIS
		fi
	else
		failed=$((failed + 1))
		say "FAILED: system: there is no build/dev/agent/spoa-ratelimit (--only dev,system builds it)"
	fi
fi

if wanted haproxy; then
	if [ -x build/dev/agent/spoa-ratelimit ]; then
		pytests haproxy build/dev/agent/spoa-ratelimit test/system/test_contrib.py \
			test/system/test_examples.py test/system/test_haproxy.py \
			test/system/test_haproxy_files.py test/system/test_recipes.py \
			test/system/test_restart.py test/system/test_story.py test/system/test_two_nodes.py
	else
		failed=$((failed + 1))
		say "FAILED: haproxy: there is no build/dev/agent/spoa-ratelimit (--only dev,haproxy builds it)"
	fi
fi

if wanted races; then
	if [ -x build/tsan/agent/spoa-ratelimit ]; then
		pytests races build/tsan/agent/spoa-ratelimit test/system/test_process.py \
			test/system/test_haproxy_files.py test/system/test_redis.py
	else
		failed=$((failed + 1))
		say "FAILED: races: there is no build/tsan/agent/spoa-ratelimit (--only tsan,races builds it)"
	fi
fi

if wanted package; then
	install_packages lintian file
	failed_before=$failed
	if build package; then
		rm -f build/package/*.deb
		run package sh -c 'cd build/package && cpack -G DEB'
		judge "cpack" package $?
		run lintian lintian --allow-root --fail-on error build/package/*.deb
		judge "lintian" lintian $?
	fi
fi

[ -z "$tidying" ] || end_tidy

say "done"
[ -z "${RESULT-}" ] || echo "$passed $failed" >"$RESULT"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
