#!/usr/bin/env bash
# Start Neo4j, or another command, as the official image's entrypoint does: as root hand /data and /logs to the user
# neo4j and become it; turn NEO4J_<section>_<key> into settings; set the first password. Java becomes process 1.
set -euo pipefail

fail() {
  echo "$1" >&2
  exit 1
}

if [[ $(id -u) == 0 ]]; then
  for directory in /data /logs; do
    if [[ -d $directory ]]; then
      find "$directory" ! \( -user neo4j -group neo4j \) -exec chown --no-dereference neo4j:neo4j {} +
    fi
  done
  exec setpriv --reuid=neo4j --regid=neo4j --clear-groups "${BASH_SOURCE[0]}" "$@"
fi

home=$NEO4J_HOME
conf=$home/conf/neo4j.conf
cp "$home/conf/neo4j.conf.default" "$conf"

setting() { # NAME VALUE: the last line of a name wins, so the default is taken out
  sed -i "/^${1//./\\.}=/d" "$conf"
  printf '%s=%s\n' "$1" "$2" >> "$conf"
}

value_of() { sed -n "s/^${1//./\\.}=//p" "$conf"; }

# NEO4J_server_memory_pagecache_size: one underscore is a dot, two are an underscore.
while IFS= read -r name; do
  [[ $name =~ ^NEO4J_[a-z] ]] || continue
  key=${name#NEO4J_}
  key=${key//__/%}
  key=${key//_/.}
  setting "${key//%/_}" "${!name}"
done < <(compgen -e)

auth=${NEO4J_AUTH:-}
if [[ $auth == none ]]; then
  setting dbms.security.auth_enabled false
elif [[ $auth == neo4j/* ]]; then
  password=${auth#neo4j/}
  [[ $password != neo4j ]] || fail "Invalid value for password. It cannot be 'neo4j', which is the default."
  ((${#password} >= 8)) || fail "Invalid value for password. The minimum password length is 8 characters."
  # Only the very first start sets it: a /data that comes with a system database keeps its own password.
  if [[ ${1:-} == neo4j && ! -e /data/dbms/auth.ini && ! -e /data/databases/system ]]; then
    "$home/bin/neo4j-admin" dbms set-initial-password "$password" > /dev/null
  fi
elif [[ -n $auth ]]; then
  fail "Invalid value for NEO4J_AUTH: it is 'none' or 'neo4j/<password>'."
fi
unset NEO4J_AUTH auth password

[[ ${1:-} == neo4j ]] || exec "$@"

options=()
for pair in Xms:server.memory.heap.initial_size Xmx:server.memory.heap.max_size; do
  value=$(value_of "${pair#*:}")
  [[ -z $value ]] || options+=("-${pair%%:*}$value")
done
more=$(value_of server.jvm.additional)
# shellcheck disable=SC2086 # several options in one variable are meant to be split
exec java @"$home/java.options" "${options[@]}" $more -cp "$(< "$home/classpath")" \
  org.neo4j.server.CommunityEntryPoint --home-dir="$home" --config-dir="$home/conf" --console-mode
