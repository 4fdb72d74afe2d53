#!/bin/sh
# Tries the package's units under a real systemd, as root, in namespaces of its own.
#
#   sh test/systemd.sh FILE.deb ROOT
#
# ROOT is a folder with a Debian by debootstrap --variant=minbase. It is booted as a container is: systemd
# is process 1 of its own pid namespace, with a network of its own; nothing of this machine is changed.
# Needs a kernel whose cgroup2 can be mounted, and says so (exit status 77) where it cannot.
set -u
deb=${1:?FILE.deb} root=${2:?ROOT}
failures=0
boot=
init=0 # systemd's, as this machine counts

in_chroot() {
	chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root \
		DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy="$http_proxy"} "$@" </dev/null
}

# Run by unshare: what a container manager does before it starts process 1. First a cgroup of its own,
# which is the root to whoever is in there, then the file systems.
if [ "${3-}" = cgroup ]; then
	mount --make-rprivate / && mount -t cgroup2 cgroup2 /mnt || exit 77
	mkdir -p /mnt/spoa-ratelimit-test && echo 0 >/mnt/spoa-ratelimit-test/cgroup.procs && umount /mnt || exit 77
	exec unshare -C sh "$0" "$deb" "$root" boot
fi
if [ "${3-}" = boot ]; then
	mount --bind "$root" "$root" && cd "$root" || exit 77
	mount -t proc proc proc && mount -t sysfs -o ro sysfs sys && mount -t tmpfs tmpfs run &&
		mount -t tmpfs tmpfs tmp && mount -t tmpfs tmpfs dev || exit 77
	for node in null zero full random urandom tty; do
		: >dev/$node
		mount --bind /dev/$node dev/$node
	done
	mkdir dev/shm dev/pts && mount -t tmpfs tmpfs dev/shm && ln -s /proc/self/fd dev/fd &&
		mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts && ln -s pts/ptmx dev/ptmx || exit 77
	umount -l sys/fs/cgroup 2>/dev/null
	mount -t cgroup2 cgroup2 sys/fs/cgroup || exit 77
	ip link set lo up
	mkdir -p old && pivot_root . old && cd / && umount -l old
	exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
fi

# await SECONDS COMMAND...: it succeeds by then
await() {
	left=$(($1 * 5))
	shift
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || return 1
		sleep 0.2
	done
}

# inside COMMAND...: beside systemd
inside() {
	nsenter -t "$init" -m -p -u -i -n -C env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root \
		"$@" </dev/null
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
		{ echo "$said"; inside journalctl -u spoa-ratelimit -n 15 -o cat --no-pager; } |
			tail -n 30 | sed 's/^/        /'
	fi
}

# Process 1 takes all of its namespace with it.
end() {
	[ "$init" = 0 ] || kill -KILL "$init" 2>/dev/null
	[ -z "$boot" ] || { kill "$boot" 2>/dev/null; wait "$boot"; }
	unshare -m sh -c 'mount -t cgroup2 cgroup2 /mnt && find /mnt/spoa-ratelimit-test -depth -type d -exec rmdir {} +' \
		2>/dev/null
	rm -f "$root/spoa-ratelimit.deb"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null
cp "$deb" "$root/spoa-ratelimit.deb" || exit 1
echo "a Debian with systemd: a minute"
# Nothing of an earlier run is left: it would be taken for this one's.
in_chroot sh -c 'apt-get -qq update; dpkg --purge spoa-ratelimit; rm -rf /var/log/spoa-ratelimit /var/lib/spoa-ratelimit
	apt-get -qq install -y --no-install-recommends systemd systemd-sysv curl /spoa-ratelimit.deb' >/dev/null 2>&1 || { echo "FAILED: the packages install"; exit 1; }

unshare -mpuin --fork --kill-child sh "$0" "$deb" "$root" cgroup >/dev/null 2>&1 </dev/null &
boot=$!
is_booted() {
	child=$(cat "/proc/$boot/task/$boot/children" 2>/dev/null) && child=${child% } &&
		[ "$(cat "/proc/$child/comm" 2>/dev/null)" = systemd ] && init=$child &&
		inside systemctl is-system-running | grep -Eq 'running|degraded'
}
if ! await 60 is_booted; then
	if kill -0 $boot 2>/dev/null || { wait $boot; [ $? != 77 ]; }; then
		echo "FAILED: it boots"
		exit 1
	fi
	boot=
	echo "no systemd can be started here: its file systems cannot be mounted"
	exit 77
fi

cfg=/etc/spoa-ratelimit/ratelimit.cfg
must "it runs after the boot" systemctl is-active spoa-ratelimit
must "systemd finds it safe or OK" sh -c 'systemd-analyze security --no-pager spoa-ratelimit | tail -n 1 | grep -Eq "SAFE|OK"'
# Its first thread's socket for that (netlink, of family 4) has its number.
# shellcheck disable=SC2016
must "it may ask the kernel whether HAProxy reads" sh -c 'p=$(systemctl show -p MainPID --value spoa-ratelimit)
	grep -Eq "^[0-9a-f]+ +4 +$p " /proc/net/netlink'
# With drain, too: what holds the socket is then seen to need none.
must "a reload is taken" sh -c "sed -i 's,5/minute,6/minute,; s,drain  = \"0s\",drain = \"2s\",' $cfg && systemctl reload spoa-ratelimit &&
	sleep 1 && ratelimitctl status | grep -q 'generation 2'"
# shellcheck disable=SC2016
must "a broken file fails the reload, is told with its line, and changes nothing" sh -c "
	cp -p $cfg /root/kept && echo 'bogus = 1;' >>$cfg
	! systemctl reload spoa-ratelimit 2>/dev/null && systemctl is-active spoa-ratelimit &&
		journalctl -u spoa-ratelimit -p err -o cat --no-pager | grep -q 'unknown setting \"bogus\"'
	status=\$?; cp -p /root/kept $cfg; exit \$status"
must "nobody but root and its group may ask" sh -c '! setpriv --reuid nobody --clear-groups ratelimitctl status'
must "what is changed is in the journal, by its priority" sh -c 'ratelimitctl disable && ratelimitctl enable && sleep 1 &&
	journalctl -u spoa-ratelimit -p warning -o cat --no-pager | grep -q "audit what=remove .*who=\"uid=0\""'
# shellcheck disable=SC2016
must "killed, it comes back" sh -c 'systemctl kill -s KILL spoa-ratelimit
	for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1; ratelimitctl status >/dev/null 2>&1 && break; done
	[ "$(systemctl show -p NRestarts --value spoa-ratelimit)" = 1 ] && ratelimitctl status'
# shellcheck disable=SC2016
must "hung, it is killed by the watchdog, and comes back" sh -c 'kill -STOP "$(systemctl show -p MainPID --value spoa-ratelimit)"
	for i in $(seq 60); do sleep 1; [ "$(systemctl show -p NRestarts --value spoa-ratelimit)" = 2 ] && break; done
	for i in 1 2 3 4 5 6 7 8 9 10; do ratelimitctl status >/dev/null 2>&1 && break; sleep 1; done; ratelimitctl status'
# shellcheck disable=SC2016
must "a port that is taken is tried until it is free" sh -c 'systemctl stop spoa-ratelimit
	systemd-socket-activate -l 127.0.0.1:9600 cat & taken=$!
	for i in $(seq 50); do grep -q ":2580 00000000:0000 0A" /proc/net/tcp && break; sleep 0.1; done
	systemctl start --no-block spoa-ratelimit
	for i in $(seq 60); do sleep 0.5; [ "$(systemctl show -p NRestarts --value spoa-ratelimit)" -gt 6 ] && break; done
	restarts=$(systemctl show -p NRestarts --value spoa-ratelimit); kill $taken
	for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1; ratelimitctl status >/dev/null 2>&1 && break; done
	[ "$restarts" -gt 6 ] && ratelimitctl status'
# shellcheck disable=SC2016
must "it stops, and keeps its state" sh -c 'systemctl stop spoa-ratelimit &&
	[ "$(systemctl show -p Result --value spoa-ratelimit)" = success ] && test -s /var/lib/spoa-ratelimit/state &&
	journalctl -u spoa-ratelimit -o cat --no-pager | grep -q "draining for_ms=2000"'
must "systemd holds its socket through a restart" sh -c 'systemctl enable --now spoa-ratelimit.socket &&
	systemctl start spoa-ratelimit && systemctl restart spoa-ratelimit &&
	journalctl -u spoa-ratelimit -o cat --no-pager | grep -q "draining for_ms=0"'
# shellcheck disable=SC2016
must "a broken file is not tried for ever, whoever connects to the socket" sh -c "
	echo 'bogus = 1;' >>$cfg; systemctl stop spoa-ratelimit
	for i in \$(seq 150); do
		curl -s -m 0.2 telnet://127.0.0.1:9600 </dev/null; sleep 0.1
		systemctl is-failed -q spoa-ratelimit.socket && break
	done
	systemctl is-failed spoa-ratelimit.socket && [ \$(journalctl -u spoa-ratelimit -o cat --no-pager | grep -c 'unknown setting \"bogus\"') -lt 60 ]
	status=\$?; cp -p /root/kept $cfg; systemctl reset-failed
	systemctl disable --now -q spoa-ratelimit.socket; systemctl start spoa-ratelimit; exit \$status"
for target in journal syslog /var/log/spoa-ratelimit/agent.log; do
	must "it logs to $target" sh -c "sed -i 's,^log: {,log: { target = \"$target\";,' $cfg &&
		systemctl restart spoa-ratelimit; status=\$?; cp -p /root/kept $cfg; [ \$status = 0 ] && case $target in
		/*) grep -q ' started ' $target ;;
		journal) journalctl RATELIMIT_EVENT=started -o cat --no-pager | grep -q started ;;
		*) sleep 1; journalctl -u spoa-ratelimit _TRANSPORT=syslog -o cat --no-pager | grep -q started ;; esac"
done
[ "$failures" = 0 ]
