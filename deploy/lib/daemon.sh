# shellcheck shell=bash
# The background daemon of deploy/up: started, recognised, stopped. Sourced after say.sh.
#
# Wants DATA (data directory), BINARY, LISTEN and GRPC_LISTEN (address:port), and for starting the array DAEMON_ARGS.

READY_SECONDS=60
STOP_SECONDS=30

pid_file() { echo "$DATA/up.pid"; }
daemon_log() { echo "$DATA/daemon.log"; }

# Start time of a process in clock ticks; with the pid it names a process for good. The command name in /proc/PID/stat may hold spaces.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# daemon_pid: the pid of the daemon that deploy/up started, if that very process still lives.
daemon_pid() {
  local pid started
  read -r pid started 2>/dev/null <"$(pid_file)" || return 1
  [ -n "$pid" ] && [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

# daemon_is_current PID: it runs the binary as it is now, with the arguments that it would be started with.
daemon_is_current() {
  [ "/proc/$1/exe" -ef "$BINARY" ] && [ "$(tr '\0' '\n' <"/proc/$1/cmdline" | tail -n +2)" = "$(printf '%s\n' "${DAEMON_ARGS[@]}")" ]
}

start_daemon() {
  local pid
  if pid="$(daemon_pid)"; then
    if daemon_is_current "$pid"; then
      say "The daemon runs (pid $pid)."
      wait_until_ready "$pid"
      return
    fi
    say "The daemon runs with an older build or other settings; restarting it. Running steps go on."
    stop_daemon
  fi
  : >>"$(daemon_log)"
  chmod 600 "$(daemon_log)"
  setsid "$BINARY" "${DAEMON_ARGS[@]}" </dev/null >>"$(daemon_log)" 2>&1 &
  pid=$!
  disown
  printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$(pid_file)"
  say "The daemon is starting (pid $pid, log: $(daemon_log))."
  wait_until_ready "$pid"
}

wait_until_ready() {
  local deadline=$((SECONDS + READY_SECONDS))
  until curl -fsS --noproxy '*' --max-time 2 "http://$LISTEN/readyz" >/dev/null 2>&1; do
    if ! kill -0 "$1" 2>/dev/null; then
      tail -n 20 "$(daemon_log)" >&2
      die "The daemon ended; the end of its log is above." "If $LISTEN or $GRPC_LISTEN is taken, set GANTRY_LISTEN and GANTRY_GRPC_LISTEN."
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then
      tail -n 20 "$(daemon_log)" >&2
      die "The daemon is not ready after $READY_SECONDS s; the end of its log is above."
    fi
    sleep 0.1
  done
}

# stop_daemon: SIGTERM, then waits. Containers of running steps stay and are taken up by the next start.
stop_daemon() {
  local pid deadline
  if ! pid="$(daemon_pid)"; then
    rm -f "$(pid_file)"
    say "No daemon of $DATA runs."
    return
  fi
  kill -TERM "$pid"
  deadline=$((SECONDS + STOP_SECONDS))
  while [ "$(daemon_pid || true)" = "$pid" ]; do
    [ "$SECONDS" -lt "$deadline" ] || die "The daemon (pid $pid) still runs $STOP_SECONDS s after SIGTERM; see $(daemon_log)."
    sleep 0.1
  done
  rm -f "$(pid_file)"
  say "The daemon is stopped. $DATA is kept."
}
