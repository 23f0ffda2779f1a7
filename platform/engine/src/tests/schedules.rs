//! Schedules on the model store. The wall clock is moved by hand; everything else takes real time.

use std::time::Duration;

use gantry_proto::{ErrorCode, TenantId, WorkflowId};
use serde_json::{Map, json};

use super::world::{World, caller, ok, tenant};
use crate::api::{
    Backend as _, Missed, Overlap, ScheduleSpec, ScheduleView, Schedules as _, WorkflowQuery, WorkflowState,
};

const ONE: &str = "
name: nightly
parameters: {word: {type: string, default: none}}
tasks:
  t: {steps: [{run: 'echo {{ params.word }}'}]}
";

const MINUTE: Duration = Duration::from_mins(1);

fn every_minute() -> ScheduleSpec {
    ScheduleSpec {
        playbook: "nightly".to_owned(),
        cron: "* * * * *".to_owned(),
        time_zone: "UTC".to_owned(),
        jitter_ms: 0,
        overlap: Overlap::Skip,
        missed: Missed::Once,
        grace_ms: 5_000,
        parameters: Map::new(),
        labels: std::collections::BTreeMap::new(),
    }
}

/// Shorter than a lease.
const OFTEN: Duration = Duration::from_secs(5);

fn often(overlap: Overlap) -> ScheduleSpec {
    ScheduleSpec {
        cron: "*/5 * * * * *".to_owned(),
        overlap,
        ..every_minute()
    }
}

async fn world() -> World {
    let world = World::new().await;
    world.shelf.put("nightly", ONE);
    // To the middle of a minute, so that "a minute later" always has one time in it.
    let into = world.now_ms() % 60_000;
    world.forward(Duration::from_millis(90_000 - into));
    world
}

async fn set(world: &World, spec: ScheduleSpec) -> ScheduleView {
    world.engine.set_schedule(caller(), "s", spec, false).await.unwrap()
}

async fn view(world: &World) -> ScheduleView {
    world.engine.schedule(tenant(), "s").await.unwrap()
}

/// Lets wall-clock time pass, and the engine look at its clock.
async fn pass(world: &World, time: Duration) {
    world.forward(time);
    let paused = view(world).await.paused_by.is_some();
    // It is so already: nothing changes, but what is due is done.
    world.engine.pause_schedule(caller(), "s", paused).await.unwrap();
}

/// Waits until the schedule looks as wanted.
async fn until(world: &World, wanted: impl Fn(&ScheduleView) -> bool) -> ScheduleView {
    for _ in 0..200 {
        let view = view(world).await;
        if wanted(&view) {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never came to that: {:?}", view(world).await);
}

/// Runs the next assignment to success.
async fn run_one(world: &World) -> WorkflowId {
    let (node, assignment) = world.desk.assignment().await;
    world.finish(node, &assignment.assignee, ok()).await;
    assignment.assignee.workflow
}

async fn runs(world: &World) -> Vec<WorkflowId> {
    let page = world
        .engine
        .workflows(tenant(), WorkflowQuery::default())
        .await
        .unwrap();
    page.items.into_iter().map(|item| item.id).collect()
}

#[tokio::test]
async fn it_starts_the_newest_version_at_its_times_with_its_parameters() {
    let world = world().await;
    let mut spec = every_minute();
    spec.parameters.insert("word".to_owned(), json!("hello"));
    spec.labels.insert("team".to_owned(), "ops".to_owned());
    let made = set(&world, spec).await;
    assert_eq!((made.next_ms.len(), made.started), (5, 0));
    assert!(made.next_ms.iter().all(|at| at % 60_000 == 0), "{:?}", made.next_ms);

    pass(&world, MINUTE).await;
    let first = run_one(&world).await;
    world.shelf.put("nightly", &ONE.replace("echo", "printf"));
    pass(&world, MINUTE).await;
    let (_, second) = world.desk.assignment().await;
    assert_eq!(second.plan.command.shell.as_deref(), Some("printf hello"));
    let run = world.view(first).await;
    assert_eq!(run.summary.playbook.as_deref(), Some("nightly@1"));
    assert_eq!(run.labels["team"], "ops");
    assert_eq!(run.parameters, json!({"word": "hello"}));
    let shown = view(&world).await;
    assert_eq!(
        (shown.started, shown.running.len(), shown.last_due_ms),
        (2, 1, Some(made.next_ms[1]))
    );
    assert_eq!(shown.spec.parameters["word"], "hello");
    world.verify();
}

#[tokio::test]
async fn while_a_run_goes_on_the_policy_decides() {
    for (overlap, started, overlapped, queued) in [
        (Overlap::Skip, 1, 2, 0),
        (Overlap::Queue, 1, 0, 2),
        (Overlap::Allow, 3, 0, 0),
    ] {
        let world = world().await;
        set(&world, often(overlap)).await;
        for times in 1..=3 {
            pass(&world, OFTEN).await;
            // Commits take real time, of which paused time knows nothing.
            until(&world, |view| {
                view.started + view.overlapped + view.queued_ms.len() as u64 == times
            })
            .await;
        }
        let shown = until(&world, |view| view.started == started).await;
        assert_eq!(
            (shown.overlapped, shown.queued_ms.len()),
            (overlapped, queued),
            "{overlap:?}"
        );
        if overlap == Overlap::Queue {
            world.engine.pause_schedule(caller(), "s", true).await.unwrap();
            run_one(&world).await;
            until(&world, |view| view.running.is_empty()).await;
            assert_eq!(
                view(&world).await.started,
                1,
                "what waits in the queue is held by a pause too"
            );
            world.engine.pause_schedule(caller(), "s", false).await.unwrap();
            until(&world, |view| view.started == 2).await;
        }
        world.verify();
    }
}

#[tokio::test]
async fn replacing_cancels_the_run_before_and_starts_when_it_has_ended() {
    let world = world().await;
    set(&world, often(Overlap::Replace)).await;
    pass(&world, OFTEN).await;
    let (node, first) = world.desk.assignment().await;
    pass(&world, OFTEN).await;
    world.desk.cancel().await;
    assert_eq!(view(&world).await.queued_ms.len(), 1);
    let cancelled = super::world::ended(gantry_proto::v1::EndCause::Cancelled, None);
    world.finish(node, &first.assignee, cancelled).await;
    let second = run_one(&world).await;
    assert_ne!(second, first.assignee.workflow);
    let before = world.view(first.assignee.workflow).await;
    assert_eq!(before.summary.state, WorkflowState::Cancelled);
    world.verify();
}

#[tokio::test]
async fn times_that_passed_while_the_daemon_was_down_are_treated_as_said() {
    for (missed, started, left_out) in [(Missed::Skip, 0, 10), (Missed::Once, 1, 9), (Missed::All, 10, 0)] {
        let world = world().await;
        let spec = ScheduleSpec {
            missed,
            overlap: Overlap::Allow,
            ..every_minute()
        };
        set(&world, spec).await;
        world.engine.shutdown().await;
        world.forward(10 * MINUTE);
        let world = world.reopened().await;
        let shown = until(&world, |view| view.started == started && view.missed_times == left_out).await;
        assert_eq!(shown.overlapped, 0);
        assert!(shown.next_ms[0] > world.now_ms(), "and it goes on from now");
        world.verify();
    }
}

#[tokio::test]
async fn a_pause_owes_nothing_and_people_can_ask_for_runs_all_the_same() {
    let world = world().await;
    set(
        &world,
        ScheduleSpec {
            overlap: Overlap::Queue,
            ..every_minute()
        },
    )
    .await;
    let paused = world.engine.pause_schedule(caller(), "s", true).await.unwrap();
    assert_eq!(
        (paused.paused_by, paused.next_ms),
        (Some(caller().principal), Vec::new())
    );
    pass(&world, 10 * MINUTE).await;
    assert_eq!(runs(&world).await.len(), 0);
    world.engine.owe_runs(caller(), "s", None, None).await.unwrap();
    run_one(&world).await;
    // A stretch of the past, one after the other.
    let from = world.now_ms() - 5 * 60_000;
    let shown = world
        .engine
        .owe_runs(caller(), "s", Some((from, world.now_ms())), None)
        .await
        .unwrap();
    assert_eq!(shown.queued_ms.len() + shown.running.len(), 5);
    // The first one runs while the daemon is restarted.
    let (node, first) = world.desk.assignment().await;
    let world = world.restart().await;
    world.finish(node, &first.assignee, ok()).await;
    for _ in 0..4 {
        run_one(&world).await;
    }
    let shown = until(&world, |view| view.running.is_empty() && view.queued_ms.is_empty()).await;
    assert_eq!((shown.started, runs(&world).await.len()), (6, 6));
    let resumed = world.engine.pause_schedule(caller(), "s", false).await.unwrap();
    assert!(resumed.paused_by.is_none() && resumed.next_ms[0] > world.now_ms());
    assert_eq!(resumed.missed_times, 0);
    world.verify();
}

#[tokio::test]
async fn a_run_that_cannot_be_started_says_why_and_the_next_one_is_tried() {
    let world = world().await;
    set(&world, every_minute()).await;
    world.shelf.remove("nightly");
    pass(&world, MINUTE).await;
    let shown = until(&world, |view| view.failed == 1).await;
    let failure = shown.failure.unwrap();
    assert_eq!(failure.code, "not-found");
    assert!(failure.message.contains("nightly"), "{}", failure.message);
    world.shelf.put("nightly", ONE);
    pass(&world, MINUTE).await;
    run_one(&world).await;
    world.verify();
}

#[tokio::test]
async fn what_is_wrong_is_refused_when_it_is_set() {
    let world = world().await;
    let with = |change: fn(&mut ScheduleSpec)| {
        let mut spec = every_minute();
        change(&mut spec);
        spec
    };
    for (spec, code) in [
        (with(|spec| spec.cron = "61 * * * *".into()), ErrorCode::InvalidRequest),
        (with(|spec| spec.cron = "0 0 30 2 *".into()), ErrorCode::InvalidRequest),
        (
            with(|spec| spec.time_zone = "Mars/Olympus".into()),
            ErrorCode::InvalidRequest,
        ),
        (with(|spec| spec.jitter_ms = u64::MAX), ErrorCode::InvalidRequest),
        (with(|spec| spec.playbook = "other".into()), ErrorCode::NotFound),
        (
            with(|spec| spec.playbook = "nightly@x".into()),
            ErrorCode::InvalidRequest,
        ),
        (
            with(|spec| {
                spec.parameters.insert("word".into(), json!([7]));
            }),
            ErrorCode::InvalidParameters,
        ),
    ] {
        let refused = world.engine.set_schedule(caller(), "s", spec, false).await.unwrap_err();
        assert_eq!(refused.code, code, "{}", refused.message);
    }
    set(&world, every_minute()).await;
    let again = world
        .engine
        .set_schedule(caller(), "s", every_minute(), true)
        .await
        .unwrap_err();
    assert_eq!(again.code, ErrorCode::Conflict);
    let nobody = world.engine.schedule(TenantId::nil(), "s").await.unwrap_err();
    assert_eq!(nobody.code, ErrorCode::NotFound, "another tenant's");
}

#[tokio::test]
async fn a_deleted_schedule_fires_no_more_and_its_runs_go_on() {
    let world = world().await;
    set(&world, every_minute()).await;
    pass(&world, MINUTE).await;
    let (node, assignment) = world.desk.assignment().await;
    world.engine.delete_schedule(caller(), "s").await.unwrap();
    let gone = world.engine.schedule(tenant(), "s").await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::NotFound);
    world.forward(2 * MINUTE);
    world.finish(node, &assignment.assignee, ok()).await;
    assert_eq!(runs(&world).await.len(), 1);
    // The same name again is another schedule, with nothing of the old one.
    let made = set(&world, every_minute()).await;
    assert_eq!((made.started, made.last_run), (0, None));
    let world = world.restart().await;
    assert_eq!(world.engine.schedules(tenant(), None, 10).await.unwrap().len(), 1);
    world.verify();
}
