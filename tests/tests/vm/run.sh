# What is tried in the virtual machine, on one cluster.
mount -t securityfs security /sys/kernel/security
skiff up
skiff image load /mnt/busybox.tar
. /mnt/apparmor.sh
. /mnt/nfs.sh
skiff down
