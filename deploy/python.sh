#!/bin/sh
# Creates a Python environment with the packages of requirements files: python.sh DIRECTORY FILE...
set -eu
folder=$1
shift
stamp=$folder/requirements.txt
if cat "$@" | cmp -s - "$stamp"; then
    exit 0
fi
rm -rf "$folder"
python3 -m venv "$folder"
for file; do
    "$folder/bin/pip" install -q --disable-pip-version-check -r "$file"
done
cat "$@" >"$stamp"
