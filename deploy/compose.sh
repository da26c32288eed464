#!/bin/bash
# The cluster of containers: compose.sh up|down
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export SKIFF_COMPOSE_CONTEXT=$target/compose
local_base=skiff-base:bookworm

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
    if [ -d /run/systemd/system ]; then
        systemctl start docker
    else
        mkdir -p "$target/docker"
        setsid dockerd --pidfile "$target/docker/dockerd.pid" >"$target/docker/dockerd.log" 2>&1 </dev/null &
    fi
    for _ in $(seq 100); do
        docker info >/dev/null 2>&1 && return
        sleep 0.2
    done
    echo "error: docker does not start; see $target/docker/dockerd.log" >&2
    exit 1
}

# The base image: Debian's own where a registry is in reach, else one made with debootstrap.
choose_base() {
    if [ -n "${SKIFF_BASE:-}" ]; then
        return
    fi
    if docker image inspect "$local_base" >/dev/null 2>&1; then
        export SKIFF_BASE=$local_base
    elif timeout 20 docker pull -q debian:bookworm-slim >/dev/null 2>&1; then
        export SKIFF_BASE=debian:bookworm-slim
    else
        say "no registry in reach: making the base image with debootstrap"
        command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
        local rootfs=$target/rootfs
        rm -rf "$rootfs"
        debootstrap --variant=minbase \
            --include=ca-certificates,containerd,runc,iproute2,nftables,kmod,etcd-server,etcd-client \
            bookworm "$rootfs" "${SKIFF_MIRROR:-http://deb.debian.org/debian}" >"$target/debootstrap.log" 2>&1 ||
            { tail -5 "$target/debootstrap.log" >&2; exit 1; }
        rm -rf "$rootfs"/usr/share/{doc,man,locale,info}/* "$rootfs"/var/cache/apt/* "$rootfs"/var/lib/apt/lists/*
        tar -C "$rootfs" -c . | docker import - "$local_base" >/dev/null
        rm -rf "$rootfs"
        export SKIFF_BASE=$local_base
    fi
}

stage() {
    mkdir -p "$SKIFF_COMPOSE_CONTEXT/bin"
    cp deploy/compose/Dockerfile deploy/compose/node-entrypoint.sh "$SKIFF_COMPOSE_CONTEXT/"
    local program
    for program in skiff skiff-{apiserver,scheduler,controller-manager,kubelet,log,proxy,dns}; do
        cp -u "${SKIFF_PROGRAMS:-$target/release}/$program" "$SKIFF_COMPOSE_CONTEXT/bin/"
    done
    chmod +x "$SKIFF_COMPOSE_CONTEXT/node-entrypoint.sh"
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
    # The folder of the certificates is a volume; the administrator's kubeconfig is read out of it.
    "${SKIFF_PROGRAMS:-$target/release}/skiff" context import --name compose \
        --file <(docker run --rm -v skiff_config:/etc/skiff:ro --network none skiff-control:local \
            cat /etc/skiff/kubeconfig/admin.yaml) --wait-nodes 3
    ;;
down)
    if docker info >/dev/null 2>&1; then
        export SKIFF_BASE=${SKIFF_BASE:-$local_base}
        compose down --volumes --remove-orphans --timeout 15
    fi
    if [ -x "${SKIFF_PROGRAMS:-$target/release}/skiff" ]; then
        "${SKIFF_PROGRAMS:-$target/release}/skiff" context remove --name compose
    fi
    if [ -f "$target/docker/dockerd.pid" ]; then
        say "stopping the docker daemon that compose-up has started"
        kill "$(cat "$target/docker/dockerd.pid")"
    fi
    ;;
*)
    echo 'usage: compose.sh up|down' >&2
    exit 2
    ;;
esac
