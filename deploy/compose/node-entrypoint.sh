#!/bin/sh
# Turns a container into a node: sets up a control group namespace, mounts and devices as on a
# machine, then starts a supervisor that runs containerd, kubelet, proxy and dns.
set -eu

# compose 1.29 cannot configure a control group namespace, so the container creates one.
if [ "${SKIFF_NODE_STAGE:-}" != inside ]; then
    export SKIFF_NODE_STAGE=inside
    exec unshare --cgroup "$0" "$@"
fi

# Mounts of pods must propagate, and kernel settings must be writable.
mount --make-rshared /
mount -o remount,rw /proc/sys 2>/dev/null || mount -o remount,rw,bind /proc/sys
mount -o remount,rw /sys

make_device() { # make_device PATH TYPE MAJOR MINOR
    [ -e "$1" ] || { mkdir -p "$(dirname "$1")"; mknod "$1" "$2" "$3" "$4"; }
}
make_device /dev/loop-control c 10 237
for number in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    make_device /dev/loop$number b 7 $number
done
make_device /dev/net/tun c 10 200
make_device /dev/fuse c 10 229
make_device /dev/kmsg c 1 11

if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    # Version 2: once controllers are delegated, processes may only be in leaf groups.
    mount -o remount,rw /sys/fs/cgroup
    mkdir -p /sys/fs/cgroup/init
    while read -r pid; do
        echo "$pid" >/sys/fs/cgroup/init/cgroup.procs 2>/dev/null || true # the process may have ended
    done </sys/fs/cgroup/cgroup.procs
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
    done
else
    # Version 1: remount, so that the root of each hierarchy is this node's own group.
    controllers=$(awk -F: '$2 != "" { print $2 }' /proc/self/cgroup)
    umount -R /sys/fs/cgroup
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    for controller in $controllers; do
        folder=$(echo "$controller" | sed 's/^name=//')
        mkdir -p "/sys/fs/cgroup/$folder"
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$folder" || rmdir "/sys/fs/cgroup/$folder"
    done
fi

setting() { # setting KEY VALUE: ignored if the kernel does not have it
    [ ! -e "/proc/sys/$1" ] || echo "$2" >"/proc/sys/$1"
}
setting net/ipv4/ip_forward 1
setting net/ipv4/conf/all/route_localnet 1
setting net/ipv4/conf/all/rp_filter 0
setting net/ipv4/conf/default/rp_filter 0
setting net/bridge/bridge-nf-call-iptables 1

exec skiff node-run --name compose --data-dir /var/lib/skiff --node "$(hostname)" --config /etc/skiff \
    --node-cidr "$NODE_CIDR" --pod-cidr "$POD_CIDR" --service-cidr "$SERVICE_CIDR" \
    --load-balancer-cidr "$LOAD_BALANCER_CIDR"
