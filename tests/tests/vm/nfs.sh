# Pods on a volume of a real NFS server, which is this machine: the nodes reach it by the first address of their subnet.
# Whether any process sees a mount of an NFS server; some end meanwhile.
mounted() {
    cat /proc/[0-9]*/mounts 2>/dev/null | grep -q ' nfs4 '
}

mount -t tmpfs srv /srv
mkdir /srv/shared
echo '/srv/shared 172.30.0.0/24(rw,no_root_squash,no_subtree_check,fsid=1)' >/etc/exports
modprobe nfsd
mount -t nfsd nfsd /proc/fs/nfsd
exportfs -a
rpc.nfsd --no-nfs-version 3 2
rpc.mountd --no-nfs-version 3

skiff apply -f /mnt/nfs.yaml

echo "a volume that the server does not export"
selector=reason=FailedMount,involvedObject.name=refused
until skiff get events --field-selector "$selector" -o jsonpath='{.items[*].message}' |
    grep -q 'mounting 172.30.0.1:/srv/other failed, reason given by server'; do sleep 1; done

echo "two pods write to one volume, and see each other's files"
skiff wait --for=condition=Ready pod/one pod/two --timeout=120s
mounted
for pod in one two; do
    skiff exec "$pod" -- sh -c "echo $pod >/data/$pod && sync"
done
[ "$(skiff exec one -- cat /data/two)" = two ]
[ "$(skiff exec two -- cat /data/one)" = one ]
[ "$(cat /srv/shared/one /srv/shared/two | xargs)" = 'one two' ]

echo "a volume that is mounted to be read only"
skiff wait --for=condition=Ready pod/reader --timeout=60s
[ "$(skiff exec reader -- cat /data/one)" = one ]
if skiff exec reader -- touch /data/three; then exit 1; fi
[ ! -e /srv/shared/three ]

echo "nothing stays mounted, and the data stay where they are"
skiff delete pod one two reader refused
skiff delete pvc shared
until [ "$(skiff get pv shared -o jsonpath='{.status.phase}')" = Released ]; do sleep 1; done
if mounted; then exit 1; fi
[ "$(cat /srv/shared/one /srv/shared/two | xargs)" = 'one two' ]
