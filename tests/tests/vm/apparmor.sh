# Containers under AppArmor, which this machine's kernel has.
apparmor_parser --replace <<'EOF'
abi <abi/3.0>,
profile no-files flags=(attach_disconnected) {
  file,
  capability,
  network,
  signal,
  deny /data/** w,
}
EOF

skiff apply -f /mnt/apparmor.yaml
skiff wait --for=condition=Ready pod/plain pod/default pod/own pod/unconfined pod/privileged --timeout=120s

of() {
    skiff exec "$1" -- cat /proc/self/attr/current
}

echo "each container has its profile"
[ "$(of plain)" = 'skiff-default (enforce)' ]
[ "$(of default)" = 'skiff-default (enforce)' ]
[ "$(of own)" = 'no-files (enforce)' ]
[ "$(of unconfined)" = unconfined ]
[ "$(of privileged)" = unconfined ]

echo "profiles are enforced"
skiff exec plain -- touch /data/file
if skiff exec own -- touch /data/file; then exit 1; fi
skiff exec own -- touch /file
if skiff exec plain -- mount -t tmpfs none /data; then exit 1; fi
skiff exec unconfined -- mount -t tmpfs none /data

echo "a profile that is not there"
until skiff get pod missing -o yaml | grep -q 'apparmor profile not found nowhere'; do sleep 1; done
skiff delete -f /mnt/apparmor.yaml
