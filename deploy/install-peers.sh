#!/bin/sh
# Installs the real peers that tests drive (Debian, Ubuntu), and leaves none of them running.
# With --check it only says what is absent.
set -eu

# program that shows it is there : package
peers="storescp:dcmtk Orthanc:orthanc dciodvfy:dicom3tools chromium:chromium strace:strace"
absent=""
PATH="$PATH:/usr/sbin:/usr/lib/dcmtk"
for peer in $peers; do
    command -v "${peer%%:*}" >/dev/null 2>&1 || absent="$absent ${peer##*:}"
done
ls /usr/share/orthanc/plugins/libOrthancDicomWeb.so >/dev/null 2>&1 || absent="$absent orthanc-dicomweb"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || absent="$absent postgresql"
ls /usr/share/fonts/opentype/noto/NotoSansCJK* >/dev/null 2>&1 || absent="$absent fonts-noto-cjk"

if [ -z "$absent" ]; then
    exit 0
fi
if [ "${1:-}" = "--check" ]; then
    echo "Not installed:$absent. As root: deploy/install-peers.sh" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "Run deploy/install-peers.sh as root: it installs$absent" >&2
    exit 1
fi

# A package's own service would hold ports that tests need: refuse to start any while installing.
policy=/usr/sbin/policy-rc.d
made=""
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    made=1
fi
trap '[ -z "$made" ] || rm -f "$policy"' EXIT

# Lists first, without leave to fail: packages that an old list names may be gone.
apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $absent >/dev/null
echo "Installed:$absent"
