# What a container may do unless it has a profile of its own, or is privileged. It may not mount, nor
# change what the kernel shares between containers.
profile skiff-default flags=(attach_disconnected, mediate_deleted) {
  network,
  capability,
  file,
  umount,

  signal (receive) peer=unconfined,
  signal (send, receive) peer=skiff-default,
  ptrace (trace, read, tracedby, readby) peer=skiff-default,

  deny mount,

  # Of /proc/sys only net, and IPC in kernel (msg*, sem, shm*), belong to a pod.
  deny /proc/sys/[^kn]** wkl,
  deny /proc/sys/kernel/[^ms]** wkl,
  deny /proc/sys/kernel/m[^s]** wkl,
  deny /proc/sys/kernel/s[^eh]** wkl,
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,

  # Of /sys only its cgroups.
  deny /sys/[^f]** wklx,
  deny /sys/f[^s]** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/{firmware,kernel/security,devices/virtual/powercap}/** rwklx,
}
