# shellcheck shell=bash
# Shared by the scripts in this directory; sourced, not run.
#
# Everything that takes long to make and does not depend on this checkout (installations of PostgreSQL,
# cargo-pgrx) is kept in $CACHE, outside the repository. Nothing is written anywhere else, except packages
# that apt installs when we are root.

set -euo pipefail
umask 022 # as root, user postgres must be able to read what we make

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
MAJORS="15 16 17 18"

export HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d : -f 6)}

if [ -n "${AUDIT_CACHE:-}" ]; then
  CACHE=$AUDIT_CACHE
elif [ "$(id -u)" = 0 ]; then
  CACHE=/var/cache/audit-extension
else
  CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/audit-extension
fi
# AUDIT_CASSERT=1: a PostgreSQL that checks its own assertions, and what is done to its memory, beside the usual one.
FLAVOR=${AUDIT_CASSERT:+-cassert}
# Both have the same features, so that each would throw away what was built for the other.
case "$FLAVOR ${CARGO_TARGET_DIR:-}" in
  " "* | *" "*/cassert) ;; # the latter: set by a script that called this one
  *) export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$ROOT/target}/cassert" ;;
esac

unset MAKEFLAGS MFLAGS MAKELEVEL # of our make, not meant for PostgreSQL's
export PATH="$CACHE/cargo/bin:$PATH:$HOME/.cargo/bin"

[ -t 2 ] || export NO_COLOR=1

# Progress goes to stderr: the standard output of these scripts is their answer.
say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

is_root() { [ "$(id -u)" = 0 ]; }

check_major() {
  case " $MAJORS " in *" $1 "*) ;; *) die "PostgreSQL major \"$1\" is not one of: $MAJORS" ;; esac
}

# Runs a program that refuses to run as root, such as initdb or pg_ctl.
unprivileged() {
  if is_root; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

# Runs a command whose output matters only when it fails.
quietly() {
  local log
  log=$(mktemp)
  if "$@" >"$log" 2>&1 </dev/null; then rm -f "$log"; return 0; fi
  tail -n 40 "$log" >&2
  rm -f "$log"
  return 1
}

# Makes sure Debian packages are installed; says what to install when it may not do it itself.
need_packages() {
  local missing=() package
  command -v dpkg-query >/dev/null || return 0 # another system: what is missing will say so itself
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  is_root || die "packages are missing; run this as root, then try again:
  apt-get install ${missing[*]}"
  say "installing with apt: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  quietly apt-get install -y --no-install-recommends "${missing[@]}" && return 0
  say "trying again with fresh package lists"
  quietly apt-get update || say "apt-get update had errors; going on with the lists there are"
  quietly apt-get install -y --no-install-recommends "${missing[@]}" || die "apt could not install: ${missing[*]}"
}

# Go with its own implementation of trees, proofs and signed notes, which tests/go holds against ours.
# shellcheck disable=SC2034
GO_PACKAGES=(golang-go golang-golang-x-mod-dev)

# cargo-pgrx must be exactly the pgrx of Cargo.toml, or it refuses to work.
pgrx_version() { sed -nE 's/^pgrx *= *(\{ *version *= *)?"=([0-9.]+)".*/\2/p' "$ROOT/Cargo.toml"; }

# Each major has its own: the bindings are built again whenever config.toml changes.
pgrx_home() { printf '%s/pgrx/%s\n' "$CACHE" "$1$FLAVOR"; }

# The directory for private trees: short, and one that user postgres can reach when we are root.
trees_dir() {
  if is_root; then
    printf '%s/trees/%s\n' "$CACHE" "$(printf %s "$ROOT" | sha256sum | cut -c 1-12)"
  else
    (cd "$ROOT" && mkdir -p "${CARGO_TARGET_DIR:-target}/tree" && cd "${CARGO_TARGET_DIR:-target}/tree" && pwd -P)
  fi
}

# Names the sources of the extension by their contents, to tell whether what is installed is current.
source_stamp() {
  local inputs=() input
  for input in Cargo.toml Cargo.lock build.rs hot.ld audit.control src sql crates; do
    [ ! -e "$ROOT/$input" ] || inputs+=("$input")
  done
  (cd "$ROOT" && rustc --version && find "${inputs[@]}" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) |
    sha256sum | cut -c 1-16
}
