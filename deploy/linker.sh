#!/bin/sh
# Links with the fastest linker that this machine has: cargo calls it (.cargo/config.toml). mold takes half of the
# processor time of lld; where neither is installed the compiler's own choice is used.
for linker in mold lld; do
    if command -v "$linker" >/dev/null || command -v "ld.$linker" >/dev/null; then
        set -- "$@" "-fuse-ld=$linker"
        break
    fi
done

# Debian 12's mold takes --strip-debug for --strip-all, and a profile of a program needs its symbol table: the debug
# information is removed afterwards instead.
strip=
for argument; do
    shift
    if [ "$linker $argument" = "mold -Wl,--strip-debug" ]; then
        strip=1
    else
        set -- "$@" "$argument"
    fi
    [ "$previous" != -o ] || output=$argument
    previous=$argument
done
cc "$@" || exit
[ -z "$strip" ] || strip --strip-debug "$output"
