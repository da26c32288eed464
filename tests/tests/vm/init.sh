#!/bin/sh
# The first process of the virtual machine: runs the script of the second disk, says how it ended, and powers off.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null # the kernel may have done it
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -o ro /dev/vdb /mnt
ip link set lo up
export HOME=/root PATH=/mnt/bin:/usr/sbin:/usr/bin:/sbin:/bin
{
    sh -eu /mnt/run.sh
    echo "exit status: $?"
} 2>&1 | cat >/dev/ttyS0
echo o >/proc/sysrq-trigger
sleep 60
