#!/bin/sh
# Installs the JavaScript client for the tests: node.sh DIRECTORY, a Python environment that has Node.js.
set -eu
folder=$1
package=@kubernetes/client-node@2.0.1
stamp=$folder/node_modules/.$(echo "$package" | tr / _)
[ ! -e "$stamp" ] || exit 0
PATH=$folder/bin:$PATH npm install --silent --no-fund --no-audit --no-package-lock --prefix "$folder" "$package"
touch "$stamp"
