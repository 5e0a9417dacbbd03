#!/usr/bin/env bash
# Installs what `make test-deploy` needs from Debian 12: systemd-nspawn, Slurm, Docker with Compose, Podman; and makes a small
# Debian as the base of images (.deploy-tools/base.tar), since the tests use no registry. Nothing is started: the tests
# start what they need, in folders of their own, and end it.
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=(
  systemd-container systemd-sysv dbus
  munge slurmctld slurmd slurm-client
  docker.io docker-compose
  podman runc catatonit containernetworking-plugins iptables
  debootstrap
)

fail() {
  printf 'deploy_engines.sh: %s\n' "$1" >&2
  exit 2
}

[[ $(id -u) == 0 ]] || fail "run it as root: it installs packages and the tests mount file systems"
command -v apt-get >/dev/null || fail "this machine has no apt-get; the engines are tested on Debian 12"

missing=()
for package in "${PACKAGES[@]}"; do
  dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [[ ${#missing[@]} -gt 0 ]]; then
  echo "deploy_engines.sh: installing ${missing[*]}"
  # Debian starts a service when it is installed, unless this says no.
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

base=.deploy-tools/base.tar
if [[ ! -f $base ]]; then
  echo "deploy_engines.sh: making a small Debian in $base"
  mkdir -p .deploy-tools
  # The mirror that this machine installs from.
  mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' | awk '$2 == "bookworm" { print $1; exit }')
  [[ -n $mirror ]] || fail "apt knows no mirror of Debian 12 (bookworm)"
  folder=$(mktemp -d)
  debootstrap --variant=minbase bookworm "$folder" "$mirror" >"$folder.log" 2>&1 ||
    fail "debootstrap failed: $(tail -n 3 "$folder.log")"
  rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
  tar -C "$folder" -cf "$base.half" .
  mv "$base.half" "$base"
  rm -rf "$folder" "$folder.log"
fi
