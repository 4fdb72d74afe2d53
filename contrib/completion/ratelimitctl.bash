# bash completion for ratelimitctl. What it offers is what ratelimitctl -h tells: a test holds it to that.
# shellcheck shell=bash

_ratelimitctl_rules() {
	# The agent's rules, where it answers; nothing where it does not.
	ratelimitctl rules --json 2>/dev/null | sed -n 's/^      "name": "\([A-Za-z0-9_.:-]*\)",$/\1/p'
}

_ratelimitctl() {
	local commands="status rules top explain reset override ban enable disable reload events replay check-config version"
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local command='' word i
	local anywhere="--help --json"
	local agent="$anywhere --socket --url --token-file --file"
	local options words=''
	local IFS=$' \t\n'

	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		-s | -u | -t | -f | -r | -n | --socket | --url | --token-file | --file | --by | --rule | --number | \
			--tier | --rate | --for | --until | --reason | --types | --captures) ((i++)) ;;
		-*) ;;
		*)
			command=$word
			break
			;;
		esac
	done
	case $prev in
	-s | --socket | -t | --token-file | -f | --file)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		compopt -o filenames 2>/dev/null
		return
		;;
	--by)
		mapfile -t COMPREPLY < <(compgen -W "denied checked cost shadow" -- "$cur")
		return
		;;
	-r | --rule)
		mapfile -t COMPREPLY < <(compgen -W "$(_ratelimitctl_rules)" -- "$cur")
		return
		;;
	--types)
		mapfile -t COMPREPLY < <(compgen -W "denied shadow warning reload store change ban" -- "$cur")
		return
		;;
	--for)
		mapfile -t COMPREPLY < <(compgen -W "10m 1h 8h 1d" -- "$cur")
		return
		;;
	-u | --url | -n | --number | --tier | --rate | --until | --reason | --captures) return ;;
	esac
	case $command in
	'') options="$agent --version" words=$commands ;;
	status | reload | version) options=$agent ;;
	rules) options=$agent words=$(_ratelimitctl_rules) ;;
	top) options="$agent --watch --by --rule --number" ;;
	explain) options=$agent words="ip= user= key=- tier= method= path= host= cost=" ;;
	reset) options="$agent --reason --rule --all" words="ip= user= key=- tier= method= path= host= cost=" ;;
	override)
		options="$agent --reason --for --until --tier --rate --bypass --block"
		case $prev in
		override) words="add list remove" ;;
		add | remove) words="user= key=- ip=" ;;
		esac
		;;
	ban)
		options="$agent --reason"
		[[ $prev != ban ]] || words="list lift"
		;;
	enable) options="$agent --reason --for --until --shadow --enforce" words=$(_ratelimitctl_rules) ;;
	disable) options="$agent --reason --for --until --shadow" words=$(_ratelimitctl_rules) ;;
	events) options="$agent --types" ;;
	replay)
		options="$anywhere --file --number --captures"
		if [[ $cur != -* ]]; then
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
			compopt -o filenames 2>/dev/null
			return
		fi
		;;
	check-config) options="$anywhere --file" ;;
	esac
	if [[ $cur == -* ]]; then
		words=$options
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
		compopt -o nospace 2>/dev/null
	fi
}

complete -F _ratelimitctl ratelimitctl
