#!/bin/sh
# Says what a host has, one docker_host:KEY=VALUE a line. Reads only, and needs nothing but a POSIX shell.
# PYTHONS: the interpreters to try, in Ansible's order. DOCKER_SOCKET: the engine's socket.
export LC_ALL=C PATH="${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/sbin:/sbin"
# An operator's own context or DOCKER_HOST may point at another machine's engine.
unset DOCKER_HOST DOCKER_CONTEXT DOCKER_API_VERSION
cd /
say() { printf 'docker_host:%s=%s\n' "$1" "$2"; }
contents() { if [ -r "$1" ]; then base64 <"$1" | tr -d '\n'; fi; }
engine() { timeout 20 docker -H "unix://$DOCKER_SOCKET" "$@" 2>/dev/null </dev/null; }

settings=/etc/docker/daemon.json
drop_in=/etc/systemd/system/docker.service.d/docker_host.conf

say uid "$(id -u)"
for candidate in $PYTHONS; do
  if python=$(command -v "$candidate"); then break; fi
done
say python "$python"
if [ -n "$python" ]; then
  say sdk "$("$python" -c 'import docker; print(docker.__version__)' 2>/dev/null)"
fi
say rsync "$(rsync --version 2>/dev/null | sed -n '1s/^rsync *version *\([^ ]*\).*/\1/p')"
say restic "$(restic version 2>/dev/null | sed -n '1s/^restic \([^ ]*\).*/\1/p')"

say dockerd "$(command -v dockerd)"
if command -v docker >/dev/null; then
  case $(docker --help 2>&1 </dev/null) in
    *[Pp]odman*) say cli podman ;;
    *) say cli docker ;;
  esac
  say engine "$(engine version --format '{{.Server.Version}}')"
  say api "$(engine version --format '{{.Server.APIVersion}}')"
  # A paused container is one that somebody is copying.
  say running "$(engine info --format '{{.ContainersRunning}} {{.ContainersPaused}}' | { read -r a b && echo $((a + b)); })"
  say rootless "$(engine info --format '{{.SecurityOptions}}' | grep -o rootless)"
  say compose "$(docker compose version --short 2>/dev/null </dev/null | sed 's/^v//')"
fi
say user_sockets "$(find /run/user -maxdepth 2 -name docker.sock 2>/dev/null | tr '\n' ' ')"

if [ -d /run/systemd/system ]; then
  say systemd yes
  say boot "$(systemctl is-enabled docker.service 2>/dev/null)"
fi
say settings "$(contents "$settings")"
if [ -n "$python" ] && [ -s "$settings" ]; then
  "$python" -c 'import json, sys; sys.exit(not isinstance(json.load(sys.stdin), dict))' <"$settings" 2>/dev/null || say settings_broken yes
fi
if [ -e "$drop_in" ]; then say owned yes; fi
say drop_in "$(contents "$drop_in")"
# docker.pid is written when the engine starts: what is newer than it is not in force yet.
for file in "$settings" "$drop_in"; do
  if [ -n "$(find "$file" -newer /run/docker.pid 2>/dev/null)" ]; then say pending yes; fi
done
exit 0
