# shellcheck shell=bash
# Talking to the person at the terminal. Sourced; everything goes to stderr, so that stdout stays data.

if [ -t 2 ]; then SAY_BOLD=$'\e[1m' SAY_RED=$'\e[31m' SAY_OFF=$'\e[0m'; else SAY_BOLD="" SAY_RED="" SAY_OFF=""; fi

# say WORDS...: one line.
say() { printf '%s\n' "$*" >&2; }

# chapter WORDS...: begins a part of the work.
chapter() { printf '%s==> %s%s\n' "$SAY_BOLD" "$*" "$SAY_OFF" >&2; }

# die WORDS...: says what is wrong and how to mend it, and ends. One argument for each line.
die() {
  printf '%serror:%s %s\n' "$SAY_RED" "$SAY_OFF" "$1" >&2
  shift
  local line
  for line in "$@"; do printf '       %s\n' "$line" >&2; done
  exit 1
}

# confirm QUESTION: asks, unless SAY_YES is 1. Without a terminal to ask on, the answer is no.
confirm() {
  [ "${SAY_YES:-0}" = 1 ] && return 0
  [ -t 0 ] || return 1
  local answer
  read -r -p "$1 [y/N] " answer
  [[ "$answer" =~ ^[Yy] ]]
}
