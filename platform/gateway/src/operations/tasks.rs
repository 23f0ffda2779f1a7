//! Tasks, steps and logs.

use gantry_directory::{Resource as R, Verb as V};
use gantry_engine::api::{StepView, TaskView};
use http::Method;

use super::q;
use crate::dto::Items;
use crate::handlers::{logs, tasks};
use crate::operation::Content::{Json, Other};
use crate::operation::Operation;
use crate::schema::{list as list_of, of};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/tasks", "list_tasks", (R::Workflow, V::Get), "Tasks of a workflow", tasks::list)
            .returns(200, &[Json(list_of::<Items<TaskView>, TaskView>())]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/tasks/{task}", "get_task", (R::Workflow, V::Get), "One task, by name or id", tasks::get)
            .returns(200, &[Json(of::<TaskView>())]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/tasks/{task}/steps", "list_steps", (R::Workflow, V::Get), "Steps of a task", tasks::steps)
            .returns(200, &[Json(list_of::<Items<StepView>, StepView>())]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/tasks/{task}/steps/{step}", "get_step", (R::Workflow, V::Get), "One step, by key or index", tasks::step)
            .returns(200, &[Json(of::<StepView>())]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/tasks/{task}/steps/{step}/logs", "read_logs", (R::Log, V::Watch), "What a step printed: bytes, NDJSON, or with `Accept: text/event-stream` events whose id is the sequence number", logs::logs)
            .query(const { &[
                q("attempt", "which attempt; default: the newest"),
                q("stream", "only `stdout` or only `stderr`"),
                q("follow", "`true`: go on until the attempt has ended"),
                q("format", "`text` (default) or `json` (one object per line)"),
            ] })
            .returns(200, &[Other("text/plain"), Other("application/x-ndjson"), Other("text/event-stream")]),
    ]
}
