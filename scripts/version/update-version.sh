#!/usr/bin/env bash
# Writes the next version into .version, and begins its section in the release notes, from which the Debian changelog is
# made. Wheel, single file and package take their version from .version alone.
#
#   scripts/version/update-version.sh                      the same release, a new build
#   scripts/version/update-version.sh major|minor|patch    the next release
#
# .version is vMAJOR.MINOR.PATCH.BUILD; BUILD is seconds since 1970 (SOURCE_DATE_EPOCH, or now).
# Exit codes: 0 done, the version is on stdout; 1 .version is not to be understood; 2 usage.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    printf 'usage: scripts/version/update-version.sh [major|minor|patch]\n' >&2
    exit 2
}

# begin_notes RELEASE: a section of its own, above the one of the release before.
begin_notes() {
    local notes=docs/RELEASE_NOTES.md
    ! grep -qxF "## $1" "$notes" || return 0
    awk -v heading="## $1" '/^## / && !done { print heading "\n"; done = 1 } { print }' "$notes" >"$notes.new"
    mv "$notes.new" "$notes"
}

(($# <= 1)) || usage
[[ $(<.version) =~ ^v?([0-9]+)\.([0-9]+)\.([0-9]+)(\.[0-9]+)?$ ]] || {
    printf 'update-version: .version holds "%s"; expected vMAJOR.MINOR.PATCH.BUILD\n' "$(<.version)" >&2
    exit 1
}
major=${BASH_REMATCH[1]} minor=${BASH_REMATCH[2]} patch=${BASH_REMATCH[3]}
case ${1-} in
    major) major=$((major + 1)) minor=0 patch=0 ;;
    minor) minor=$((minor + 1)) patch=0 ;;
    patch) patch=$((patch + 1)) ;;
    '') ;;
    *) usage ;;
esac
version=v$major.$minor.$patch.${SOURCE_DATE_EPOCH:-$(date +%s)}
printf '%s\n' "$version" >.version.new
mv .version.new .version
begin_notes "$major.$minor.$patch"
printf '%s\n' "$version"
