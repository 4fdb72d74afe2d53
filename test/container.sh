#!/bin/sh
# Builds the container of contrib/Containerfile, as root, and tries it. Needs buildah.
#
#   sh test/container.sh SOURCE ROOT WORK
#
# SOURCE is the tree. ROOT is a folder with the Debian that the file names, by debootstrap
# --variant=minbase: it stands for the image that a registry would give, and is left as it was. WORK is
# a folder for images, which is removed before and after. No image is fetched, and the agent in there has
# a network of its own.
set -u
source=${1:?SOURCE} root=${2:?ROOT} work=${3:?WORK}
name=localhost/spoa-ratelimit
failures=0

export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
buildah_here() {
	buildah --root "$work/images" --runroot "$work/run" "$@" </dev/null
}

clean() {
	buildah_here rm --all >/dev/null 2>&1
	rm -rf "$work"
}
rm -rf "$work" && mkdir -p "$work" || exit 1
trap clean EXIT
trap 'exit 130' INT TERM HUP

# must SENTENCE COMMAND...: the command succeeds
must() {
	sentence=$1
	shift
	if said=$("$@" 2>&1); then
		echo "ok: $sentence"
	else
		failures=$((failures + 1))
		echo "FAILED: $sentence"
		echo "$said" | tail -n 20 | sed 's/^/        /'
	fi
}

base_image() {
	tar -C "$root" -cf "$work/base.tar" . && base=$(buildah_here from scratch) &&
		buildah_here add -q "$base" "$work/base.tar" / && rm "$work/base.tar" &&
		buildah_here commit -q --rm "$base" docker.io/library/debian:bookworm-slim
}

build() {
	buildah_here bud --pull-never --format docker -f "$source/contrib/Containerfile" -t "$name" "$source"
}

# inside COMMAND...: as the container's user
inside() {
	buildah_here run "$container" -- "$@"
}

says() {
	buildah_here inspect --type image --format "{{.Docker.Config.$1}}" "$name"
}

# COMMAND... is the image's own. It is told to stop in there, as buildah passes no signal on; and the
# port is taken on many a machine that has the agent.
starts() {
	unshare --net buildah --root "$work/images" --runroot "$work/run" run "$container" -- \
		timeout --preserve-status 10 "$@" >"$work/log" 2>&1 </dev/null &
	agent=$!
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do
		sleep 0.5
		inside ratelimitctl status >"$work/status" 2>&1 && break
	done
	cat "$work/log" "$work/status"
	grep -q '^limiting  *on' "$work/status" || return 1
	grep -q 'listening addr=0.0.0.0:9600' "$work/log" || return 1
	inside ratelimitctl disable || return 1
	wait "$agent" || return 1
	cat "$work/log"
	grep -q ' stopped ' "$work/log"
}

must "a base image of the Debian in $root" base_image
must "it builds of what it copies" build
container=$(buildah_here from --pull-never "$name") || exit 1
must "it is not root" sh -c "[ '$(inside id -un 2>&1)' = spoa-ratelimit ]"
must "its configuration is valid" inside spoa-ratelimit -c
must "its health is asked for, as its user" test "$(says Healthcheck.Test)/$(says User)" = \
	"[CMD ratelimitctl status]/spoa-ratelimit"
# shellcheck disable=SC2046
must "it runs, tells its health, is changed from inside, and stops" starts \
	$(says Entrypoint | tr -d '[]') $(says Cmd | tr -d '[]')
must "it keeps its state in the volume" inside test -s /var/lib/spoa-ratelimit/state
[ "$failures" = 0 ]
