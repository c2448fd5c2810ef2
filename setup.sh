#!/bin/sh
# What `make setup` does: the environment in .venv, from constraints.txt. POSIX sh and BSD tools suffice.
#   PYTHON=python3.12             which Python; default: that of .venv, else the first that fits
#   TORCH=auto|cpu|cu130|pypi     which build of torch; default: the one chosen last, at first `auto`
#   PIP_INDEX_URL, PIP_FIND_LINKS, HTTPS_PROXY, SSL_CERT_FILE    a mirror, local wheels, a proxy, its certificate
set -eu
cd "$(dirname "$0")"
here=$(pwd -P)
venv=$here/.venv
torch_index=https://download.pytorch.org/whl

say() { printf 'setup: %s\n' "$@"; }
stop() { say "$@" >&2; exit 1; }

# runs, is 3.11 to 3.14, and not an Intel build on a Mac (torch has no wheels for those)
fits() {
  "$1" -c 'import platform, sys
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14) or sys.platform + platform.machine() == "darwinx86_64")' \
    >/dev/null 2>&1
}

version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
# of a Python in a virtual environment, the one below it: .venv may be active and is about to be replaced
base() { "$1" -c 'import sys; print(sys._base_executable)'; }
identity() { "$1" -c 'import sys; print(sys.version, sys.base_prefix)' 2>/dev/null; }

find_python() { # the default Python first: it is the one that a person activated
  for name in python3 python3.13 python3.12 python3.11 python3.14; do
    if fits "$name"; then python=$(base "$name"); return; fi
  done
  if found=$(version python3); then found="python3 is $found"; else found="no python3 runs here"; fi
  if [ "$(uname -s)" = Darwin ]; then install='brew install python@3.13'; else install='uv python install 3.13'; fi
  stop "Python 3.11 to 3.14 is needed; $found, and python3.11 to python3.14 are not on the PATH." \
    "Install one ($install) or name one: make setup PYTHON=/path/to/python3.13"
}

reachable() { # urllib honours the usual proxy and certificate variables, as uv does
  "$venv/bin/python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10)' "$1" \
    >/dev/null 2>&1
}

if [ "$(uname -s)" = Darwin ]; then
  macos=$(sw_vers -productVersion)
  case $(uname -m) in arm64) ;; *) stop "Intel Macs are not supported: torch has no wheels for them." ;; esac
  [ "${macos%%.*}" -ge 14 ] || stop "macOS $macos is too old: torch needs macOS 14 or newer."
fi

torch=${TORCH:-$(cat "$venv/.torch" 2>/dev/null || echo auto)}
case $torch in auto | cpu | cu130 | pypi) ;; *) stop "TORCH is '$torch'; expected auto, cpu, cu130 or pypi." ;; esac

# 1. the Python
if [ -n "${PYTHON:-}" ]; then
  python=$PYTHON
  fits "$python" || stop "PYTHON=$python: Python 3.11 to 3.14 is needed, found $(version "$python" || echo none)."
  python=$(base "$python")
  [ ! -e "$venv" ] || [ "$(identity "$venv/bin/python")" = "$(identity "$python")" ] || rm -f "$venv/.stamp"
elif fits "$venv/bin/python"; then
  python=$venv/bin/python
else
  find_python
fi

# what is there already costs nothing
stamp="$(cksum pyproject.toml constraints.txt setup.sh) $torch $venv"
if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi

# 2. the environment; one that another Python made, or that was made in another folder, is replaced
if [ "$(identity "$venv/bin/python")" != "$(identity "$python")" ] || ! grep -qF "$venv" "$venv/bin/activate" ||
  ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  if [ "$python" = "$venv/bin/python" ]; then find_python; fi
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if command -v apt-get >/dev/null; then
      stop "$python has no venv module. Install it, then run make again:" \
        "  sudo apt-get install python$(version "$python")-venv"
    fi
    stop "$python has no venv module (ensurepip); install it or name another: make setup PYTHON=..."
  fi
  say "$python $(version "$python") -> .venv"
  "$python" -m venv --clear "$venv"
fi

# 3. uv, the version in constraints.txt
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt uv

# 4. everything else. uv reads neither pip's variables nor pip.conf, so they are handed on.
export UV_SYSTEM_CERTS=1
if [ -z "${UV_DEFAULT_INDEX:-}" ]; then
  mirror=${PIP_INDEX_URL:-$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}
  if [ -n "$mirror" ]; then export UV_DEFAULT_INDEX="$mirror"; fi
fi
if [ -n "${PIP_FIND_LINKS:-}" ] && [ "$torch" != pypi ]; then
  UV_FIND_LINKS=$(printf '%s' "$PIP_FIND_LINKS" | tr -s ' \t\n' ,) # pip parts them by spaces, uv by commas
  export UV_FIND_LINKS
fi
backend=
case $torch in
  auto)
    if [ -n "${UV_FIND_LINKS:-}${UV_DEFAULT_INDEX:-}" ] || [ "$(uname -s)" = Darwin ]; then
      : # the person's own wheels or mirror are asked, nothing else; a Mac has one build only
    elif reachable "$torch_index/cpu/"; then
      backend=auto # the build for the accelerator that uv finds, else the one for the CPU
    else
      say "$torch_index cannot be reached, so torch comes from the package index:" \
        "on Linux x86_64 that is the CUDA build, 2.7 GB instead of 0.2 GB; it runs on a CPU too."
    fi
    ;;
  cpu | cu130)
    reachable "$torch_index/$torch/" || stop "TORCH=$torch needs $torch_index/$torch, which cannot be reached;" \
      "TORCH=pypi takes the package index's build, TORCH=auto what there is."
    backend=$torch
    ;;
esac
again= # the pin is satisfied by any build, so another choice has to replace the one that is there
if [ -e "$venv/.torch" ] && [ "$(cat "$venv/.torch")" != "$torch" ]; then again=1; fi
"$venv/bin/uv" pip install --python "$venv/bin/python" -e ".[all,dev]" -c constraints.txt --compile-bytecode \
  ${backend:+--torch-backend "$backend"} ${again:+--reinstall-package torch}

# 5. it works; what it is; and the stamp
"$venv/bin/python" -c 'import torch
cuda = torch.version.cuda
print(f"setup: torch {torch.__version__},", f"CUDA {cuda}, {torch.cuda.device_count()} GPUs" if cuda else "no CUDA in it")'
printf '%s\n' "$torch" >"$venv/.torch"
printf '%s\n' "$stamp" >"$venv/.stamp.new" && mv "$venv/.stamp.new" "$venv/.stamp"
