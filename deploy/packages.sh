#!/bin/sh
# Installs missing Debian packages. The arguments are the required sets of packages.
# A program that is already installed, from whatever package, is left alone.
set -eu

missing=''
need() { # need PACKAGE FILE-OR-PROGRAM
    case $2 in
    /*) [ -e "$2" ] || missing="$missing $1" ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$2" >/dev/null || missing="$missing $1" ;;
    esac
}

for set in "$@"; do
    case $set in
    build)
        need make make
        need gcc cc
        need libc6-dev /usr/include/stdio.h
        need mold mold
        need protobuf-compiler protoc
        need libprotobuf-dev /usr/include/google/protobuf/empty.proto
        need git git
        ;;
    run)
        need containerd containerd
        need runc runc
        need iproute2 ip
        need nftables nft
        need mount losetup
        need e2fsprogs mkfs.ext4
        ;;
    test)
        need etcd-server etcd
        need etcd-client etcdctl
        need docker-registry docker-registry
        need busybox-static /bin/busybox
        need kubernetes-client kubectl
        # The package contains no program; check for its module instead.
        python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
        ;;
    compose)
        need docker.io dockerd
        docker compose version >/dev/null 2>&1 || need docker-compose docker-compose
        ;;
    vm)
        need qemu-system-x86 qemu-system-x86_64
        need binutils strip
        ;;
    base)
        need debootstrap debootstrap
        ;;
    *)
        echo "error: no such set of packages: $set" >&2
        exit 2
        ;;
    esac
done

[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "error: these packages are missing; install them as root:" >&2
    echo "  apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
