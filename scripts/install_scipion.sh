#!/usr/bin/env bash
# A Scipion of our own for the demo and the tests, in .scipion/ of this repository: no conda, no root.
#
#     scripts/install_scipion.sh        quick when everything is there already
#     scripts/scipion                   starts it
#
# Then the plugin and its engine are installed into it with the command that users of any Scipion type.
# PYTHON names the interpreter; without it, or if it does not suit, the first suitable one is taken.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
base=$root/.scipion
venv=$base/venv

case $root in
    *[[:space:]]*)
        echo "$root: Scipion's installer cannot work in a folder whose path holds a space; move the repository." >&2
        exit 1 ;;
esac

# The versions that the plugin is tested with. scipion-em-chimera is left out: without flatpak it ends every
# `scipion installb`.
packages=(scipion-app==3.8.3 scipion-pyworkflow==3.11.7 scipion-em==3.11.1 scipion-em-relion==5.0.2 "setuptools<81" wheel)

# Even without a screen Scipion needs tkinter.
suits() {
    "$1" -I -c 'import ensurepip, sys, tkinter, venv; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' \
        >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" /usr/bin/python3.11 python3.11 /usr/bin/python3 python3.12 python3.10 python3.9; do
        if [ -n "$candidate" ] && suits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "No Python from 3.9 to 3.12 with tkinter and venv was found. On Debian 12:" >&2
    echo "    sudo apt-get install python3.11 python3.11-venv python3-tk" >&2
    return 1
}

# is_done STEP INPUTS: whether the step was done with just these inputs.
is_done() {
    [ -f "$base/$1.stamp" ] && [ "$(cat "$base/$1.stamp")" = "$2" ]
}

run() {
    if ! "$@" >>"$base/install.log" 2>&1; then
        tail -n 30 "$base/install.log" >&2
        echo "Failed: $*; see $base/install.log" >&2
        exit 1
    fi
}

mkdir -p "$base"
scipion_inputs="$base ${packages[*]}"
if ! is_done scipion "$scipion_inputs"; then
    python=$(find_python)
    echo "Installing Scipion without conda in $base, with $python (about a minute)"
    : >"$base/install.log"
    rm -rf "$base"/*.stamp "$venv"
    run "$python" -m venv "$venv"
    run env -u PYTHONPATH -u PYTHONHOME "$venv/bin/python" -m pip install --disable-pip-version-check "${packages[@]}"
    # scipion-app 3.8.3 uses importlib.util without importing it.
    echo "import importlib.util" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/importlib_util.pth"
    mkdir -p "$base/home/config" "$base/home/software/em" "$base/userdata"
    cat >"$base/home/config/scipion.conf" <<'CONFIG'
[PYWORKFLOW]
SCIPION_NOTIFY = False
SCIPION_TEST_NOSYNC = True
CONDA_ACTIVATION_CMD = true

[PLUGINS]
SOLVAR_ENV_MANAGER = venv
CONFIG
    echo "$scipion_inputs" >"$base/scipion.stamp"
fi

plugin_inputs=$(cd "$root" && cat setup.py solvar_engine/{__init__.py,requirements.txt,constraints.txt} | sha256sum)
if ! is_done plugin "$plugin_inputs"; then
    echo "Installing the plugin and its engine, as in any Scipion: scipion installp -p scipion-em-solvar --devel"
    rm -f "$base/plugin.stamp"
    # Scipion takes the name of the folder for the name of the package.
    ln -sfn .. "$base/scipion-em-solvar"
    "$root/scripts/scipion" installp -p "$base/scipion-em-solvar" --devel
    if ! compgen -G "$base/home/software/em/solvar-*/installed-*" >/dev/null; then
        echo "Scipion did not install the engine; see what it said above." >&2
        exit 1
    fi
    echo "$plugin_inputs" >"$base/plugin.stamp"
fi
