#!/bin/sh
# Which folder of agent/ may include which, and which headers of the system betray that a folder
# does what is not its own (a socket in limit/, a clock in spop/). Prints each include that points
# the wrong way; exit 1 if there is one. Unit tests see what their folder sees.
#
#   sh test/layers.sh [FOLDER-OF-THE-TREE]
set -u
cd "${1:-$(dirname "$0")/..}" || exit 2

# FOLDER: what it may see besides itself
sees() {
	case $1 in
	base) echo ;;
	spop | limit) echo base ;;
	store | config) echo limit base ;;
	server) echo config store spop limit base ;;
	ctl) echo config store limit base ;;
	admin | main) echo server config store spop limit base ;;
	*) echo "layers.sh: agent/$1 is not in the picture: say here what it may see" >&2; exit 2 ;;
	esac
}

# FOLDER: headers of the system that it has no business with, as an extended expression
foreign() {
	sockets='sys/socket|sys/un|netinet/.*|netdb|poll|sys/epoll'
	case $1 in
	base) echo 'ev|libconfig' ;;
	spop | limit) echo "ev|libconfig|pthread|threads|time|sys/time|unistd|fcntl|signal|sodium|$sockets" ;;
	store) echo "ev|libconfig|hiredis/.*|$sockets" ;;
	redis) echo 'libconfig' ;; # the one store that lives on a loop
	# sys/un.h: how long a socket's path may be
	config) echo 'ev|pthread|threads|signal|sys/socket|netinet/.*|netdb|poll|sys/epoll' ;;
	server | admin) echo 'libconfig' ;;
	ctl) echo 'ev|libconfig|microhttpd|netinet/.*|netdb|poll|sys/epoll' ;; # asks by libcurl
	*) echo 'sys/socket' ;;
	esac
}

wrong=0
seen=0

# check FOLDER FILE... ; with FOLDER:SYSTEM where another one's system headers are meant
check() {
	folder=${1%:*}
	system=${1#*:}
	shift
	own=$folder
	[ "$folder" = main ] && own="admin" # main.c has no headers of its own
	may=$(echo "$own $(sees "$folder")" | sed 's/ *$//; s/ /|/g')
	for file; do
		[ -e "$file" ] || continue
		seen=$((seen + 1))
		bad=$(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"(base|spop|limit|store|config|server|admin)/' "$file" |
			grep -vE "\"($may)/")
		bad="$bad
$(grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*<($(foreign "$system"))\.h>" "$file")"
		bad=$(echo "$bad" | grep .)
		if [ -n "$bad" ]; then
			echo "$bad" | sed "s|^|$file:|; s|\$|   ($folder may not)|"
			wrong=$((wrong + 1))
		fi
	done
}

for path in agent/*/; do
	folder=$(basename "$path")
	sees "$folder" >/dev/null
	[ "$folder" = store ] && continue
	check "$folder" "agent/$folder"/*.c "agent/$folder"/*.h
done
for file in agent/store/*.c agent/store/*.h; do
	case $file in
	*/redis_call.* | */redis_slot.*) check store "$file" ;; # as pure as the rest of store/
	*/redis*) check store:redis "$file" ;;
	*) check store "$file" ;;
	esac
done
check main agent/main.c

# Tests may open sockets and read clocks; folders they may not see stay unseen.
foreign() { echo 'no such header'; }
for path in test/unit/*/; do
	folder=$(basename "$path")
	check "$folder" "test/unit/$folder"/*.c "test/unit/$folder"/*.h
done

echo "$seen files, $wrong with includes that point the wrong way"
[ "$seen" -gt 20 ] && [ $wrong = 0 ]
