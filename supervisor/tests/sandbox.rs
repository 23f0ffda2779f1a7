//! The real supervisor as PID 1 of a pid namespace, against a node on its socket.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod node;

use std::time::{Duration, Instant};

use gantry_proto::limits::{OUTPUT_BUFFER_BYTES_MAX, OUTPUT_CHUNK_BYTES_MAX};
use gantry_proto::v1::{
    EndCause, EnvVar, ExtendDeadline, InjectedFile, OutputAck, OutputStream, Ping, ReportKind, Shutdown, StopProcess,
    WatchedFile, node_frame, supervisor_frame::Kind,
};
use node::{GID, Sandbox, UID, shell, wait_for};

fn var(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: value.into(),
    }
}

// ---- start

#[test]
fn runs_a_command_and_reports_its_exit() {
    let sandbox = Sandbox::start();
    let (mut line, hello) = sandbox.connect();
    assert!(hello.process.is_none());
    let mut start = shell(1, "echo out; echo err > /dev/stderr; pwd; echo $A $B; exit 7");
    start.image_env = vec![var("A", "image"), var("B", "image"), var("PATH", "/usr/bin:/bin")];
    start.env = vec![var("A", "step")];
    start.cwd = "/tmp".into();
    let done = line.run(start);
    assert_eq!(done.stdout(), "out\n/tmp\nstep image\n");
    assert_eq!(done.text(OutputStream::Stderr), "err\n");
    assert_eq!(
        (done.cause(), done.exited.exit_code, done.exited.signal),
        (EndCause::Exited, Some(7), None)
    );
    assert_eq!(done.exited.last_seq, Some(done.outputs.last().unwrap().seq));
    assert!(done.exited.max_rss_bytes.unwrap() > 0);
    let numbers: Vec<u64> = done.outputs.iter().map(|output| output.seq).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn the_step_has_no_privileges_and_nothing_of_the_supervisors() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let script = "
        grep -E '^(Cap|NoNewPrivs|Uid|Gid|Groups|SigIgn|SigBlk)' /proc/self/status
        echo fds $(ls /proc/self/fd | tr '\\n' ' ')
        echo core $(ulimit -c) umask $(umask) oom $(cat /proc/self/oom_score_adj) stdin $(readlink /proc/self/fd/0)
        echo session $(cut -d' ' -f6 /proc/$$/stat) pid $$
        cat /proc/1/environ 2>/dev/null; ls /proc/1/fd 2>/dev/null; kill -9 1; echo still here";
    let mut start = shell(1, script);
    start.groups = vec![64_010, 64_011];
    let done = line.run(start);
    let text = done.stdout();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(text.contains(&format!("{set}:\t0000000000000000\n")), "{text}");
    }
    assert!(text.contains(&format!("Uid:\t{UID}\t{UID}\t{UID}\t{UID}\n")), "{text}");
    assert!(text.contains(&format!("Gid:\t{GID}\t{GID}\t{GID}\t{GID}\n")), "{text}");
    assert!(text.contains("Groups:\t64010 64011"), "{text}");
    assert!(text.contains("NoNewPrivs:\t1\n"), "{text}");
    let ignored = text.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    // 32 and 33 belong to the C library; whoever runs these tests may hand them down.
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & !(3 << 31), 0, "{text}");
    assert!(text.contains("SigBlk:\t0000000000000000\n"), "{text}");
    // 3 is the directory that `ls` reads.
    assert!(text.contains("fds 0 1 2 3\n"), "{text}");
    assert!(text.contains("core 0 umask 0002 oom 500 stdin /dev/null\n"), "{text}");
    let session = text.lines().find(|line| line.starts_with("session ")).unwrap();
    let words: Vec<&str> = session.split(' ').collect();
    assert_eq!(words[1], words[3], "leads its own session");
    assert!(text.ends_with("\nstill here\n"), "{text}");
    assert_eq!(done.cause(), EndCause::Exited);
}

#[test]
fn what_cannot_be_started_says_why() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let write = |name: &str, text: &str, mode: u32| {
        let path = sandbox.work(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let no_interpreter = write("no-interpreter", "#!/opt/nope/python3\n", 0o755);
    let not_executable = write("not-executable", "#!/bin/sh\n", 0o644);
    let command = |argv: &str| {
        let mut start = shell(0, "");
        start.argv = vec![argv.to_owned()];
        start
    };
    let in_cwd = |cwd: &str| {
        let mut start = shell(0, "true");
        start.cwd = cwd.to_owned();
        start
    };
    let mut as_root = shell(0, "true");
    as_root.uid = 0;
    let mut no_command = shell(0, "");
    no_command.argv.clear();
    let mut huge = shell(0, "true");
    huge.argv.push("x".repeat(140 << 10));
    let cases = [
        (
            command("no-such-command"),
            "command `no-such-command` was not found in PATH",
        ),
        (command("/no/such"), "command `/no/such` does not exist"),
        (command(&not_executable), "is not executable"),
        (
            command(&no_interpreter),
            "needs the interpreter `/opt/nope/python3`, which does not exist",
        ),
        (command("/etc"), "is a directory or special file"),
        (in_cwd("/nowhere"), "working directory `/nowhere` does not exist"),
        (in_cwd("/etc/passwd"), "is not a directory"),
        (in_cwd("/proc/self/fd/7"), "is not a place to work in"),
        (
            in_cwd(&sandbox.dir.path().join("sock").display().to_string()),
            "working directory",
        ),
        (as_root, "as root"),
        (no_command, "the command is empty"),
        (huge, "arguments and environment are larger"),
    ];
    for (number, (mut start, expected)) in (1..).zip(cases) {
        start.run = number;
        let done = line.run(start);
        assert_eq!(done.cause(), EndCause::Invalid, "{expected}");
        assert_eq!(done.exited.fault.as_ref().unwrap().code, "step-cannot-start");
        assert!(
            done.fault().contains(expected),
            "{} does not contain {expected}",
            done.fault()
        );
        assert!(done.outputs.is_empty());
        line.acknowledge_exit(number);
    }
    assert_eq!(line.run(shell(99, "echo works")).stdout(), "works\n");
}

#[test]
fn start_is_idempotent_and_one_run_at_a_time() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let marker = sandbox.work("marker");
    let start = shell(5, &format!("echo x >> {}; echo ready; sleep 1000", marker.display()));
    line.send(node_frame::Kind::Start(start.clone()));
    let Kind::Started(first) = line.read() else {
        panic!("not started")
    };
    line.read_until("ready");
    line.send(node_frame::Kind::Start(start.clone()));
    assert_eq!(line.read(), Kind::Started(first), "the same run is not started twice");
    let mut other = start.clone();
    other.env = vec![var("A", "B")];
    line.send(node_frame::Kind::Start(other));
    assert!(
        matches!(line.read(), Kind::Fault(_)),
        "the same number for something else"
    );
    line.send(node_frame::Kind::Start(shell(6, "true")));
    assert!(matches!(line.read(), Kind::Fault(_)), "another run while one lives");
    line.send(node_frame::Kind::Ping(Ping { token: 77 }));
    assert!(matches!(line.read(), Kind::Pong(pong) if pong.token == 77));
    line.send(node_frame::Kind::Stop(StopProcess {
        run: 5,
        grace_ms: 0,
        cause: None,
    }));
    let done = line.finish();
    assert_eq!(done.cause(), EndCause::Cancelled);
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), "x\n");
    line.acknowledge_exit(5);
    line.send(node_frame::Kind::Start(start));
    assert!(
        matches!(line.read(), Kind::Fault(_)),
        "an acknowledged run does not come back"
    );
    assert_eq!(line.run(shell(6, "echo next")).stdout(), "next\n");
}

#[test]
fn injected_files_belong_to_the_step() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let path = sandbox.work("private/token");
    let shown = path.display().to_string();
    let mut start = shell(1, &format!("stat -c '%u %g %a' {shown}; cat {shown}"));
    start.files = vec![InjectedFile {
        path: shown,
        content: "secret".into(),
        mode: None,
    }];
    assert_eq!(line.run(start).stdout(), format!("{UID} {GID} 600\nsecret"));
    line.acknowledge_exit(1);
    let mut start = shell(2, "true");
    start.files = vec![InjectedFile {
        path: "/etc/gantry-test".into(),
        content: "x".into(),
        mode: None,
    }];
    let done = line.run(start);
    assert_eq!(done.cause(), EndCause::Invalid);
    assert!(
        done.fault().contains("/etc/gantry-test") && done.fault().contains("Permission denied"),
        "{}",
        done.fault()
    );
}

// ---- end

#[test]
fn signals_are_told_from_exits() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    for (run, (script, signal)) in (1..).zip([("kill -SEGV $$", 11), ("kill -KILL $$", 9), ("kill -TERM $$", 15)]) {
        let done = line.run(shell(run, script));
        assert_eq!(
            (done.cause(), done.exited.signal, done.exited.exit_code),
            (EndCause::Signalled, Some(signal), None)
        );
        line.acknowledge_exit(run);
    }
}

#[test]
fn timeout_is_polite_first() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let mut start = shell(
        1,
        "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done",
    );
    start.timeout_ms = Some(300);
    start.grace_ms = 20_000;
    let done = line.run(start);
    assert_eq!(done.stdout(), "ready\nbye\n");
    assert_eq!((done.cause(), done.exited.exit_code), (EndCause::Timeout, Some(3)));
}

#[test]
fn timeout_kills_what_ignores_the_polite_signal() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let mut start = shell(1, "trap '' TERM; echo ready; while :; do sleep 0.05; done");
    start.timeout_ms = Some(300);
    start.grace_ms = 300;
    let begun = Instant::now();
    let done = line.run(start);
    assert!(begun.elapsed() >= Duration::from_millis(600));
    assert_eq!((done.cause(), done.exited.signal), (EndCause::Timeout, Some(9)));
}

#[test]
fn stop_reports_the_cause_it_was_given() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    line.send(node_frame::Kind::Start(shell(1, "echo ready; sleep 1000")));
    line.read_until("ready");
    line.send(node_frame::Kind::Stop(StopProcess {
        run: 1,
        grace_ms: 20_000,
        cause: Some(EndCause::Lost.into()),
    }));
    let done = line.finish();
    assert_eq!((done.cause(), done.exited.signal), (EndCause::Lost, Some(15)));
}

#[test]
fn grandchildren_die_with_the_step() {
    const OWN_UID: u32 = 64_101;
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    // A new session, reparented to PID 1, deaf to SIGTERM, and it holds stdout: without a kill by PID 1 the pipe never ends.
    let mut start = shell(
        1,
        "setsid sh -c 'trap \"\" TERM; echo orphan; while :; do sleep 1; done' & sleep 0.5; echo main ends",
    );
    start.uid = OWN_UID;
    let done = line.run(start);
    assert_eq!((done.cause(), done.exited.exit_code), (EndCause::Exited, Some(0)));
    assert_eq!(done.stdout(), "orphan\nmain ends\n");
    assert_eq!(Sandbox::processes_of(OWN_UID), Vec::<i32>::new());
}

#[test]
fn a_tree_that_keeps_forking_is_ended() {
    const OWN_UID: u32 = 64_102;
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    // Sessions of their own, each forking for long enough that the kill meets forks in flight; bounded, should the kill fail.
    let script = "i=0; while [ $i -lt 20 ]; do setsid sh -c 'j=0; while [ $j -lt 3000 ]; do sleep 0.02 & sleep 0.01; j=$((j+1)); done' & i=$((i+1)); done; exec sleep 1000";
    let mut start = shell(1, script);
    start.uid = OWN_UID;
    line.send(node_frame::Kind::Start(start));
    wait_for("many processes", || {
        (Sandbox::processes_of(OWN_UID).len() > 40).then_some(())
    });
    line.send(node_frame::Kind::Stop(StopProcess {
        run: 1,
        grace_ms: 0,
        cause: None,
    }));
    assert_eq!(line.finish().cause(), EndCause::Cancelled);
    assert_eq!(Sandbox::processes_of(OWN_UID), Vec::<i32>::new());
}

#[test]
fn dead_man_deadline_ends_work_and_supervisor() {
    let mut sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let mut start = shell(1, "echo ready; sleep 1000");
    start.deadman_ms = 60_000;
    line.send(node_frame::Kind::Start(start));
    line.read_until("ready");
    line.send(node_frame::Kind::Extend(ExtendDeadline {
        run: 1,
        deadman_ms: 200,
    }));
    let done = line.finish();
    assert_eq!(done.cause(), EndCause::Lost);
    line.acknowledge_exit(1);
    assert_eq!(sandbox.wait(), Some(3));
}

#[test]
fn shutdown_ends_everything() {
    const OWN_UID: u32 = 64_103;
    let mut sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let mut start = shell(1, "trap '' TERM; echo ready; sleep 1000");
    start.uid = OWN_UID;
    line.send(node_frame::Kind::Start(start));
    line.read_until("ready");
    line.send(node_frame::Kind::Shutdown(Shutdown {}));
    assert_eq!(sandbox.wait(), Some(0));
    assert_eq!(Sandbox::processes_of(OWN_UID), Vec::<i32>::new());
}

// ---- output

#[test]
fn output_and_exit_are_replayed_after_a_lost_connection() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let gate = sandbox.work("gate");
    let script = format!(
        "echo one; echo two >&2; while [ ! -e {} ]; do sleep 0.05; done; echo three; exit 4",
        gate.display()
    );
    line.send(node_frame::Kind::Start(shell(9, &script)));
    let mut first = Vec::new();
    while first.len() < 2 {
        if let Kind::Output(output) = line.read() {
            first.push(output);
        }
    }
    line.send(node_frame::Kind::OutputAck(OutputAck {
        run: 9,
        seq: first[0].seq,
    }));
    // A pong proves that the acknowledgement before it was taken in.
    line.send(node_frame::Kind::Ping(Ping { token: 1 }));
    while !matches!(line.read(), Kind::Pong(_)) {}
    drop(line);
    std::fs::write(&gate, "").unwrap();

    let (mut line, hello) = sandbox.connect();
    let held = hello.process.unwrap();
    assert_eq!((held.run, held.pid.is_some()), (9, true));
    let second = line.finish();
    assert_eq!(second.outputs[0], first[1], "same number, same bytes");
    assert_eq!(second.outputs.last().unwrap().data.as_ref(), b"three\n");
    assert_eq!(second.exited.exit_code, Some(4));
    drop(line);

    let (mut line, hello) = sandbox.connect();
    assert_eq!(hello.process.unwrap().exited.unwrap(), second.exited);
    assert_eq!(line.finish().exited, second.exited, "until it is acknowledged");
    line.acknowledge_exit(9);
    line.send(node_frame::Kind::Ping(Ping { token: 2 }));
    assert!(matches!(line.read(), Kind::Pong(_)));
    drop(line);
    assert!(sandbox.connect().1.process.is_none());
}

#[test]
fn a_writer_blocks_while_nobody_acknowledges() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let blocks = 64_usize;
    let progress = sandbox.work("written");
    // Each block is a chunk's size; the file says how many were written.
    let script = format!(
        "i=0; while [ $i -lt {blocks} ]; do head -c {OUTPUT_CHUNK_BYTES_MAX} /dev/zero; i=$((i+1)); echo $i > {}; done",
        progress.display()
    );
    line.send(node_frame::Kind::Start(shell(1, &script)));
    let mut held = Vec::new();
    let mut bytes = 0;
    // All that fits the supervisor's buffer arrives without any acknowledgement.
    while bytes + 2 * OUTPUT_CHUNK_BYTES_MAX <= OUTPUT_BUFFER_BYTES_MAX {
        if let Kind::Output(output) = line.read() {
            bytes += output.data.len();
            held.push(output);
        }
    }
    let written = || {
        std::fs::read_to_string(&progress)
            .ok()
            .and_then(|text| text.trim().parse::<usize>().ok())
            .unwrap_or(0)
    };
    // Then the writer stands still: the buffer, the pipe and one block in the writer's hand.
    let mut last = (written(), Instant::now());
    wait_for("the writer to stand still", || {
        let now = written();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(1)).then_some(())
    });
    assert!(
        written() * OUTPUT_CHUNK_BYTES_MAX <= OUTPUT_BUFFER_BYTES_MAX + 3 * OUTPUT_CHUNK_BYTES_MAX,
        "{}",
        written()
    );
    line.send(node_frame::Kind::OutputAck(OutputAck {
        run: 1,
        seq: held.last().unwrap().seq,
    }));
    let rest = line.finish();
    let total = bytes + rest.outputs.iter().map(|output| output.data.len()).sum::<usize>();
    assert_eq!(total, blocks * OUTPUT_CHUNK_BYTES_MAX, "nothing was dropped");
    assert_eq!(rest.exited.exit_code, Some(0));
}

#[test]
fn printing_past_the_limit_ends_the_step() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let mut start = shell(1, "yes");
    start.output_limit_bytes = 100_000;
    let done = line.run(start);
    assert_eq!(done.cause(), EndCause::OutputLimit);
    assert_eq!(
        done.outputs.iter().map(|output| output.data.len()).sum::<usize>(),
        100_000
    );
}

// ---- reports

#[test]
fn report_files_come_back_and_links_do_not() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let watched = |kind: ReportKind, name: &str, limit_bytes| WatchedFile {
        kind: kind.into(),
        path: sandbox.work(name).display().to_string(),
        limit_bytes,
    };
    let reports = vec![
        watched(ReportKind::Output, "report/output", 100),
        watched(ReportKind::Attrs, "report/attrs", 4),
        watched(ReportKind::Progress, "report/progress", 100),
    ];
    let dir = sandbox.work("report").display().to_string();
    let mut start = shell(
        1,
        &format!("cd {dir} && stat -c %u output && echo a=1 > output && echo too long > attrs && echo p > progress"),
    );
    start.reports.clone_from(&reports);
    let done = line.run(start);
    assert_eq!(done.stdout(), format!("{UID}\n"));
    let found: Vec<_> = done
        .exited
        .reports
        .iter()
        .map(|r| (r.kind(), r.content.as_ref(), r.truncated()))
        .collect();
    assert_eq!(
        found,
        [
            (ReportKind::Output, &b"a=1\n"[..], false),
            (ReportKind::Attrs, b"", true),
            (ReportKind::Progress, b"p\n", false),
        ]
    );
    line.acknowledge_exit(1);

    let mut start = shell(
        2,
        &format!(
            "cd {dir} && ln -sf /etc/passwd output && rm attrs && mkfifo attrs && rm progress && ln -s {}/nonce progress",
            sandbox.dir.path().join("sock").display()
        ),
    );
    start.reports.clone_from(&reports);
    let done = line.run(start);
    assert_eq!((done.cause(), done.exited.exit_code), (EndCause::Exited, Some(0)));
    assert!(done.exited.reports.is_empty(), "{:?}", done.exited.reports);
    line.acknowledge_exit(2);

    // The directory itself replaced by a link to one that only root may read.
    let sock = sandbox.dir.path().join("sock").display().to_string();
    let mut start = shell(3, &format!("rm -rf {dir} && ln -s {sock} {dir}"));
    start.reports = vec![watched(ReportKind::Output, "report/nonce", 100)];
    let done = line.run(start);
    assert_eq!(done.exited.exit_code, Some(0));
    assert!(done.exited.reports.is_empty(), "{:?}", done.exited.reports);
}

#[test]
fn progress_comes_while_the_step_runs() {
    let sandbox = Sandbox::start();
    let (mut line, _) = sandbox.connect();
    let path = sandbox.work("progress").display().to_string();
    let mut start = shell(1, &format!("echo half > {path}; sleep 1000"));
    start.reports = vec![WatchedFile {
        kind: ReportKind::Progress.into(),
        path,
        limit_bytes: 100,
    }];
    line.send(node_frame::Kind::Start(start));
    loop {
        if let Kind::ReportFile(report) = line.read()
            && report.content.as_ref() == b"half\n"
        {
            break;
        }
    }
}

// ---- the line

#[test]
fn a_node_that_does_not_know_the_nonce_is_refused() {
    let sandbox = Sandbox::start();
    let mut stranger = sandbox.accept();
    assert!(matches!(stranger.read(), Kind::Hello(_)));
    stranger.hello(&[0; 32]);
    // It may have hung up already.
    let start = shell(1, &format!("touch {}", sandbox.work("started").display()));
    let _hung_up = stranger.try_send(node_frame::Kind::Start(start));
    assert_eq!(stranger.try_read(), None, "it hangs up without an answer");
    let mut silent = sandbox.accept();
    assert!(matches!(silent.read(), Kind::Hello(_)));
    silent.send(node_frame::Kind::Start(shell(1, "true")));
    assert_eq!(silent.try_read(), None, "nothing before the hello");
    let (mut line, hello) = sandbox.connect();
    assert!(hello.process.is_none());
    assert!(!sandbox.work("started").exists());
    assert_eq!(line.run(shell(1, "echo right")).stdout(), "right\n");
}

#[test]
fn runs_as_pid_1_only() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_gantry-supervisor"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("PID 1"));
}
