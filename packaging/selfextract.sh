#!/usr/bin/env bash
# Makes one executable file of the payload: a shell script that unpacks what stands behind it (packaging/header.sh).
#
#   packaging/selfextract.sh PAYLOAD FOLDER
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
source packaging/common.sh

TREE=${1:?usage: packaging/selfextract.sh PAYLOAD FOLDER}
FILE=${2:?usage: packaging/selfextract.sh PAYLOAD FOLDER}/$(artifact_name)-linux-amd64
readonly TREE FILE
archive=$(mktemp)
trap 'rm -f "$archive"' EXIT

say "Packing $FILE"
mkdir -p "${FILE%/*}"
# gzip, because every system has it.
tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -C "$TREE" -c . | gzip -n -9 >"$archive"
build=$(sha256sum "$archive" | cut -c1-16)
header=$(sed "s/@BUILD@/$build/; s/@LINES@/$(($(wc -l <packaging/header.sh) + 1))/" packaging/header.sh)
{
    printf '%s\n' "$header"
    cat "$archive"
} >"$FILE.new"
chmod 755 "$FILE.new"
mv "$FILE.new" "$FILE"
say "$FILE: $(($(stat -c %s "$FILE") / 1000000)) MB"
