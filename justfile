# What people do with this repository, by name: just --list. `just` itself comes with the development tools:
#     python3 -m venv .venv-dev && .venv-dev/bin/pip install -e '.[dev]' && .venv-dev/bin/just

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

venv := join(justfile_directory(), env("VENV", ".venv-dev"))
bin := venv / "bin"
python := bin / "python"
gpuledger := bin / "gpuledger"
image := env("IMAGE", "gpuledger:dev")
container := env("CONTAINER", "gpuledger")
collector_url := env("COLLECTOR_URL", "http://127.0.0.1:9465")
mcp_url := env("MCP_URL", "http://127.0.0.1:9466")
units := "gpuledger-collector.service gpuledger-mcp.service"
link_folder := env("LINK_FOLDER", home_directory() / ".local/bin")

# The recipes, by group
[group('help')]
default:
    @"{{ just_executable() }}" --justfile "{{ justfile() }}" --list

# The recipes, and what the program itself can do
[group('help')]
help: default
    @"{{ gpuledger }}" --help

# Build the source distribution and the wheel into dist/
[group('build')]
build:
    "{{ python }}" -m build --no-isolation --outdir dist .

# Remove what was built and what tools remember; environments stay
[group('build')]
clean:
    rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
    find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

# Build from nothing
[group('build')]
rebuild: clean build

# Put the environment of the tools together, with the hooks of Git
[group('build')]
setup:
    python3 -m venv "{{ venv }}"
    "{{ python }}" -m pip install --quiet --editable '.[dev]'
    "{{ bin }}/pre-commit" install

# Make the command `gpuledger` of this source available to your user
[group('build')]
link:
    mkdir -p "{{ link_folder }}"
    ln -sfn "{{ gpuledger }}" "{{ link_folder }}/gpuledger"

# Take it back
[group('build')]
unlink:
    rm -f "{{ link_folder }}/gpuledger"

# Run the tests; arguments are pytest's
[group('test')]
test *arguments:
    "{{ bin }}/pytest" -n logical "$@"

# Run tests again whenever a file changes
[group('test')]
test-watch *arguments:
    "{{ bin }}/watchfiles" --filter python "{{ bin }}/pytest -x -q $*" collector store query mcp_server gpuledger tests

# Run the tests and measure which lines they reach, into build/coverage/
[group('test')]
test-coverage *arguments:
    "{{ bin }}/pytest" -n logical --cov --cov-report=term --cov-report=html:build/coverage/html \
        --cov-report=xml:build/coverage/coverage.xml "$@"

# Run the tests of several processes at once: crashes, MCP clients, the installed wheel
[group('test')]
test-integration *arguments:
    "{{ bin }}/pytest" -n logical tests/crash tests/mcp_server tests/packaging "$@"

# Run the tests of the hardware, against a driver that is a stand-in
[group('test')]
test-mock *arguments:
    "{{ bin }}/pytest" -n logical tests/fakenvml tests/collector "$@"

# Run the tests of what agents are answered, and of unified memory, as DGX Spark has it
[group('test')]
test-spark *arguments:
    "{{ bin }}/pytest" -n logical -k "answer or unified" tests/fakenvml tests/collector tests/query tests/mcp_server "$@"

# Measure appending and asking, beside the marks
[group('test')]
test-benchmark:
    "{{ python }}" benchmarks/append.py
    "{{ python }}" benchmarks/requests.py ingest

# Record three GPUs that are made up, and serve them
[group('dev')]
dev *arguments:
    "{{ gpuledger }}" up --source demo "$@"

# Record this machine, and serve it
[group('dev')]
start *arguments:
    "{{ gpuledger }}" up "$@"

# Install the dependencies that pyproject.toml asks for
[group('dev')]
deps:
    "{{ python }}" -m pip install --quiet --editable '.[dev]'

# Take the newest releases of them
[group('dev')]
deps-update:
    "{{ python }}" -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[dev]'

# List those of which there is a newer release
[group('dev')]
deps-outdated:
    "{{ python }}" -m pip list --outdated

# List those that are known to be vulnerable
[group('dev')]
deps-audit:
    "{{ bin }}/pip-audit" --local --skip-editable --progress-spinner off

# Take the release that mends them
[group('dev')]
deps-audit-fix:
    "{{ bin }}/pip-audit" --local --skip-editable --progress-spinner off --fix

# Say which settings are in force and where each came from; a wrong one is an error
[group('dev')]
validate-config *arguments:
    "{{ gpuledger }}" config --origin "$@"

# Say what this machine has, what is recorded of it and what is missing
[group('dev')]
hardware-report *arguments:
    "{{ gpuledger }}" doctor "$@"

# Show the entry that an MCP client's settings would get
[group('dev')]
generate-mcp-config client="claude-code" scope="user":
    "{{ gpuledger }}" init --client "{{ client }}" --scope "{{ scope }}" --dry-run

# Enter gpuledger into an MCP client's settings for this folder
[group('dev')]
save-mcp-config client="claude-code":
    "{{ gpuledger }}" init --client "{{ client }}" --scope project

# Enter gpuledger into an MCP client's settings for your user
[group('dev')]
install-mcp-config client="claude-code":
    "{{ gpuledger }}" init --client "{{ client }}" --scope user

# The same for Claude Code
[group('dev')]
configure-claude-code: (install-mcp-config "claude-code")

# Say whether gpuledger is entered, for your user and for this folder
[group('dev')]
mcp-status client="claude-code": (generate-mcp-config client "user") (generate-mcp-config client "project")

# Find mistakes in the code
[group('quality')]
lint:
    "{{ bin }}/ruff" check

# Mend those that a tool can
[group('quality')]
lint-fix:
    "{{ bin }}/ruff" check --fix

# Lay the code out
[group('quality')]
format:
    "{{ bin }}/ruff" format

# Is the code laid out?
[group('quality')]
format-check:
    "{{ bin }}/ruff" format --check

# Check the types
[group('quality')]
typecheck:
    "{{ bin }}/mypy"

# Check that the rooms import one way
[group('quality')]
imports:
    "{{ bin }}/lint-imports"

# Audit the workflows
[group('quality')]
workflows:
    "{{ bin }}/zizmor" --offline --no-progress .github

# Everything that is looked for without running the program
[group('quality')]
check: lint format-check typecheck imports workflows

# Judge the messages of the commits that are not on main yet
[group('quality')]
commits range="main..HEAD":
    "{{ python }}" .ci/commit_message.py --range "{{ range }}"

# What runs before each commit, on all files
[group('quality')]
pre-commit:
    "{{ bin }}/pre-commit" run --all-files

# What to run before a push
[group('quality')]
pre-push: check commits test

# All that the continuous integration does, from nothing
[group('quality')]
ci-test:
    .ci/run

# Build what is shipped, and start the wheel in an environment of its own
[group('quality')]
ci-build: rebuild
    rm -rf build/installed
    python3 -m venv build/installed
    build/installed/bin/pip install --quiet dist/*.whl
    build/installed/bin/gpuledger --version

# Check code, workflows and dependencies
[group('quality')]
ci-verify: check deps-audit

# Build the image
[group('docker')]
docker-build *arguments:
    docker build --tag "{{ image }}" "$@" .

# Run it: the host alone is recorded
[group('docker')]
docker-run:
    docker run --detach --name "{{ container }}" --read-only --tmpfs /tmp --network host --cap-drop ALL \
        --security-opt no-new-privileges --stop-timeout 50 --volume gpuledger:/var/lib/gpuledger "{{ image }}"

# Run it with all GPUs, and with sight of the processes on them
[group('docker')]
docker-run-gpu:
    docker run --detach --name "{{ container }}" --read-only --tmpfs /tmp --network host --cap-drop ALL \
        --security-opt no-new-privileges --stop-timeout 50 --volume gpuledger:/var/lib/gpuledger \
        --gpus all --pid host "{{ image }}"

# Stop it
[group('docker')]
docker-stop:
    docker stop "{{ container }}"

# Remove container and image; volumes stay
[group('docker')]
docker-clean:
    -docker rm --force "{{ container }}"
    -docker image rm "{{ image }}"

# A shell in the container
[group('docker')]
docker-shell:
    docker exec --interactive --tty "{{ container }}" /bin/sh

# Install on this machine as services; arguments are those of deploy/install.sh
[group('deploy')]
install *arguments:
    sudo deploy/install.sh "$@"

# Install the next version beside the present one, and switch
[group('deploy')]
update *arguments:
    sudo deploy/update.sh "$@"

# Switch back to a version before
[group('deploy')]
rollback *arguments:
    sudo deploy/rollback.sh "$@"

# Remove the services; the ledger stays
[group('deploy')]
uninstall *arguments:
    sudo deploy/uninstall.sh "$@"

# Start the services
[group('deploy')]
service-start:
    sudo systemctl start {{ units }}

# Stop them
[group('deploy')]
service-stop:
    sudo systemctl stop {{ units }}

# Stop and start them
[group('deploy')]
service-restart:
    sudo systemctl restart {{ units }}

# Say how they are
[group('deploy')]
service-status:
    systemctl status --no-pager {{ units }}

# Show what they said last
[group('deploy')]
service-logs lines="100":
    journalctl --no-pager --lines "{{ lines }}" {{ prepend("--unit ", units) }}

# Start them when the machine starts
[group('deploy')]
service-enable:
    sudo systemctl enable {{ units }}

# Leave them off when it starts
[group('deploy')]
service-disable:
    sudo systemctl disable {{ units }}

# Ask the collector and the MCP server whether they are well and ready
[group('monitoring')]
health:
    @"{{ python }}" .ci/get.py "{{ collector_url }}/healthz" "{{ collector_url }}/readyz" "{{ mcp_url }}/healthz"

# Show the metrics as Prometheus gets them
[group('monitoring')]
metrics:
    @"{{ python }}" .ci/get.py "{{ collector_url }}/metrics"

# Follow what the services say
[group('monitoring')]
logs:
    journalctl --follow {{ prepend("--unit ", units) }}

# Show what went wrong in them since the machine started
[group('monitoring')]
logs-error:
    journalctl --no-pager --boot --priority err {{ prepend("--unit ", units) }}

# Write the generated pages of the reference anew
[group('docs')]
docs-build:
    "{{ gpuledger }}" docs

# Find words in the documentation
[group('docs')]
docs-search query:
    @grep --recursive --ignore-case --line-number --color=auto --include='*.md' -e "$1" README.md ARCHITECTURE.md docs

# Is everything ready for a release?
[group('release')]
pre-release: check test rebuild
    "{{ python }}" .ci/release.py notes Unreleased

# What prepares the files that a release publishes
[group('release')]
prepare-publish: check test-coverage rebuild

# Commit and tag the version that the source states
[group('release')]
release-current:
    "{{ python }}" .ci/release.py cut current

# Commit and tag the next version that only mends
[group('release')]
release-patch:
    "{{ python }}" .ci/release.py cut patch

# Commit and tag the next version that can do more
[group('release')]
release-minor:
    "{{ python }}" .ci/release.py cut minor

# Commit and tag the next version that breaks something
[group('release')]
release-major:
    "{{ python }}" .ci/release.py cut major
