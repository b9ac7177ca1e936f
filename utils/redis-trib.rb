#!/bin/sh
# redis-trib.rb as it was called before `redis-cli --cluster` took its place: the same
# subcommands and options, handed to the redis-cli beside this file. Needs no Ruby.

here=$(cd -- "$(dirname -- "$0")" && pwd) || exit 1
cli=$here/redis-cli
[ -x "$cli" ] || cli=$here/../src/redis-cli
[ -x "$cli" ] || cli=redis-cli

usage() {
    cat <<END
Usage: redis-trib <command> <options> <arguments ...>

  create          host1:port1 ... hostN:portN
                  --replicas <arg>
  check           host:port
  info            host:port
  fix             host:port
                  --timeout <arg>
  reshard         host:port
                  --from <arg>
                  --to <arg>
                  --slots <arg>
                  --yes
                  --timeout <arg>
                  --pipeline <arg>
  rebalance       host:port
                  --weight <arg>
                  --auto-weights
                  --use-empty-masters
                  --timeout <arg>
                  --simulate
                  --pipeline <arg>
                  --threshold <arg>
  add-node        new_host:new_port existing_host:existing_port
                  --slave
                  --master-id <arg>
  del-node        host:port node_id
  set-timeout     host:port milliseconds
  call            host:port command arg arg .. arg
  import          host:port
                  --from <arg>
                  --copy
                  --replace
  help            (show this help)

For check, fix, reshard, del-node, set-timeout you can specify the host and port of any
working node in the cluster. --password <arg> logs in everywhere.
END
}

fail() {
    echo "$1" >&2
    exit 1
}

command=$1
case $command in
    "" | help | -h | --help)
        usage
        exit 0
        ;;
    create | check | info | fix | reshard | rebalance | add-node | del-node | set-timeout | call | import) ;;
    *) fail "Unknown redis-trib subcommand '$command'" ;;
esac
shift

[ "$command" = call ] && exec "$cli" --cluster call "$@"

# Every word is taken from the front of "$@" and put, translated, at its end.
left=$#
weights=""
while [ "$left" -gt 0 ]; do
    word=$1
    shift
    left=$((left - 1))
    case $word in
        --replicas | --from | --to | --slots | --timeout | --pipeline | --weight | --threshold | --master-id | --password)
            [ "$left" -gt 0 ] || fail "Option $word needs a value"
            value=$1
            shift
            left=$((left - 1))
            case $word in
                --weight) weights="$weights $value" ;;
                --password) set -- "$@" -a "$value" --no-auth-warning ;;
                *) set -- "$@" "--cluster-${word#--}" "$value" ;;
            esac
            ;;
        # Weights are 1 unless given, which is all that this option said.
        --auto-weights) ;;
        --yes | --use-empty-masters | --simulate | --slave | --copy | --replace)
            set -- "$@" "--cluster-${word#--}"
            ;;
        --verbose) set -- "$@" --verbose ;;
        --*) fail "Unknown option '$word'" ;;
        *) set -- "$@" "$word" ;;
    esac
done

if [ -n "$weights" ]; then
    # node=weight pairs have no blanks in them.
    # shellcheck disable=SC2086
    set -- "$@" --cluster-weight $weights
fi

exec "$cli" --cluster "$command" "$@"
