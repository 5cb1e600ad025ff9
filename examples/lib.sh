# What the `test` scripts of the examples have in common. To be sourced in an example's folder.

example=$(basename "$PWD")
work=$(mktemp -d)
# What the program that `start` starts prints, and what it logs.
printed=$work/printed
logged=$work/logged
started=

finish() {
    local code=$?
    [ -z "$started" ] || { kill "$started" 2>/dev/null && wait "$started" || true; }
    [ "$code" -eq 0 ] || { echo "$example: failed; it logged:" >&2; cat "$logged" >&2 || true; }
    rm -rf "$work"
}
trap finish EXIT

# Starts a program in the background. It is told to stop when the script ends.
start() {
    # Compiled before, so that what is started is the program itself and can be signalled.
    cargo build --quiet
    "$@" > "$printed" 2> "$logged" &
    started=$!
}

# Waits until somebody listens on a port.
port_is_open() {
    for _ in $(seq 300); do
        (exec 3<> "/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        kill -0 "$started" 2>/dev/null || { echo "$example: ended early" >&2; exit 1; }
        sleep 0.1
    done
    echo "$example: nobody listens on port $1" >&2
    exit 1
}

# Runs the command of the README that begins like this, up to the next command or the end of its block, and compares what it
# prints with what the README says.
shows() {
    local block command expected
    # From the line with the command: lines that end in a backslash go on.
    block=$(begin="\$ $1" awk 'on && (/^```$/ || /^\$ /) { exit } index($0, ENVIRON["begin"]) == 1 { on = 1 } on' README.md)
    [ -n "$block" ] || { echo "$example: the README has no command \`$1\`" >&2; exit 1; }
    command=$(printf '%s\n' "$block" | awk '{ print } !/\\$/ { exit }' | sed '1s/^\$ //')
    expected=$(printf '%s\n' "$block" | awk 'on { print } !/\\$/ { on = 1 }')
    # Line breaks at the end do not count: whoever looks at a terminal does not see whether there is one.
    diff <(printf '%s\n' "$expected") <(printf '%s\n' "$(bash -c "$command" 2>&1 | sed "${2:-}")") >&2 || {
        echo "$example: \`$command\` prints something else than the README says" >&2
        exit 1
    }
}
