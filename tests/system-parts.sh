#!/bin/sh
# Installs the system's parts that tests need, with apt where that may be done; what is missing elsewhere is said, and
# its tests skip with the reason (with CI=true they fail instead).
set -eu
wanted=""
command -v bwrap >/dev/null 2>&1 || wanted="$wanted bubblewrap"
command -v mkfs.ext4 >/dev/null 2>&1 || [ -x /sbin/mkfs.ext4 ] || wanted="$wanted e2fsprogs"
if ! docker info >/dev/null 2>&1; then
  command -v podman >/dev/null 2>&1 || wanted="$wanted podman"
  # What podman runs containers with; netavark is its network.
  command -v runc >/dev/null 2>&1 || wanted="$wanted runc"
  [ -x /usr/lib/podman/netavark ] || [ -x /usr/libexec/podman/netavark ] || wanted="$wanted netavark"
fi
# Started by tests themselves, each its own: the package's own cluster is neither made nor started.
database=""
command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || database=postgresql
[ -n "$wanted$database" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  export DEBIAN_FRONTEND=noninteractive
  install() { apt-get install -y -qq --no-install-recommends "$@"; }
  # shellcheck disable=SC2086 # a list of words
  install $wanted ${database:+postgresql-common} >/dev/null 2>&1 || {
    apt-get update -qq >/dev/null 2>&1
    install $wanted ${database:+postgresql-common} >/dev/null
  }
  if [ -n "$database" ]; then
    echo "create_main_cluster = false" >>/etc/postgresql-common/createcluster.conf
    install postgresql >/dev/null
  fi
else
  wanted="$wanted${database:+ $database}"
  echo "not installed, so their tests are skipped:$wanted (apt-get install$wanted)"
fi
