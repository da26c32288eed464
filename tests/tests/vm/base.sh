#!/bin/bash
# base.sh FOLDER: makes the disk, the kernel and the initial ramdisk of the tests' virtual machine there, from the
# base image of the compose cluster and Debian's packages.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$here/../../..
folder=$(realpath -m "$1")
target=$(dirname "$folder")

recipe() { cat "$here/base.sh" "$here/init.sh"; }
if [ -f "$folder/made" ] && recipe | cmp -s - "$folder/made"; then exit 0; fi
"$repository/deploy/packages.sh" run base
CARGO_TARGET_DIR=$target "$repository/deploy/compose.sh" base
mkdir -p "$folder"
rootfs=$(mktemp -d)
# In memory, because dpkg syncs every file.
mount -t tmpfs -o mode=755,size=2g skiff-vm "$rootfs"
trap 'umount "$rootfs"; rmdir "$rootfs"' EXIT
tar -C "$rootfs" -xf "$target/compose-base.tar"
cp /etc/resolv.conf "$rootfs/etc/resolv.conf"
# The ramdisk has only what it takes to mount the disk.
mkdir -p "$rootfs/etc/initramfs-tools/conf.d"
echo MODULES=list >"$rootfs/etc/initramfs-tools/conf.d/small"
printf '%s\n' virtio_pci virtio_blk ext4 >"$rootfs/etc/initramfs-tools/modules"
TMPDIR=/tmp DEBIAN_FRONTEND=noninteractive unshare --mount --pid --fork chroot "$rootfs" sh -eu -c '
    mount -t proc proc /proc
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold \
        linux-image-cloud-amd64 initramfs-tools busybox-static nfs-kernel-server apparmor
' >"$folder/apt.log" 2>&1 || { tail -5 "$folder/apt.log" >&2; exit 1; }
cp "$rootfs"/boot/vmlinuz-* "$folder/vmlinuz"
cp "$rootfs"/boot/initrd.img-* "$folder/initrd"
rm -rf "$rootfs"/usr/share/{doc,man,locale,info}/* "$rootfs"/var/cache/apt/* "$rootfs"/var/lib/apt/lists/*
install -m 755 "$here/init.sh" "$rootfs/sbin/init"
mkfs.ext4 -q -F -d "$rootfs" "$folder/disk.img" 4G
recipe >"$folder/made"
