#!/bin/sh
# Makes a Python environment with the packages of a requirements file: python.sh FOLDER FILE
set -eu
folder=$1
file=$2
stamp=$folder/requirements.txt
if cmp -s "$file" "$stamp"; then
    exit 0
fi
rm -rf "$folder"
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check -r "$file"
cp "$file" "$stamp"
