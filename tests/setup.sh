#!/usr/bin/env bash
# Prepares this machine: 'python' for the gates that need no Docker, 'all' (the default) for the lab, the demo and the tests.
# Says what it installs, installs only what is missing, and is done at once when nothing is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# make puts .venv first, which must not be made from itself; a bare root shell can lack the sbin directories.
PATH="${PATH//"$PWD/.venv/bin:"/}:/usr/sbin:/sbin"

WHAT="${1:-all}"
COMPOSE_MIN="2.24"
PYTHON_ROOM_MB=2000
LAB_ROOM_MB=12000
# command:Debian package. The one list for the set-up, the lab and the images; a command that is there is left alone.
APT_ALL=(git:git docker:docker.io iptables:iptables mmdebstrap:mmdebstrap ssh:openssh-client rsync:rsync
  mvn:maven restic:restic shellcheck:shellcheck mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs apprise:apprise chromium:chromium)

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

need_root() {
  [ "$(id -u)" -eq 0 ] || die "This needs root ($1), and you are $(id -un): run it again with sudo."
}

free_mb() { df -Pm "$1" | awk 'NR == 2 { print $4 }'; }

check_room() {  # directory, MB needed, what for
  local found
  found="$(free_mb "$1")"
  [ "$found" -ge "$2" ] || die "Not enough room in $1 for $3: needed $2 MB, found $found MB; free some and run it again."
}

install_missing() {  # command:package…
  local pair packages=()
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || [[ " ${packages[*]} " == *" ${pair##*:} "* ]] || packages+=("${pair##*:}")
  done
  [ "${#packages[@]}" -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null; then
    case " ${packages[*]} " in
      *" docker.io "*) die "Docker is not installed and there is no apt to install it with: install Docker, then run it again." ;;
      *) die "There is no apt to install ${packages[*]} with: install that by your system's own means, then run it again." ;;
    esac
  fi
  need_root "it installs the packages ${packages[*]}"
  say "installing with apt: ${packages[*]}"
  mkdir -p build
  export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
  apt-get update >build/apt.log 2>&1 </dev/null || die "apt-get update failed: see build/apt.log."
  # Debian 13 has Docker's command in a package of its own.
  case " ${packages[*]} " in
    *" docker.io "*) [ -z "$(apt-cache --names-only search '^docker-cli$')" ] || packages+=(docker-cli) ;;
  esac
  apt-get install -y --no-install-recommends "${packages[@]}" >>build/apt.log 2>&1 </dev/null \
    || die "apt could not install ${packages[*]}: $(grep -m1 '^E:' build/apt.log || echo 'the reason is in') (build/apt.log)."
}

find_python() {
  local name names=(python3 python3.13 python3.12 python3.11)
  # The system's own where its venv is there, or can be installed: others are seldom built with profiles, and slower.
  if [ -x /usr/bin/apt-get ] && { [ "$(id -u)" -eq 0 ] || /usr/bin/python3 -c 'import ensurepip' 2>/dev/null; }; then
    [[ ":$PATH:" != *:/usr/bin:* ]] || names=(/usr/bin/python3 "${names[@]}")
  fi
  for name in "${names[@]}"; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  die "No Python 3.11 or newer found ($(python3 -V 2>/dev/null || echo 'no python3 at all')): install one, then run it again."
}

make_venv() {
  local python stamp
  python="$(find_python)"
  stamp="$(sha256sum <requirements.txt | cut -d' ' -f1) $python"
  [ "$(cat .venv/stamp 2>/dev/null || true)" != "$stamp" ] || return 0
  check_room . "$PYTHON_ROOM_MB" "the Python environment"
  "$python" -c 'import ensurepip' 2>/dev/null || install_missing "python3 -m ensurepip:python3-venv"
  say "making .venv with $("$python" -V) and the $(grep -c == requirements.txt) pinned packages of requirements.txt"
  mkdir -p build
  rm -rf .venv
  "$python" -m venv .venv >build/pip.log 2>&1 || die "$python cannot make a virtual environment: see build/pip.log."
  .venv/bin/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.txt \
    >>build/pip.log 2>&1 </dev/null || die "pip could not install requirements.txt: $(grep -m1 ERROR build/pip.log) (build/pip.log)."
  echo "$stamp" >.venv/stamp
}

link_collection() {
  local link=.collections/ansible_collections/openmemory/stack
  [ ! -e "$link/galaxy.yml" ] || return 0
  mkdir -p "${link%/*}"
  ln -sfn ../../.. "$link"
}

docker_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

start_docker() {
  local pidfile
  ! docker_answers || return 0
  [ -z "${DOCKER_HOST:-}" ] || die "Docker at DOCKER_HOST=$DOCKER_HOST does not answer: start it or unset DOCKER_HOST."
  need_root "it starts Docker"
  command -v dockerd >/dev/null || die "Docker's command is here but not its engine (dockerd): install or start one, then run it again."
  if [ -d /run/systemd/system ]; then
    say "starting Docker (systemctl start docker)"
    systemctl start docker || die "systemd could not start Docker: see 'journalctl -u docker'."
  else
    say "starting dockerd in the background (build/dockerd.pid, build/dockerd.log)"
    mkdir -p build
    # A killed engine leaves its number behind, and takes whoever has that number now for itself.
    for pidfile in /var/run/docker.pid /var/run/docker/containerd/containerd.pid; do
      [ ! -f "$pidfile" ] || grep -qE '^(dockerd|containerd)$' "/proc/$(cat "$pidfile")/comm" 2>/dev/null || rm -f "$pidfile"
    done
    setsid dockerd >build/dockerd.log 2>&1 </dev/null &
    echo $! >build/dockerd.pid
  fi
  for _ in $(seq 120); do
    ! docker_answers || return 0
    sleep 0.25
  done
  die "Docker was started but does not answer after 30 seconds: $(tail -n1 build/dockerd.log 2>/dev/null)"
}

ensure_compose() {
  local found binary target=/usr/local/lib/docker/cli-plugins/docker-compose
  found="$(docker compose version --short 2>/dev/null || true)"
  found="${found#v}"
  [ -z "$found" ] || [ "$(printf '%s\n' "$COMPOSE_MIN" "$found" | sort -V | head -n1)" != "$COMPOSE_MIN" ] || return 0
  need_root "it installs the Docker Compose plugin"
  binary="$(.venv/bin/python -c 'import compose, pathlib; print(pathlib.Path(compose.__file__).parent / "docker-compose")')"
  say "installing the Docker Compose plugin in $target (found: ${found:-none}, needed: $COMPOSE_MIN)"
  install -D -m 0755 "$binary" "$target"
  docker compose version >/dev/null 2>&1 || die "Docker does not find the Compose plugin in $target: is another one in ~/.docker/cli-plugins?"
}

ensure_promtool() {  # only the program: the package itself would start a Prometheus server
  local target=/usr/local/bin/promtool package
  ! command -v promtool >/dev/null || return 0
  need_root "it installs promtool"
  command -v apt-get >/dev/null || die "There is no apt to fetch promtool with: put Prometheus's promtool into the PATH, then run it again."
  say "installing promtool, from Debian's package prometheus, in $target"
  mkdir -p build/promtool
  ( cd build/promtool && { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; } ) \
    >build/promtool.log 2>&1 </dev/null || die "apt could not fetch the package prometheus: see build/promtool.log."
  for package in build/promtool/prometheus_*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -O ./usr/bin/promtool >build/promtool/promtool
  done
  install -m 0755 build/promtool/promtool "$target"
  rm -r build/promtool
  promtool --version >/dev/null 2>&1 || die "$target does not run: remove it, and put another promtool into the PATH."
}

case "$WHAT" in
  python) ;;
  all) need_root "it installs packages, starts Docker and builds hosts for the lab" ;;
  *) die "Unknown part '$WHAT': use 'python' or 'all'." ;;
esac
if [ "$WHAT" = all ] && [ ! -f .venv/stamp ]; then
  check_room . "$LAB_ROOM_MB" "the lab (Python environment, root file systems, images)"
fi
make_venv
link_collection
[ "$WHAT" = all ] || exit 0
# An engine on a kernel with AppArmor starts no container without its parser.
[ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" != Y ] || APT_ALL+=(apparmor_parser:apparmor)
# A machine can have Docker's command without its engine; one that answers, wherever it is, needs none here.
docker_answers || [ -n "${DOCKER_HOST:-}" ] || APT_ALL+=(dockerd:docker.io)
install_missing "${APT_ALL[@]}"
ensure_promtool
start_docker
ensure_compose
