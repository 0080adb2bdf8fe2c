#!/usr/bin/env bash
# Runs the plugin's tests in the Scipion of scripts/install_scipion.sh, on a screen of their own (Xvfb, openbox).
#
#     scripts/test_plugin.sh                           all modules in solvar_plugin/tests
#     scripts/test_plugin.sh test_installer ...        the named ones
#
# Pictures and logs go to test-output/. Every test that Scipion lists must be reported as passed: one that fails,
# is skipped or cannot be loaded fails the run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
output=$root/test-output
mkdir -p "$output"

modules=("$@")
if [ $# -eq 0 ]; then
    rm -rf "${output:?}"/*
    for file in solvar_plugin/tests/test_*.py; do
        modules+=("$(basename "$file" .py)")
    done
fi

scratch=$(mktemp -d)
processes=()
running=
finish() {
    local process
    for process in $running "${processes[@]}"; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

# Xvfb finds a free display and writes its number.
Xvfb -displayfd 3 -screen 0 1600x1000x24 -nolisten tcp 3>"$scratch/display" 2>"$output/xvfb.log" &
processes+=($!)
for _ in $(seq 100); do
    [ -s "$scratch/display" ] && break
    sleep 0.1
done
[ -s "$scratch/display" ] || { echo "Xvfb did not start; see $output/xvfb.log" >&2; exit 1; }
DISPLAY=:$(cat "$scratch/display")
export DISPLAY SOLVAR_TEST_OUTPUT=$output
unset WAYLAND_DISPLAY XAUTHORITY MPLBACKEND
openbox --sm-disable >"$output/openbox.log" 2>&1 &
processes+=($!)

scripts/scipion tests --show --mode all --grep solvar_plugin >"$output/listed.txt" 2>&1 || true

failed=()
for module in "${modules[@]}"; do
    name=solvar_plugin.tests.$module
    # "    scipion tests solvar_plugin.tests.test_one.TestOne.test_this"
    mapfile -t tests < <(sed -nE "s/^.* ${name//./\\.}\.[A-Za-z0-9_]+\.([A-Za-z0-9_]+)[[:space:]]*$/\1/p" "$output/listed.txt")
    if [ ${#tests[@]} -eq 0 ]; then
        echo "$module: \`scipion tests --show\` lists no test of it; see $output/listed.txt" >&2
        failed+=("$module")
        continue
    fi
    echo "$module: ${#tests[@]} tests"
    start=$SECONDS
    log=$output/$module.log
    status=0
    # A window that waits for a click would wait for ever. In the background, so that an interrupt is heeded at once.
    timeout --kill-after=10 900 scripts/scipion tests "$name" >"$log" 2>&1 </dev/null &
    running=$!
    wait "$running" || status=$?
    running=
    # "[ RUN   OK ] TestOne.test_this (0.1 secs)"; several classes may have a test of one name
    missing=$(comm -23 <(printf '%s\n' "${tests[@]}" | sort) \
        <(sed -nE 's/^.*RUN   OK.*\.([A-Za-z0-9_]+) \([0-9.]+ secs\).*$/\1/p' "$log" | sort))
    if [ $status -ne 0 ] || [ -n "$missing" ]; then
        cat "$log"
        echo "$module: exit code $status; not passed:" $missing >&2
        failed+=("$module")
    else
        echo "  passed in $((SECONDS - start)) s"
    fi
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "Plugin tests failed: ${failed[*]}" >&2
    exit 1
fi
