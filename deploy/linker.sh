#!/bin/sh
# Links with the fastest linker that this machine has: cargo calls it (.cargo/config.toml). mold takes half of the
# processor time of lld; where neither is installed the compiler's own choice is used.
for linker in mold lld; do
    if command -v "$linker" >/dev/null || command -v "ld.$linker" >/dev/null; then
        exec cc "$@" "-fuse-ld=$linker"
    fi
done
exec cc "$@"
