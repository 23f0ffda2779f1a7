# shellcheck shell=bash
# A Docker that answers. Sourced after say.sh.

DOCKERD_PID_FILE="${DOCKERD_PID_FILE:-/run/gantry-dockerd.pid}"
DOCKERD_LOG="${DOCKERD_LOG:-/var/log/gantry-dockerd.log}"
DOCKERD_SECONDS=60

docker_answers() { timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# need_docker: starts dockerd when it does not answer. It is left running for the next command: images and caches are its, and a stopped dockerd
# would end nothing that is ours anyway.
need_docker() {
  docker_answers && return 0
  if [ -d /run/systemd/system ] && systemctl cat docker.service >/dev/null 2>&1; then
    chapter "Starting Docker (systemctl start docker)"
    systemctl start docker || true
    dockerd_answers_in_time || die "Docker does not answer after systemctl start docker." "See: journalctl -u docker.service"
    return 0
  fi
  chapter "Starting dockerd (log: $DOCKERD_LOG, pid file: $DOCKERD_PID_FILE)"
  start_dockerd
  dockerd_answers_in_time && return 0
  # Sandboxes have no network, so a kernel without iptables or bridges is good enough for them.
  if ! dockerd_lives && grep -qiE 'iptables|nf_tables|bridge' "$DOCKERD_LOG"; then
    say "dockerd cannot set up its network here; starting it without one, which sandboxes do not need"
    start_dockerd --iptables=false --ip6tables=false --bridge=none
    dockerd_answers_in_time && return 0
  fi
  tail -n 20 "$DOCKERD_LOG" >&2
  die "dockerd does not answer; the end of its log is above." "In a container, give it the right to mount and to make cgroups (--privileged), or use a virtual machine."
}

# start_dockerd [FLAGS...]: in the background, with live-restore: containers survive a restart of dockerd.
start_dockerd() {
  local flags=(--pidfile "$DOCKERD_PID_FILE" "$@")
  # The same setting in file and flag is an error to dockerd.
  grep -qs '"live-restore"' /etc/docker/daemon.json || flags+=(--live-restore)
  : >"$DOCKERD_LOG"
  setsid dockerd "${flags[@]}" </dev/null >>"$DOCKERD_LOG" 2>&1 &
  DOCKERD_PID=$!
  disown
}

dockerd_lives() { [ -n "${DOCKERD_PID:-}" ] && kill -0 "$DOCKERD_PID" 2>/dev/null; }

dockerd_answers_in_time() {
  local deadline=$((SECONDS + DOCKERD_SECONDS))
  until docker_answers; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    if [ -n "${DOCKERD_PID:-}" ] && ! dockerd_lives; then return 1; fi
    sleep 0.5
  done
}
