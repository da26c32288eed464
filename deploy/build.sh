#!/bin/bash
# Builds the programs with cargo; the arguments are passed on to `cargo build`. On a terminal, one line shows the
# progress and an estimate of the time left; otherwise cargo's own output is shown. Errors are shown in full.
set -euo pipefail
cargo=${CARGO:-cargo}

if [ ! -t 2 ]; then
    exec "$cargo" build "$@"
fi

# Percentage of the build time that has passed once a percentage of the crates is compiled: large crates come last.
readonly -a crates=(0 30 60 80 90 95 98 100) time=(0 10 28 45 57 67 82 100)

# Estimates the seconds left after "$1" seconds and "$2" of "$3" crates; -1 if it is too early to tell.
left() {
    local done=$(($2 * 1000 / $3)) i
    for ((i = 1; i < ${#crates[@]} - 1; i++)); do
        ((crates[i] * 10 < done)) || break
    done
    local width=$(((crates[i] - crates[i - 1]) * 10))
    local passed=$((time[i - 1] * 10 + (done - crates[i - 1] * 10) * (time[i] - time[i - 1]) * 10 / width))
    echo $((passed > 20 ? $1 * (1000 - passed) / passed : -1))
}

show() { # show SECONDS DONE TOTAL NAMES
    local rest text
    rest=$(left "$1" "$2" "$3")
    text=" building $2 of $3, $(($1 / 60)):$(printf %02d $(($1 % 60)))"
    ((rest < 0)) || text+=", about $(((rest + 59) / 60)) min left"
    text+=": $4"
    printf '\r\033[K%s' "${text:0:$((columns - 1))}" >&2
}

columns=$(tput cols 2>/dev/null || echo 80)
begun=$SECONDS
progress='^ *Building \[[^]]*\] ([0-9]+)/([0-9]+)(: (.*))?$'
noise='^ *(Compiling|Downloading|Downloaded|Fresh|Blocking|Updating|Locking|Adding|Finished) '
# cargo redraws its progress with carriage returns and erases the line first.
CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=200 CARGO_TERM_COLOR=never \
    "$cargo" build "$@" 2>&1 | stdbuf -oL tr '\r' '\n' | sed -u 's/\x1b\[K//g' | {
    while IFS= read -r line; do
        if [[ $line =~ $progress ]]; then
            show $((SECONDS - begun)) "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" "${BASH_REMATCH[4]}"
        elif [[ -n $line && ! $line =~ $noise ]]; then
            printf '\r\033[K%s\n' "$line" >&2
        fi
    done
    printf '\r\033[K' >&2
}
