# Sourced by setup.sh: packages without installing them. apt runs with lists and archives of its own under $cache/apt.
export DEBIAN_FRONTEND=noninteractive APT_CONFIG=$cache/apt/apt.conf

if [ ! -e "$cache/apt/ready" ]; then
  mkdir -p "$cache"/apt/{lists/partial,cache/archives/partial,sources.d}
  cat > "$APT_CONFIG" <<CONF
Dir::Etc::SourceList "$cache/apt/sources.list";
Dir::Etc::SourceParts "$cache/apt/sources.d";
Dir::State::Lists "$cache/apt/lists";
Dir::Cache "$cache/apt/cache";
APT::Sandbox::User "root";
Debug::NoLocking "true";
CONF
  # The distribution's own sources, with source packages beside the binary ones; third parties' stay out.
  : > "$cache/apt/sources.list"
  if [ -s /etc/apt/sources.list ]; then
    sed -En 's/^deb(-src)? /&/p' /etc/apt/sources.list | sed -E 'h; s/^deb(-src)? /deb /p; g; s/^deb(-src)? /deb-src /' \
      | sort -u > "$cache/apt/sources.list"
  fi
  for file in /etc/apt/sources.list.d/{debian,ubuntu}.sources; do
    [ -e "$file" ] && sed -E 's/^Types:.*/Types: deb deb-src/' "$file" > "$cache/apt/sources.d/$(basename "$file")"
  done
  apt-get -qq update
  touch "$cache/apt/ready"
fi

# Unpacks packages, and those of their dependencies that this machine has not, into $root.
fetch() { # PACKAGE...
  local closure
  closure=$(apt-get install -s --no-install-recommends "$@" | awk '/^Inst /{ print $2 }')
  (cd "$cache/debs" && printf '%s\n' "$@" $closure | sort -u | xargs apt-get -qq download)
  for deb in "$cache"/debs/*.deb; do dpkg -x "$deb" "$root"; done
  rm -f "$cache"/debs/*.deb
}

# Makes $cache/bin/TOOL run the unpacked program with the unpacked libraries.
wrap() { # TOOL
  local program
  program=$(find "$root"/usr/{bin,sbin} -name "$1" | head -n 1)
  cat > "$cache/bin/$1" <<RUN
#!/bin/sh
export LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu
exec $program "\$@"
RUN
  chmod +x "$cache/bin/$1"
}
