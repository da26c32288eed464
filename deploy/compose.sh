#!/bin/bash
# The compose cluster: compose.sh up|down; compose.sh base only creates the archive of the base image.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export SKIFF_COMPOSE_CONTEXT=$target/compose
local_base=skiff-base:bookworm
base_archive=$target/compose-base.tar
programs=${SKIFF_PROGRAMS:-$target/debug}

say() { echo " $*" >&2; }

compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose -p skiff "$@"
    else
        docker-compose -p skiff "$@"
    fi
}

start_docker() {
    docker info >/dev/null 2>&1 && return
    say "starting docker"
    if [ -d /run/systemd/system ] && [ -z "${SKIFF_DOCKERD_FLAGS:-}" ]; then
        systemctl start docker
    else
        mkdir -p "$target/docker"
        iptables-save -t filter 2>/dev/null | sed -n 's/^:FORWARD \([A-Z]*\) .*/\1/p' >"$target/docker/forward"
        # No rules at all: nothing is dropped, so the policy is ACCEPT.
        [ -s "$target/docker/forward" ] || echo ACCEPT >"$target/docker/forward"
        # SKIFF_DOCKERD_FLAGS is for tests, which run their own daemon.
        # shellcheck disable=SC2086 # split into words
        setsid dockerd --pidfile "$target/docker/dockerd.pid" ${SKIFF_DOCKERD_FLAGS:-} \
            >"$target/docker/dockerd.log" 2>&1 </dev/null &
    fi
    for _ in $(seq 100); do
        docker info >/dev/null 2>&1 && return
        sleep 0.2
    done
    echo "error: docker does not start; see $target/docker/dockerd.log" >&2
    exit 1
}

# Creates an archive of a Debian system with the packages that the containers need, and keeps it in
# the target directory for reuse.
make_base() {
    [ ! -f "$base_archive" ] || return 0
    say "making the base image with debootstrap"
    deploy/packages.sh base
    local rootfs=$target/rootfs
    mkdir -p "$rootfs"
    # In memory, because dpkg syncs every file.
    mount -t tmpfs -o mode=755,size=1g skiff-rootfs "$rootfs"
    # shellcheck disable=SC2064 # expand it now
    trap "umount '$rootfs'; rmdir '$rootfs'" EXIT
    debootstrap --variant=minbase \
        --include=ca-certificates,containerd,runc,iproute2,nftables,kmod,mount,e2fsprogs,etcd-server,etcd-client \
        bookworm "$rootfs" "${SKIFF_MIRROR:-http://deb.debian.org/debian}" >"$target/debootstrap.log" 2>&1 ||
        { tail -5 "$target/debootstrap.log" >&2; exit 1; }
    rm -rf "$rootfs"/usr/share/{doc,man,locale,info}/* "$rootfs"/var/cache/apt/* "$rootfs"/var/lib/apt/lists/*
    tar -C "$rootfs" -cf "$base_archive.new" .
    mv "$base_archive.new" "$base_archive"
    umount "$rootfs"
    rmdir "$rootfs"
    trap - EXIT
}

# The base image: Debian's own if a registry is reachable, else one created here.
choose_base() {
    if [ -n "${SKIFF_BASE:-}" ]; then
        return
    fi
    export SKIFF_BASE=$local_base
    if [ ! -f "$base_archive" ] && timeout 20 docker pull -q debian:bookworm-slim >/dev/null 2>&1; then
        SKIFF_BASE=debian:bookworm-slim
        return
    fi
    make_base
    docker image inspect "$local_base" >/dev/null 2>&1 || docker import - "$local_base" <"$base_archive" >/dev/null
}

stage() {
    # A link is left over from an earlier run with another target directory.
    [ ! -L "$SKIFF_COMPOSE_CONTEXT" ] || rm "$SKIFF_COMPOSE_CONTEXT"
    mkdir -p "$SKIFF_COMPOSE_CONTEXT/bin"
    cp deploy/compose/Dockerfile deploy/compose/node-entrypoint.sh "$SKIFF_COMPOSE_CONTEXT/"
    local program
    for program in skiff skiff-{apiserver,scheduler,controller-manager,kubelet,log,proxy,dns}; do
        cp -u "$programs/$program" "$SKIFF_COMPOSE_CONTEXT/bin/"
    done
    chmod +x "$SKIFF_COMPOSE_CONTEXT/node-entrypoint.sh"
    # docker-compose looks here when users invoke it directly. Tests do not, so they leave nothing here.
    if [ "$target" != "$PWD/target" ] && [ -z "${SKIFF_PROGRAMS:-}" ]; then
        mkdir -p target
        ln -sfn "$SKIFF_COMPOSE_CONTEXT" target/compose
    fi
}

# Removes the images, including intermediate ones. Re-importing the base image is fast.
remove_images() {
    docker image rm skiff-control:local skiff-node:local >/dev/null 2>&1 || true # never built
    docker image prune -f --filter label=skiff.cluster=compose >/dev/null
    docker image rm "$local_base" >/dev/null 2>&1 || true # never created
}

# Removes what a Docker daemon leaves behind when it exits: its bridge and its iptables chains.
remove_docker_network() {
    ip link delete docker0 2>/dev/null || true # no bridge
    local command table rule chain
    for command in iptables ip6tables; do
        command -v "$command-save" >/dev/null || continue
        for table in filter nat; do
            # First the rules that refer to the chains, then the chains.
            "$command-save" -t "$table" 2>/dev/null | sed -nE '/^-A .*(DOCKER|docker0)/p' | while read -r rule; do
                # shellcheck disable=SC2086 # split into words
                "$command" -t "$table" -D ${rule#-A } || true # its chain may be gone
            done
            "$command-save" -t "$table" 2>/dev/null | sed -n 's/^:\(DOCKER[^ ]*\) .*/\1/p' | while read -r chain; do
                "$command" -t "$table" -F "$chain" && "$command" -t "$table" -X "$chain"
            done
        done
    done
    if [ "$(cat "$target/docker/forward")" = ACCEPT ]; then
        iptables -P FORWARD ACCEPT
    fi
}

stop_docker() {
    local pid
    pid=$(cat "$target/docker/dockerd.pid")
    say "stopping the docker daemon that compose-up has started"
    kill "$pid"
    for _ in $(seq 100); do
        [ -d "/proc/$pid" ] || break
        sleep 0.1
    done
    remove_docker_network
}

case ${1:-} in
up)
    deploy/packages.sh compose
    if [ -z "${SKIFF_PROGRAMS:-}" ]; then make --no-print-directory build; fi
    start_docker
    choose_base
    stage
    say "building the images on $SKIFF_BASE"
    compose build -q
    say "bringing the cluster up"
    compose up -d --remove-orphans
    # The certificate directory is a volume; the administrator's kubeconfig is read from it.
    "$programs/skiff" context import --name compose \
        --file <(docker run --rm -v skiff_config:/etc/skiff:ro --network none skiff-control:local \
            cat /etc/skiff/kubeconfig/admin.yaml) --wait-nodes 3
    ;;
base)
    make_base
    ;;
down)
    if docker info >/dev/null 2>&1; then
        export SKIFF_BASE=${SKIFF_BASE:-$local_base}
        [ -e "$SKIFF_COMPOSE_CONTEXT" ] || rm -f "$SKIFF_COMPOSE_CONTEXT" # a dangling link
        mkdir -p "$SKIFF_COMPOSE_CONTEXT" # docker-compose 1.29 requires it, even for removal
        compose down --volumes --remove-orphans --timeout 15
        remove_images
    fi
    if [ -x "$programs/skiff" ]; then
        "$programs/skiff" context remove --name compose
    fi
    if [ -f "$target/docker/dockerd.pid" ]; then
        stop_docker
    fi
    ;;
*)
    echo 'usage: compose.sh up|down|base' >&2
    exit 2
    ;;
esac
