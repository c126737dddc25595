#!/usr/bin/env bash
# Installs IllumiDesk on a bare Ubuntu or Debian machine, and upgrades it when run again.
#
#   sudo ./install.sh                                   from a clone
#   curl -fsSL URL/install.sh | sudo bash               the released version
#   curl -fsSL URL/install.sh | sudo bash -s -- --help  every flag
#
# This file brings Python and the package. The package's own `illumidesk.host` does the rest.
# Everything is in functions and the last line calls the first of them, so that half a download does nothing.

set -euo pipefail

readonly MIN_PYTHON=11              # of Python 3
readonly MANAGED_PYTHON=3.12        # what uv brings where the system's is older
readonly UV_REQUIREMENT='uv>=0.9,<1'
readonly MIN_DISK_MB=3072           # an installation takes about 1 GB; an upgrade builds beside it
readonly MIN_MEMORY_MB=900          # "1 GB" machines show a little less. Swap does not count: a hub in swap is no hub
readonly OPT=/opt/illumidesk
readonly LOG_DIR=/var/log/illumidesk
readonly CONFIG=/etc/illumidesk/config.yaml
readonly PROXY_ACCOUNT=illumidesk-proxy
readonly EXPLAINED='install.sh says: '

usage() {
    cat <<'USAGE'
Installs IllumiDesk, or upgrades it when run again. Needs root.

  --admin NAME         an administrator of the hub (default at the first installation: admin)
  --course ID          make this course, with the administrator as its instructor (repeatable)
  --with PROGRAMS      programs to work in, beside notebooks: vscode, theia or both with a comma between
  --no-demo            no demo course intro101 with instructor1 and student1
  --http-port PORT     the public port (default 80; kept in /etc/illumidesk/config.yaml)
  --version VERSION    install this release from PyPI
  --from SOURCE        install from a folder, a wheel or a git URL (default: the clone this file lies in, else PyPI)
  --refresh            build the environments anew with the newest versions allowed, though nothing else changed
  --force-unsupported  try on a release that is not supported
  --yes                do not ask
  --help               this text

Each flag is also a variable: ILLUMIDESK_ADMIN, ILLUMIDESK_COURSE (several with spaces between), ILLUMIDESK_WITH,
ILLUMIDESK_NO_DEMO=1, ILLUMIDESK_HTTP_PORT, ILLUMIDESK_VERSION, ILLUMIDESK_FROM, ILLUMIDESK_REFRESH=1, ILLUMIDESK_FORCE_UNSUPPORTED=1,
ILLUMIDESK_YES=1.
USAGE
}

# One sentence about what is wrong, and perhaps one about what to do.
stop() {
    printf 'install.sh: %s\n' "$1" >&2
    if [ -n "${2:-}" ]; then printf '            %s\n' "$2" >&2; fi
    exit 1
}

# ---------------------------------------------------------------------------------------------------------- options

parse_options() {
    ADMIN=${ILLUMIDESK_ADMIN:-}
    WITH=${ILLUMIDESK_WITH:-}
    NO_DEMO=${ILLUMIDESK_NO_DEMO:-}
    HTTP_PORT=${ILLUMIDESK_HTTP_PORT:-}
    VERSION=${ILLUMIDESK_VERSION:-}
    FROM=${ILLUMIDESK_FROM:-}
    REFRESH=${ILLUMIDESK_REFRESH:-}
    FORCE=${ILLUMIDESK_FORCE_UNSUPPORTED:-}
    YES=${ILLUMIDESK_YES:-}
    COURSES=()
    read -ra COURSES <<<"${ILLUMIDESK_COURSE:-}"

    while [ $# -gt 0 ]; do
        case $1 in
            --*=*)
                local flag=${1%%=*} rest=${1#*=}
                shift
                set -- "$flag" "$rest" "$@"
                continue
                ;;
            --admin | --course | --with | --http-port | --version | --from)
                if [ $# -lt 2 ] || [ -z "$2" ]; then stop "$1 needs a value" "install.sh --help lists every flag"; fi
                case $1 in
                    --admin) ADMIN=$2 ;;
                    --course) COURSES+=("$2") ;;
                    --with) WITH=${WITH:+$WITH,}$2 ;;
                    --http-port) HTTP_PORT=$2 ;;
                    --version) VERSION=$2 ;;
                    --from) FROM=$2 ;;
                esac
                shift 2
                ;;
            --no-demo) NO_DEMO=1 && shift ;;
            --refresh) REFRESH=1 && shift ;;
            --force-unsupported) FORCE=1 && shift ;;
            --yes | -y) YES=1 && shift ;;
            --help | -h) usage && exit 0 ;;
            *) stop "there is no flag $1" "install.sh --help lists every flag" ;;
        esac
    done
    check_options
}

# The same rules as illumidesk/names.py, here so that a wrong name stops before anything is changed.
check_options() {
    local course
    if [ -n "$ADMIN" ] && ! valid_account "$ADMIN"; then
        stop "'$ADMIN' cannot be an administrator's name" \
            "use up to 32 lower-case letters, digits, - and _, starting with a letter; some names are reserved"
    fi
    for course in "${COURSES[@]}"; do
        if ! valid_course "$course"; then
            stop "'$course' is not a valid course id" \
                "use up to 23 lower-case letters, digits, - and _, starting and ending with a letter or digit"
        fi
    done
    if [[ ! $WITH =~ ^((vscode|theia)(,(vscode|theia))*)?$ ]]; then
        stop "--with takes vscode, theia or both with a comma between, not '$WITH'" \
            "RStudio is installed later: illumidesk workspace install rstudio"
    fi
    if [ -n "$HTTP_PORT" ] && ! valid_port "$HTTP_PORT"; then
        stop "'$HTTP_PORT' is not a port" "use a number from 1 to 65535"
    fi
    if [ -n "$VERSION" ] && [ -n "$FROM" ]; then
        stop "--version and --from exclude each other" "--version is for releases on PyPI"
    fi
}

valid_account() {
    [[ $1 =~ ^[a-z][a-z0-9_-]{0,31}$ ]] || return 1
    case $1 in
        root | nobody | nogroup | grader | instructors | shared) return 1 ;;
        grader-* | nbgrader-* | formgrade-* | illumidesk* | jupyter-* | systemd-*) return 1 ;;
    esac
}

valid_course() {
    [[ $1 =~ ^[a-z0-9]([a-z0-9_-]{0,21}[a-z0-9])?$ ]]
}

valid_port() {
    [[ $1 =~ ^[1-9][0-9]{0,4}$ ]] && [ "$1" -le 65535 ]
}

# -------------------------------------------------------------------------------------------------------- preflight
# Nothing in this section changes anything.

# Prints "Name Version" of the os-release file $1; fails where that release is not supported.
detect_release() {
    local id='' version='' name=''
    id=$(os_release "$1" ID)
    version=$(os_release "$1" VERSION_ID)
    name=$(os_release "$1" PRETTY_NAME)
    printf '%s\n' "${name:-$id $version}"
    case "$id $version" in
        'debian 12' | 'debian 13' | 'ubuntu 22.04' | 'ubuntu 24.04' | 'ubuntu 26.04') return 0 ;;
    esac
    return 1
}

# The value of key $2 in the os-release file $1, without its quotes. Parsed rather than sourced: it is only data.
os_release() {
    [ -r "$1" ] || return 0
    sed -n "s/^$2=//p" "$1" | tail -n 1 | sed -e 's/^"\(.*\)"$/\1/' -e "s/^'\(.*\)'\$/\1/"
}

# Prints the name we use for the machine $1 (as uname -m says it); fails where it is not supported.
detect_machine() {
    case $1 in
        x86_64 | amd64) echo x86-64 ;;
        aarch64 | arm64) echo arm64 ;;
        *) echo "$1" && return 1 ;;
    esac
}

# Prints the uid that listens on TCP port $1, from the /proc/net/tcp tables $2...; nothing where nobody does.
port_holder() {
    local hex
    hex=$(printf '%04X' "$1")
    shift
    awk -v port="$hex" 'FNR > 1 && $4 == "0A" { split($2, a, ":"); if (a[length(a)] == port) { print $8; exit } }' "$@" \
        2>/dev/null || true
}

# The public port: of the flag, else of the settings file $1, else 80.
wanted_port() {
    local configured=''
    if [ -n "$HTTP_PORT" ]; then
        echo "$HTTP_PORT"
        return
    fi
    if [ -r "$1" ]; then configured=$(sed -n '/^[[:space:]]*http_port:[[:space:]]*[0-9]/{s/[^0-9]*\([0-9]\+\).*/\1/p;q}' "$1"); fi
    echo "${configured:-80}"
}

# Megabytes free on the filesystem of $1, or of its nearest folder that exists.
free_mb() {
    local folder=$1
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    df -Pk "$folder" | awk 'NR == 2 { print int($4 / 1024) }'
}

# Megabytes of memory by the table $1 (/proc/meminfo).
memory_mb() {
    awk '/^MemTotal:/ { print int($2 / 1024) }' "$1"
}

# Asks one of apt's own sources for its index, so that apt's proxy and certificates count.
network_works() {
    local target uri
    target=$(mktemp)
    # --print-uris: 'URI' FILE SIZE …
    for uri in $(apt-get --print-uris update 2>/dev/null | sed -n "s/^'\([^']*\)'.*/\1/p" | head -n 4); do
        if timeout 60 /usr/lib/apt/apt-helper -o Acquire::Retries=1 -o Acquire::http::Timeout=15 \
            -o Acquire::https::Timeout=15 download-file "$uri" "$target" >/dev/null 2>&1; then
            rm -f "$target"
            return 0
        fi
    done
    rm -f "$target"
    return 1
}

preflight() {
    local machine holder folder free memory
    if [ "$(id -u)" -ne 0 ]; then
        stop "this needs root" "run it as: sudo ./install.sh   (or: curl -fsSL URL/install.sh | sudo bash)"
    fi
    if [ ! -d /run/systemd/system ]; then
        stop "this machine is not running systemd" \
            "IllumiDesk needs a whole (virtual) machine; a Docker container or WSL without systemd will not do"
    fi
    if ! RELEASE=$(detect_release /etc/os-release) && [ -z "$FORCE" ]; then
        stop "${RELEASE:-this system} is not supported" \
            "use Debian 12 or 13 or Ubuntu 22.04, 24.04 or 26.04, or try your luck with --force-unsupported"
    fi
    if ! machine=$(detect_machine "$(uname -m)") && [ -z "$FORCE" ]; then
        stop "a $machine machine is not supported" "use x86-64 or arm64"
    fi
    RELEASE="$RELEASE, $machine"
    PORT=$(wanted_port "$CONFIG")
    holder=$(port_holder "$PORT" /proc/net/tcp /proc/net/tcp6)
    if [ -n "$holder" ] && [ "$holder" != "$(id -u "$PROXY_ACCOUNT" 2>/dev/null)" ]; then
        stop "port $PORT is taken by another program (of $(id -un "$holder" 2>/dev/null || echo "uid $holder"))" \
            "stop that program (ss -ltnp 'sport = :$PORT' shows it), or choose another port with --http-port"
    fi
    for folder in "$OPT" /home; do
        free=$(free_mb "$folder")
        if [ "$free" -lt "$MIN_DISK_MB" ]; then
            stop "too little disk space: $free MB are free for $folder, $MIN_DISK_MB MB are needed"
        fi
    done
    memory=$(memory_mb /proc/meminfo)
    if [ "$memory" -lt "$MIN_MEMORY_MB" ]; then
        stop "too little memory: this machine has $memory MB, 1 GB is needed (4 GB for a class)"
    fi
    if [ -n "$ADMIN" ] && foreign_account "$ADMIN"; then
        stop "there is already an account $ADMIN on this machine that IllumiDesk did not make" \
            "choose another name with --admin"
    fi
    if ! network_works; then
        stop "no network: none of apt's package sources can be reached" \
            "check with: apt-get update   (a proxy belongs in /etc/apt/apt.conf.d)"
    fi
}

# Whether $1 is an account of this machine without the supervisor's mark.
foreign_account() {
    id -u "$1" >/dev/null 2>&1 && ! id -nG "$1" | tr ' ' '\n' | grep -qx illumidesk-people
}

# The package to install, as pip understands it.
find_source() {
    local here=''
    # Piped into bash this file lies nowhere.
    if [ -f "${BASH_SOURCE[0]:-}" ]; then here=$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")"); fi
    if [ -z "$FROM" ] && [ -z "$VERSION" ] && [ -n "$here" ] && is_checkout "$here"; then FROM=$here; fi
    case $FROM in
        '') SOURCE="illumidesk${VERSION:+==$VERSION}" ;;
        git+*) SOURCE=$FROM ;;
        *://*.git) SOURCE=git+$FROM ;;
        *)
            if [ -d "$FROM" ] && ! is_checkout "$FROM"; then stop "$FROM is not a checkout of IllumiDesk"; fi
            if [ ! -d "$FROM" ] && [[ $FROM != *.whl || ! -f $FROM ]]; then
                stop "there is no folder or wheel $FROM" "--from takes a folder, a wheel or a git URL"
            fi
            SOURCE=$(realpath -- "$FROM")
            ;;
    esac
}

is_checkout() {
    [ -f "$1/pyproject.toml" ] && grep -q '^name = "illumidesk"' "$1/pyproject.toml"
}

confirm() {
    local answer=''
    printf '\nIllumiDesk on %s\n' "$RELEASE"
    printf '  from        %s\n' "$SOURCE"
    printf '  port        %s\n' "$PORT"
    printf '  programs    %s\n  settings    /etc/illumidesk\n  services    illumidesk-*\n' "$OPT"
    # Under `curl | bash` standard input is this script, so the answer comes from the terminal itself.
    if [ -z "$YES" ] && [ -t 1 ] && { true </dev/tty; } 2>/dev/null; then
        read -rp 'Go on? [Y/n] ' answer </dev/tty || answer=n
        case $answer in
            '' | [Yy]*) ;;
            *) stop "stopped as you said; nothing was changed" ;;
        esac
    fi
    echo
}

# ---------------------------------------------------------------------------------------------------------- progress

start_log() {
    (umask 077 && mkdir -p "$LOG_DIR")
    chmod 0700 "$LOG_DIR"
    LOG=$LOG_DIR/install-$(date -u +%Y%m%dT%H%M%SZ).log
    (umask 077 && : >>"$LOG")
    export ILLUMIDESK_INSTALL_LOG=$LOG
}

now() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

# Runs $2... as the step named $1, its output in the log.
step() {
    local title=$1 began status said
    shift
    began=$(now)
    if [ -t 1 ]; then printf '  %s …' "$title"; fi
    printf '\n== %s\n' "$title" >>"$LOG"
    # In a subshell of its own and not in a condition, so that `set -e` counts in it.
    set +e
    (
        set -e
        "$@"
    ) >>"$LOG" 2>&1 </dev/null
    status=$?
    set -e
    if [ -t 1 ]; then printf '\r\033[K'; fi
    if [ "$status" -eq 0 ]; then
        printf '  %-48s %7s s\n' "$title" "$(seconds_since "$began")"
        return
    fi
    printf '  %-48s  FAILED\n' "$title"
    said=$(said_in "$LOG" "$title")
    if [[ $said == *"$EXPLAINED"* ]]; then
        said=${said##*"$EXPLAINED"}
        printf '\ninstall.sh: %s\n' "${said%%$'\n'*}" >&2
        if [[ $said == *$'\n'* ]]; then printf '            %s\n' "${said#*$'\n'}" >&2; fi
    else
        printf '\ninstall.sh: "%s" failed. The end of its log:\n' "$title" >&2
        relevant_lines "$said" | sed 's/^/    /' >&2
    fi
    printf 'The whole log is in %s. Run the same command again once this is mended; nothing is lost.\n' "$LOG" >&2
    exit 1
}

# What the last step $2 wrote into the log $1, without empty lines.
said_in() {
    awk -v mark="== $2" '$0 == mark { text = ""; next } NF { text = text $0 "\n" } END { printf "%s", text }' "$1"
}

# Of what a step said, $1: lines that name an error, and its end.
relevant_lines() {
    {
        head -n -6 <<<"$1" | grep -E '^E: |[Ee]rror: ' | tail -n 4 || true
        tail -n 6 <<<"$1"
    } | cut -c 1-300
}

# In a step: why it fails, $1, and what to do, $2. It is shown in place of the end of the log.
fail() {
    printf '%s%s\n%s\n' "$EXPLAINED" "$1" "${2:-}"
    exit 1
}

seconds_since() {
    local tenths=$((($(now) - $1) / 100000))
    printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

# ------------------------------------------------------------------------------------------------------------- steps

missing_packages() {
    local package wanted=(python3 python3-venv acl ca-certificates dbus git openssh-client)
    for package in "${wanted[@]}"; do
        if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" != installed ]; then
            printf '%s ' "$package"
        fi
    done
}

install_packages() {
    # NEEDRESTART_SUSPEND: Ubuntu's needrestart would restart services, and ask.
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    apt-get -o DPkg::Lock::Timeout=300 update
    apt-get -o DPkg::Lock::Timeout=300 -y --no-install-recommends install "$@"
}

# pip (which reads the machine's own pip settings) and uv (which does the rest), in an environment of their own.
install_tools() {
    local tools=$OPT/bootstrap
    if "$tools/bin/uv" --version && "$tools/bin/python" -m pip --version; then return; fi
    rm -rf "$tools"
    mkdir -p "$OPT"
    /usr/bin/python3 -m venv "$tools"
    "$tools/bin/python" -m pip install --no-input --disable-pip-version-check "$UV_REQUIREMENT"
}

system_python_is_new_enough() {
    /usr/bin/python3 -c "import sys; sys.exit(sys.version_info < (3, $MIN_PYTHON))"
}

install_managed_python() {
    export UV_PYTHON_INSTALL_DIR=$OPT/python
    "$OPT/bootstrap/bin/uv" python install --no-bin "$MANAGED_PYTHON"
    chmod -R a+rX "$OPT/python"
}

managed_python() {
    UV_PYTHON_INSTALL_DIR=$OPT/python "$OPT/bootstrap/bin/uv" python find --managed-python "$MANAGED_PYTHON"
}

# One digest over everything that goes into a wheel built from the checkout $1.
checkout_digest() {
    local part parts=()
    for part in pyproject.toml README.md LICENSE illumidesk config systemd; do
        if [ -e "$1/$part" ]; then parts+=("$part"); fi
    done
    (cd "$1" && find "${parts[@]}" -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) |
        sha256sum | cut -d ' ' -f 1
}

# Leaves exactly one wheel of IllumiDesk in $1. A wheel of an unchanged checkout is not built again.
get_wheel() {
    local stage=$1 digest='' kept=$OPT/wheels/from-checkout wheel flags=(--no-input --disable-pip-version-check --no-deps)
    # pip runs on the system's Python, and IllumiDesk will not where that one is too old.
    if [ "$PYTHON" != /usr/bin/python3 ]; then flags+=(--ignore-requires-python); fi
    mkdir -p "$stage"
    if [ -d "$SOURCE" ]; then
        digest=$(checkout_digest "$SOURCE")
        if [ -f "$kept/$digest" ]; then cp "$kept"/*.whl "$stage/" && return; fi
    fi
    if ! "$OPT/bootstrap/bin/python" -m pip wheel "${flags[@]}" --wheel-dir "$stage" "$SOURCE"; then
        # pip's own words about a package index hide that there may simply be no such release.
        case $SOURCE in
            illumidesk | illumidesk==*)
                fail "the package index has no release ${SOURCE/==/ } for this machine, or cannot be reached" \
                    "install from a clone or a git address: --from https://github.com/IllumiDesk/illumidesk.git"
                ;;
        esac
        return 1
    fi
    wheel=("$stage"/illumidesk-*.whl)
    # Read to its end: grep -q would close the pipe at once, and pipefail take that for a failure.
    if [[ $("$PYTHON" -m zipfile -l "${wheel[0]}") != *illumidesk/host/__main__.py* ]]; then
        fail "$(basename "${wheel[0]}") is an older edition of IllumiDesk, which this installer cannot install" \
            "install from a clone or a git address: --from https://github.com/IllumiDesk/illumidesk.git"
    fi
    if [ -n "$digest" ]; then
        rm -rf "$kept"
        mkdir -p "$kept"
        cp "${wheel[0]}" "$kept/"
        touch "$kept/$digest"
    fi
}

# The hub's environment is built by the package itself, out of its wheel, with nothing but Python's own library.
build_hub() {
    "$PYTHON" -I -c 'import sys; sys.path.insert(0, sys.argv[1])
from illumidesk.host.environments import main
sys.exit(main(sys.argv[2:]))' "$1" --wheel "$1" --python "$PYTHON" ${REFRESH:+--refresh}
}

main() {
    local began packages stage wheel course arguments=()
    parse_options "$@"
    began=$(now)
    export LC_ALL=C.UTF-8
    # Everything installed is for everybody to read; what is secret is made with its own mode.
    umask 022
    preflight
    find_source
    confirm
    cd /

    exec 9>/run/lock/illumidesk-install.lock
    if ! flock --wait 5 9; then stop "another installation is running" "wait for it to end"; fi
    export ILLUMIDESK_INSTALL_LOCKED=1
    start_log
    printf '%s\n' "install.sh $*" "$RELEASE" "from $SOURCE" >>"$LOG"
    # In a folder of ours and not in /tmp, so that what a killed installation left is found and cleared.
    stage=$OPT/stage
    rm -rf "$stage"
    trap 'rm -rf "$OPT/stage"' EXIT

    packages=$(missing_packages)
    # shellcheck disable=SC2086  # a list of words
    if [ -n "$packages" ]; then step "System packages: ${packages% }" install_packages $packages; fi
    step "Tools: pip and uv" install_tools
    if system_python_is_new_enough; then
        PYTHON=/usr/bin/python3
    else
        step "Python $MANAGED_PYTHON" install_managed_python
        PYTHON=$(managed_python) || stop "the Python that uv brought does not work" "see what uv says above"
    fi
    step "IllumiDesk's package" get_wheel "$stage"
    wheel=$(echo "$stage"/illumidesk-*.whl)
    build_hub "$wheel"

    if [ -n "$ADMIN" ]; then arguments+=(--admin "$ADMIN"); fi
    for course in "${COURSES[@]}"; do arguments+=(--course "$course"); done
    if [ -n "$WITH" ]; then arguments+=(--with "$WITH"); fi
    if [ -n "$NO_DEMO" ]; then arguments+=(--no-demo); fi
    if [ -n "$HTTP_PORT" ]; then arguments+=(--http-port "$HTTP_PORT"); fi
    if [ -n "$REFRESH" ]; then arguments+=(--refresh); fi
    "$OPT/hub/bin/python" -I -m illumidesk.host "${arguments[@]}" --began "$began"
}

if [ -z "${ILLUMIDESK_INSTALL_SH_TEST:-}" ]; then main "$@"; fi
