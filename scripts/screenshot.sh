#!/usr/bin/env bash
# Takes a picture of a report with headless Chromium, e.g. the one in the README:
#   scripts/screenshot.sh runs/demo/report.html docs/images/report.png
# Width, height and the theme (light or dark) can follow.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 PAGE.html PICTURE.png [WIDTH=1280] [HEIGHT=1080] [light|dark]" >&2
  exit 2
fi
page=$(realpath "$1") picture=$(realpath -m "$2") width=${3:-1280} height=${4:-1080} theme=${5:-light}
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || {
  echo "no Chromium found; install the package chromium" >&2
  exit 2
}
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
scheme=1
[ "$theme" = dark ] && scheme=0
mkdir -p "$(dirname "$picture")"
"$browser" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars \
  --disable-background-networking --disable-component-update --disable-sync \
  --blink-settings=preferredColorScheme=$scheme --user-data-dir="$profile" \
  --screenshot="$picture" --window-size="$width,$height" "file://$page" 2>/dev/null
