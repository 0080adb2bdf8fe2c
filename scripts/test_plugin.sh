#!/usr/bin/env bash
# Runs the plugin's tests in the Scipion of scripts/install_scipion.sh, on screens of their own (Xvfb, openbox).
#
#     scripts/test_plugin.sh                           all modules in solvar_plugin/tests
#     scripts/test_plugin.sh test_installer ...        the named ones
#
# Modules run beside each other, as many as there are cores; SOLVAR_TEST_JOBS names another number. Pictures and logs go
# to test-output/. Every test that Scipion lists must be reported as passed: one that fails, is skipped or cannot be
# loaded fails the run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
output=$root/test-output
mkdir -p "$output"

modules=("$@")
if [ $# -eq 0 ]; then
    rm -rf "${output:?}"/*
    # those that take longest first
    modules=(test_protocol_covariance test_gui test_protocol_abinitio test_relion_particles)
    for file in solvar_plugin/tests/test_*.py; do
        module=$(basename "$file" .py)
        [[ " ${modules[*]} " == *" $module "* ]] || modules+=("$module")
    done
fi

scratch=$(mktemp -d)
stop_all() {
    local process
    for process in $(jobs -p); do
        kill "$process" 2>/dev/null || true
    done
    wait
    rm -rf "$scratch"
}
trap stop_all EXIT
trap 'exit 130' INT TERM

# run_module NAME: a process of its own; it leaves $scratch/NAME.passed.
run_module() (
    module=$1
    name=solvar_plugin.tests.$module
    log=$output/$module.log
    start=$SECONDS
    processes=()
    finish() {
        local process
        for process in "${processes[@]}"; do
            kill "$process" 2>/dev/null || true
            wait "$process" 2>/dev/null || true
        done
    }
    trap finish EXIT
    trap 'exit 143' TERM

    # "    scipion tests solvar_plugin.tests.test_one.TestOne.test_this"
    mapfile -t tests < <(sed -nE "s/^.* ${name//./\\.}\.[A-Za-z0-9_]+\.([A-Za-z0-9_]+)[[:space:]]*$/\1/p" "$output/listed.txt")
    if [ ${#tests[@]} -eq 0 ]; then
        echo "$module: \`scipion tests --show\` lists no test of it; see $output/listed.txt" >&2
        exit 1
    fi

    # Xvfb finds a free display and writes its number.
    Xvfb -displayfd 3 -screen 0 1600x1000x24 -nolisten tcp 3>"$scratch/$module.display" 2>"$output/$module.xvfb.log" &
    processes+=($!)
    for _ in $(seq 100); do
        [ -s "$scratch/$module.display" ] && break
        sleep 0.1
    done
    [ -s "$scratch/$module.display" ] || { echo "Xvfb did not start; see $output/$module.xvfb.log" >&2; exit 1; }
    DISPLAY=:$(cat "$scratch/$module.display")
    export DISPLAY SOLVAR_TEST_OUTPUT=$output
    unset WAYLAND_DISPLAY XAUTHORITY MPLBACKEND
    openbox --sm-disable >"$output/$module.openbox.log" 2>&1 &
    processes+=($!)

    status=0
    # A window that waits for a click would wait for ever. In the background, so that a signal is heeded at once.
    timeout --kill-after=10 900 scripts/scipion tests "$name" >"$log" 2>&1 </dev/null &
    processes=($! "${processes[@]}")
    wait "${processes[0]}" || status=$?
    # "[ RUN   OK ] TestOne.test_this (0.1 secs)"; several classes may have a test of one name
    missing=$(comm -23 <(printf '%s\n' "${tests[@]}" | sort) \
        <(sed -nE 's/^.*RUN   OK.*\.([A-Za-z0-9_]+) \([0-9.]+ secs\).*$/\1/p' "$log" | sort))
    if [ $status -ne 0 ] || [ -n "$missing" ]; then
        cat "$log"
        echo "$module: exit code $status; not passed:" $missing >&2
        exit 1
    fi
    echo "$module: ${#tests[@]} tests passed in $((SECONDS - start)) s"
    touch "$scratch/$module.passed"
)

scripts/scipion tests --show --mode all --grep solvar_plugin >"$output/listed.txt" 2>&1 || true

at_once=${SOLVAR_TEST_JOBS:-$(nproc)}
for module in "${modules[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do
        wait -n || true
    done
    run_module "$module" &
done
wait

failed=()
for module in "${modules[@]}"; do
    [ -f "$scratch/$module.passed" ] || failed+=("$module")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "Plugin tests failed: ${failed[*]}" >&2
    exit 1
fi
