#!/bin/sh
# Tries a package in an empty Debian, as root: what installs, upgrades, removals and purges leave.
#
#   sh test/package.sh FILE.deb ROOT
#
# ROOT is a folder with a Debian by debootstrap --variant=minbase, in which no service starts
# (run.sh --on makes one). It is left as it was, but for the package's dependencies.
set -u
deb=${1:?FILE.deb} root=${2:?ROOT}
failures=0

cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null
cp "$deb" "$root/spoa-ratelimit.deb" || exit 1
mounted=
trap '[ -z "$mounted" ] || umount -R "$root/proc"; rm -f "$root/spoa-ratelimit.deb"' EXIT
trap 'exit 130' INT TERM HUP
mount -t proc proc "$root/proc" 2>/dev/null && mounted=yes
# What is installed there may apply its sysctl.d, and the kernel is this machine's.
[ -z "$mounted" ] || mount --bind -o ro "$root/proc/sys" "$root/proc/sys" || exit 1

inside() {
	chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root \
		DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy="$http_proxy"} "$@" </dev/null
}

# must SENTENCE COMMAND...: the command succeeds, in there
must() {
	sentence=$1
	shift
	if said=$(inside "$@" 2>&1); then
		echo "ok: $sentence"
	else
		failures=$((failures + 1))
		echo "FAILED: $sentence"
		echo "$said" | tail -n 20 | sed 's/^/        /'
	fi
}

is() {
	must "$1" sh -c "[ \"\$($2)\" = '$3' ]"
}

installs() {
	must "$1" sh -c 'apt-get -qq install -y --no-install-recommends --reinstall --allow-downgrades \
		-o Dpkg::Options::=--force-confold /spoa-ratelimit.deb'
}

inside dpkg --purge spoa-ratelimit >/dev/null 2>&1
must "the package lists can be read" apt-get -qq update
installs "it installs"
must "it runs" spoa-ratelimit -vv
must "its configuration is valid" spoa-ratelimit -c
must "its user is there, and logs in nowhere" sh -c 'getent passwd spoa-ratelimit | grep -q nologin$'
is "the configuration is its group's to read" "stat -c %a:%U:%G /etc/spoa-ratelimit/ratelimit.cfg" \
	640:root:spoa-ratelimit
is "the folder of the configuration is not for others" "stat -c %a:%G /etc/spoa-ratelimit" \
	750:spoa-ratelimit
is "the state is its own" "stat -c %a:%U /var/lib/spoa-ratelimit" 700:spoa-ratelimit
must "the unit is enabled" test -L /etc/systemd/system/multi-user.target.wants/spoa-ratelimit.service
must "every file that it lists is there" sh -c 'dpkg --verify spoa-ratelimit'

# As the unit starts it; but the port may be taken on the machine that this shares its network with.
# shellcheck disable=SC2016
must "it starts as its user, and keeps its state" sh -c '
	cfg=/etc/spoa-ratelimit/test.cfg
	sed "s/127.0.0.1:9600/127.0.0.1:0/" /etc/spoa-ratelimit/ratelimit.cfg >$cfg
	RATELIMIT_STATE=/var/lib/spoa-ratelimit/state RATELIMIT_ADMIN=127.0.0.1:0 \
		setpriv --reuid spoa-ratelimit --regid spoa-ratelimit --clear-groups \
		timeout --preserve-status 3 spoa-ratelimit -f $cfg
	status=$?; rm -f $cfg
	[ $status = 0 ] && [ -s /var/lib/spoa-ratelimit/state ]'

# The configuration says 127.0.0.1:9601 to a shell that has not the unit's environment; port 1, as somebody
# may listen there on the machine that this shares its network with.
# shellcheck disable=SC2016
must "who asks an agent that does not run is told of the unit's socket, too" sh -c '
	cfg=/etc/spoa-ratelimit/ratelimit.cfg
	cp -p $cfg $cfg.kept && sed -i "s/127.0.0.1:9601/127.0.0.1:1/" $cfg
	said=$(ratelimitctl status 2>&1); status=$?
	mv $cfg.kept $cfg
	[ $status = 3 ] && echo "$said" | grep -q "at http://127.0.0.1:1:" &&
		echo "$said" | grep -q "nor at /run/spoa-ratelimit/admin.sock"'

must "the socket unit is there, and not enabled" sh -c 'test -e /usr/lib/systemd/system/spoa-ratelimit.socket &&
	! ls /etc/systemd/system/*/spoa-ratelimit.socket 2>/dev/null'

inside sh -c 'echo "# mine" >>/etc/spoa-ratelimit/ratelimit.cfg'
inside rm -f /etc/systemd/system/multi-user.target.wants/spoa-ratelimit.service
installs "it installs again"
must "an upgrade keeps what the administrator wrote" grep -q '^# mine' /etc/spoa-ratelimit/ratelimit.cfg
is "an upgrade keeps the mode" "stat -c %a:%G /etc/spoa-ratelimit/ratelimit.cfg" 640:spoa-ratelimit
must "an upgrade does not enable what was disabled" \
	test ! -e /etc/systemd/system/multi-user.target.wants/spoa-ratelimit.service

must "it goes" apt-get -qq remove -y spoa-ratelimit
must "a removal keeps the configuration and the state" \
	test -e /etc/spoa-ratelimit/ratelimit.cfg -a -s /var/lib/spoa-ratelimit/state
must "it is purged" apt-get -qq purge -y spoa-ratelimit
must "a purge leaves no file" sh -c '! ls -d /etc/spoa-ratelimit /var/lib/spoa-ratelimit \
	/var/log/spoa-ratelimit /etc/systemd/system/*/spoa-ratelimit.* 2>/dev/null'
must "a purge leaves no user and no group" sh -c '! getent passwd spoa-ratelimit && ! getent group spoa-ratelimit'
must "a purge can be repeated" dpkg --purge spoa-ratelimit

installs "it installs once more"
inside sh -c 'echo secret >/etc/spoa-ratelimit/own.key; chmod 640 /etc/spoa-ratelimit/own.key
	chgrp spoa-ratelimit /etc/spoa-ratelimit/own.key'
must "it is purged at once" apt-get -qq purge -y spoa-ratelimit
is "what the administrator put there stays, and is no longer the group's" \
	"stat -c %a:%U:%G /etc/spoa-ratelimit/own.key" 640:root:root
inside rm -rf /etc/spoa-ratelimit
[ "$failures" = 0 ]
