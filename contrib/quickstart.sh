#!/bin/sh
# Builds all, starts the agent and HAProxy on loopback, and shows what happens to requests of
# different plans. On Debian 12 or newer, as root, it installs what is missing. Needs no systemd.
#
#   sh contrib/quickstart.sh            shows, and stops everything it started
#   sh contrib/quickstart.sh --keep     leaves both running until Ctrl-C
set -eu

keep=no
case "${1:-}" in
"") ;;
--keep) keep=yes ;;
*)
	sed -n '2,6s/^# \{0,1\}//p' "$0"
	[ "$1" = -h ] || [ "$1" = --help ] && exit 0
	exit 1
	;;
esac

cd "$(dirname "$0")/.."
build=build/release
agent=$build/agent/spoa-ratelimit
web=http://127.0.0.1:8080
packages="gcc libc6-dev cmake ninja-build pkg-config libev-dev libconfig-dev libjansson-dev libsodium-dev
libsystemd-dev libhiredis-dev libmicrohttpd-dev libcurl4-openssl-dev haproxy curl"
# A package's administrator tools are not in every user's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

work=$(mktemp -d)
agent_pid=
haproxy_pid=

# Only what was started here, by its id.
finish() {
	status=$?
	trap - EXIT INT TERM HUP
	for pid in $haproxy_pid $agent_pid; do
		kill "$pid" 2>/dev/null || :
	done
	for pid in $haproxy_pid $agent_pid; do
		wait "$pid" 2>/dev/null || :
	done
	rm -rf "$work"
	exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
	echo >&2
	echo "quickstart: $*" >&2
	exit 1
}

# step TEXT COMMAND...: its output is shown only if it fails; dots say that it is alive.
step() {
	text=$1
	shift
	printf '  %-34s ' "$text"
	"$@" >"$work/step.log" 2>&1 &
	step_pid=$!
	while kill -0 "$step_pid" 2>/dev/null; do
		sleep 1
		printf .
	done
	if wait "$step_pid"; then
		echo ' done'
	else
		echo ' failed'
		tail -n 40 "$work/step.log" >&2
		fail "\"$text\" failed, see above"
	fi
}

missing() {
	for p in $packages; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo "$p"
	done
}

echo "1. What is needed"
if command -v dpkg-query >/dev/null; then
	lacking=$(missing | tr '\n' ' ')
	if [ -n "$lacking" ]; then
		[ "$(id -u)" = 0 ] || fail "as root:  apt-get install $lacking"
		export DEBIAN_FRONTEND=noninteractive
		step "apt-get update" apt-get -q update
		# shellcheck disable=SC2086
		step "apt-get install" apt-get -q install -y --no-install-recommends $lacking
	else
		echo "  all packages are there"
	fi
else
	echo "  no Debian: taking it that what these packages hold is there:"
	echo "$packages" | sed 's/^/    /'
fi

for port in 8080 9600 9601; do
	if curl -s -o /dev/null --max-time 2 http://127.0.0.1:$port/ || [ $? != 7 ]; then
		fail "something listens on 127.0.0.1:$port already; stop it, and start this again"
	fi
done

echo "2. The agent"
# This tree may have been built in another place before: a cache of cmake's knows only its own.
if ! grep -qsx "CMAKE_HOME_DIRECTORY:INTERNAL=$(pwd -P)" $build/CMakeCache.txt; then
	rm -rf $build
fi
step "configure" cmake --preset release -DTESTS=OFF
step "build" cmake --build $build --target spoa-ratelimit

echo "3. Agent and HAProxy, on loopback"
$agent -f conf/ratelimit.cfg >"$work/agent.log" 2>&1 &
agent_pid=$!

# ready NAME PID LOG URL: 7 is curl's "nobody listens"; whoever answers has to be ours
ready() {
	tries=0
	until curl -s -o /dev/null --max-time 2 "$4" || [ $? != 7 ]; do
		tries=$((tries + 1))
		if [ $tries -gt 100 ] || ! kill -0 "$2" 2>/dev/null; then
			break
		fi
		sleep 0.1
	done
	if [ $tries -gt 100 ] || ! kill -0 "$2" 2>/dev/null; then
		cat "$3" >&2
		fail "$1 did not start, see above"
	fi
}
ready "the agent" $agent_pid "$work/agent.log" http://127.0.0.1:9600/
# HAProxy after it: whom its first check does not find is DOWN until the next, and nobody is limited.
haproxy -db -C haproxy -f haproxy.cfg >"$work/haproxy.log" 2>&1 &
haproxy_pid=$!
ready HAProxy $haproxy_pid "$work/haproxy.log" $web/
printf '  %-56s pid %s\n' "$agent -f conf/ratelimit.cfg" $agent_pid
printf '  %-56s pid %s\n' "haproxy -C haproxy -f haproxy.cfg" $haproxy_pid

echo "4. Requests, one after another, to $web/api/hello"
echo
printf '  %-11s %-13s %-26s %s\n' plan "sends" "limit" "gets"
# row PLAN N LIMIT [curl's options]
row() {
	plan=$1 n=$2 limit=$3
	shift 3
	got=$(curl -s -o /dev/null -w '%{http_code}\n' "$@" "$web/api/hello?[1-$n]" | uniq -c |
		while read -r times code; do printf '%s x %s  ' "$times" "$code"; done)
	printf '  %-11s %3s requests  %-26s %s\n' "$plan" "$n" "$limit" "$got"
	case $got in
	*429*) ;;
	*) cat "$work/agent.log" "$work/haproxy.log" >&2; fail "$plan: no request was denied" ;;
	esac
}
row anonymous 8 "5/minute"
row free 13 "10/minute" -H "X-API-Key: key-of-fred"
row premium 104 "50/minute burst 100" -H "X-API-Key: key-of-petra"
row enterprise 510 "200/minute burst 500" -H "X-API-Key: key-of-emil"

echo
echo "5. What a client is told while it is within its limit, and after"
# show PATH [HEADER]: an answer as curl -i has it, without what says nothing here
show() {
	echo
	header=${2-}
	echo "  \$ curl -i $web$1 ${header:+-H \"$header\"}"
	# $a\ ends the last line, where the body has no newline.
	# shellcheck disable=SC1003
	curl -s -i ${header:+-H "$header"} "$web$1" | tr -d '\r' |
		sed -e '/^connection:/d' -e 's/^./    &/' -e '$a\'
}
show /api/hello "X-API-Key: key-of-tina"
show /api/hello

echo
echo "6. Nobody is refused here: who asks for much is served by a slower backend"
echo
curl -s "$web/reports/all?[1-13]" | sort | uniq -c | sed 's/^ */    /'

echo
echo "7. HAProxy's log of the last requests: who, which rule, what is left"
echo
grep -v '/reports/' "$work/haproxy.log" | tail -n 2 | fold -s -w 92 | sed 's/^/    /'

echo
echo "8. What the agent has counted: http://127.0.0.1:9601/metrics"
echo
curl -s http://127.0.0.1:9601/metrics | grep '^ratelimit_checks_total' | sed 's/^/    /'

echo
echo "The limits are in conf/ratelimit.cfg, HAProxy's side in haproxy/."
if [ $keep = yes ]; then
	echo "Both go on until Ctrl-C. Change a limit, then: kill -HUP $agent_pid"
	wait $haproxy_pid || :
	cat "$work/agent.log" "$work/haproxy.log" >&2
	fail "HAProxy has ended"
fi
echo "Both are stopped now; with --keep they go on until Ctrl-C."
