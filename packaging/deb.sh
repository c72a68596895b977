#!/usr/bin/env bash
# Makes the Debian packages of the payload. Everything is staged in a folder of its own: the checkout stays as it is.
#
#   packaging/deb.sh PAYLOAD FOLDER
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
source packaging/common.sh

TREE=${1:?usage: packaging/deb.sh PAYLOAD FOLDER}
OUTPUT=${2:?usage: packaging/deb.sh PAYLOAD FOLDER}
VERSION=$(version)
readonly TREE OUTPUT VERSION

# The newest section of the release notes, in Debian's form.
changelog() {
    local item
    printf 'marchproxy (%s) unstable; urgency=medium\n\n' "$VERSION"
    newest_notes | while read -r item; do
        fmt -w 72 <<<"$item" | sed '1s/^/  * /; 2,$s/^/    /'
    done
    printf '\n -- %s  %s\n' "$(sed -n 's/^Maintainer: //p' packaging/deb/debian/control)" \
        "$(date -R -d "@$SOURCE_DATE_EPOCH")"
}

# An item a line; without any, the release itself.
newest_notes() {
    awk -v none="Release $VERSION." '
        /^## / { section++; next }
        section == 1 && /^- / { if (item) print item; item = substr($0, 3); next }
        section == 1 && /^  / { item = item " " substr($0, 3) }
        END { print item ? item : none }' docs/RELEASE_NOTES.md | tr -d '`*'
}

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
readonly work=$stage/marchproxy-$VERSION
mkdir -p "$work/completions" "$OUTPUT"

say "Laying out marchproxy_$VERSION"
cp -a packaging/deb/debian "$work/"
cp -a "$TREE" "$work/payload"
for kind in service sysusers tmpfiles; do
    cp "systemd/marchproxy.$kind" "$work/debian/"
done
cp "systemd/marchproxy-tui@.service" "$work/debian/marchproxy.marchproxy-tui@.service"
cp systemd/marchproxy.env "$work/"
# By the payload's own Python: pages and words are those of what is shipped.
python=$(compgen -G "$TREE/bin/python3.*")
"$python" -I scripts/manpages.py "$work/man"
"$TREE/bin/marchproxy" --show-completion bash >"$work/completions/marchproxy"
"$TREE/bin/marchproxy" --show-completion zsh >"$work/completions/_marchproxy"
"$TREE/bin/marchproxy" --show-completion fish >"$work/completions/marchproxy.fish"
changelog >"$work/debian/changelog"

say "Building"
(cd "$work" && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >"$stage/log" 2>&1) || {
    tail -n 40 "$stage/log" >&2
    fail "dpkg-buildpackage failed" "Its last lines stand above."
}
cp "$stage"/*.deb "$OUTPUT/"
say "$OUTPUT/marchproxy_${VERSION}_amd64.deb: $(($(stat -c %s "$OUTPUT/marchproxy_${VERSION}_amd64.deb") / 1000000)) MB"
