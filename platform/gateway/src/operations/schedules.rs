//! Schedules.

use gantry_directory::{Resource as R, Verb as V};
use gantry_engine::api::{ScheduleSpec, ScheduleView};
use http::Method;

use super::{PAGE, q};
use crate::dto::{BackfillBody, Paged, RunNowBody};
use crate::handlers::schedules;
use crate::operation::Content::Json;
use crate::operation::Operation;
use crate::schema::{list as list_of, of};

const MANY: &str = "/api/v1/schedules";
const ONE: &str = "/api/v1/schedules/{name}";

pub(super) fn operations() -> Vec<Operation> {
    let view = || [Json(of::<ScheduleView>())];
    vec![
        Operation::guarded(
            Method::GET,
            MANY,
            "list_schedules",
            (R::Schedule, V::List),
            "Schedules, by name",
            schedules::list,
        )
        .query(PAGE)
        .returns(200, &[Json(list_of::<Paged<ScheduleView>, ScheduleView>())]),
        Operation::guarded(
            Method::PUT,
            ONE,
            "set_schedule",
            (R::Schedule, V::Create),
            "Make a schedule or replace what it says; runs that are owed or go on are not touched",
            schedules::set,
        )
        .query(const { &[q("new", "`true`: refuse when it exists")] })
        .body(Json(of::<ScheduleSpec>()))
        .returns(200, &view()),
        Operation::guarded(
            Method::GET,
            ONE,
            "get_schedule",
            (R::Schedule, V::Get),
            "One schedule, with the times that come next",
            schedules::get,
        )
        .returns(200, &view()),
        Operation::guarded(
            Method::DELETE,
            ONE,
            "delete_schedule",
            (R::Schedule, V::Create),
            "Delete a schedule with everything that it owes; runs that go on go on",
            schedules::delete,
        )
        .returns(204, &[]),
        Operation::guarded(
            Method::POST,
            ONE,
            "pause_schedule",
            (R::Schedule, V::Pause),
            "Let no times come; what passes meanwhile is not made up for",
            schedules::pause,
        )
        .action("pause")
        .returns(200, &view()),
        Operation::guarded(
            Method::POST,
            ONE,
            "resume_schedule",
            (R::Schedule, V::Pause),
            "Go on from now",
            schedules::resume,
        )
        .action("resume")
        .returns(200, &view()),
        Operation::guarded(
            Method::POST,
            ONE,
            "run_schedule",
            (R::Schedule, V::Create),
            "Start a run now, also while it is paused",
            schedules::run,
        )
        .action("run")
        .optional_body(Json(of::<RunNowBody>()))
        .returns(202, &view()),
        Operation::guarded(
            Method::POST,
            ONE,
            "backfill_schedule",
            (R::Schedule, V::Create),
            "Start a run for each of the calendar's times in a range",
            schedules::backfill,
        )
        .action("backfill")
        .body(Json(of::<BackfillBody>()))
        .returns(202, &view()),
    ]
}
