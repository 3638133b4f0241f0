# Makes the virtual environment $1 with a CPython that is new enough; $2 names one to use.
# Shims that only say "not found" are tried like any other and passed over.
set -eu
venv=$1
named=${2:-}
works='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'

if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    exit 0
fi
for python in ${named:-python3.11 python3.12 python3.13 python3 python3.14 python}; do
    if "$python" -c "$works" >/dev/null 2>&1; then
        echo "Making $venv with $("$python" -c 'import sys; print(sys.executable, sys.version.split()[0])')"
        exec "$python" -m venv --clear "$venv"
    fi
done
echo "mlbench needs CPython 3.11 or newer with the venv module, and none of these is one: ${named:-python3.11 python3.12 python3.13 python3 python3.14 python}." >&2
echo "Install one (Debian and Ubuntu: apt install python3 python3-venv) or name yours: make PYTHON=/path/to/python3" >&2
exit 2
