//! The tables of the archive and their columns. Numbers and names are stored: columns are only ever added, at the end of a table, as nullable ones.

use gantry_journal::archive::ColumnType::{Bool, Bytes, I64, Json, Text, TimestampMs};
use gantry_journal::archive::{ColumnType, Field, Schema, Table};

const fn must(name: &'static str, kind: ColumnType, about: &'static str) -> Field {
    Field {
        name,
        kind,
        nullable: false,
        about,
    }
}

const fn may(name: &'static str, kind: ColumnType, about: &'static str) -> Field {
    Field {
        name,
        kind,
        nullable: true,
        about,
    }
}

/// Workflows.
pub static WORKFLOWS: Table = Table {
    id: 1,
    name: "workflows",
    about: "one row per workflow",
    schema: Schema(&[
        must("id", Text, "`wf_...`"),
        must("name", Text, "name from the definition"),
        must("state", Text, "lifecycle state"),
        must("submitted_by", Text, "key that submitted it"),
        must("labels", Json, "labels, an object of texts"),
        must("attributes", Json, "search attributes, an object"),
        must("definition_digest", Text, "BLAKE3 of the definition, hexadecimal"),
        may("traceparent", Text, "W3C trace context of the submitter"),
        must("created_at", TimestampMs, "submission"),
        may("ended_at", TimestampMs, "end"),
        may("end_code", Text, "error code of the end"),
        must("tasks_total", I64, "tasks"),
        must("tasks_ended", I64, "tasks that have ended"),
    ]),
};

/// Tasks.
pub static TASKS: Table = Table {
    id: 2,
    name: "tasks",
    about: "one row per task",
    schema: Schema(&[
        must("id", Text, "`task_...`"),
        must("workflow_id", Text, "its workflow"),
        must("index", I64, "position in the definition, from 0"),
        must("name", Text, "name from the definition"),
        must("state", Text, "lifecycle state"),
        must("leases", I64, "leases so far"),
        must("refusals", I64, "assignments that nodes gave back"),
        may("node_id", Text, "the node that holds it, or holds its workspace"),
        may("ready_at", TimestampMs, "when it became ready for the first time"),
        may("started_at", TimestampMs, "first assignment"),
        may("ended_at", TimestampMs, "end"),
        may("end_code", Text, "error code of the end"),
        must("steps", I64, "steps"),
    ]),
};

/// Steps.
pub static STEPS: Table = Table {
    id: 3,
    name: "steps",
    about: "one row per step of a task",
    schema: Schema(&[
        must("workflow_id", Text, "its workflow"),
        must("task_id", Text, "its task"),
        must("task_name", Text, "name of its task"),
        must("step", I64, "position in the task, from 0"),
        must("state", Text, "state"),
        must("attempts", I64, "tries"),
        must("failed", I64, "tries that failed and count"),
        must("lost", I64, "tries that infrastructure lost"),
        may("started_at", TimestampMs, "start of the first process"),
        may("finished_at", TimestampMs, "end of the last process"),
    ]),
};

/// Attempts.
pub static ATTEMPTS: Table = Table {
    id: 4,
    name: "attempts",
    about: "one row per try at a step",
    schema: Schema(&[
        must("workflow_id", Text, "its workflow"),
        must("task_id", Text, "its task"),
        must("task_name", Text, "name of its task"),
        must("step", I64, "position of the step in the task, from 0"),
        must("attempt", I64, "number of the try, from 1"),
        must("state", Text, "state"),
        must("fence", I64, "lease that it ran under"),
        must("node_id", Text, "where it ran"),
        may("sandbox_id", Text, "in which sandbox"),
        must("assigned_at", TimestampMs, "assignment"),
        may("started_at", TimestampMs, "start of its process"),
        may("finished_at", TimestampMs, "end of its process"),
        may("cause", Text, "why it ended"),
        may("code", Text, "error code"),
        may("exit_code", I64, "exit code"),
        may("signal", I64, "signal"),
        may("oom_seen", Bool, "something in the sandbox was killed for memory"),
        may("cpu_us", I64, "CPU time, user and system, microseconds"),
        may("max_rss_bytes", I64, "greatest resident memory"),
    ]),
};

/// Events.
pub static EVENTS: Table = Table {
    id: 5,
    name: "events",
    about: "one row per journal record of a workflow",
    schema: Schema(&[
        must("workflow_id", Text, "which workflow"),
        must("partition", I64, "whose log"),
        must("position", I64, "position in the partition's log"),
        must("recorded_at", TimestampMs, "when it was decided"),
        must("kind", Text, "kind of record"),
        may("task_id", Text, "which task"),
        may("task_name", Text, "name of the task"),
        may("step", I64, "position of the step"),
        may("attempt", I64, "number of the try, or of the lease"),
        may("fence", I64, "lease"),
        may("node_id", Text, "node"),
        may("sandbox_id", Text, "sandbox"),
        may("code", Text, "error code"),
        may("exit_code", I64, "exit code"),
        must("data", Json, "everything in the clear, as the API shows it"),
        must(
            "record",
            Bytes,
            "the record as it is in the log (protobuf); what users wrote is sealed in it",
        ),
    ]),
};

/// Sandboxes.
pub static SANDBOXES: Table = Table {
    id: 6,
    name: "sandboxes",
    about: "one row per sandbox that ran an attempt",
    schema: Schema(&[
        must("id", Text, "`sbx_...`"),
        must("workflow_id", Text, "whose attempt"),
        must("task_id", Text, "which task"),
        must("step", I64, "position of the step"),
        must("attempt", I64, "number of the try"),
        must("node_id", Text, "where it was"),
        must("state", Text, "`busy` while its attempt is open, then `deleted`"),
        may("started_at", TimestampMs, "start of the process in it"),
        may("finished_at", TimestampMs, "end of the process in it"),
        may("cause", Text, "why the attempt ended"),
    ]),
};

/// Usage.
pub static USAGE: Table = Table {
    id: 7,
    name: "usage",
    about: "one row per attempt that used something",
    schema: Schema(&[
        must("workflow_id", Text, "whose attempt"),
        must("workflow_name", Text, "name of the workflow"),
        must("task_id", Text, "which task"),
        must("step", I64, "position of the step"),
        must("attempt", I64, "number of the try"),
        must("node_id", Text, "where"),
        must("ended_at", TimestampMs, "end of the process"),
        must("wall_ms", I64, "time between start and end of the process"),
        must(
            "cpu_us",
            I64,
            "CPU time, user and system, microseconds; 0 when not reported",
        ),
        must("max_rss_bytes", I64, "greatest resident memory; 0 when not reported"),
    ]),
};

/// Every table, in the order of their numbers.
pub static TABLES: [&Table; 7] = [&WORKFLOWS, &TASKS, &STEPS, &ATTEMPTS, &EVENTS, &SANDBOXES, &USAGE];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_and_names_are_unique() {
        let names: BTreeSet<_> = TABLES.iter().map(|table| table.name).collect();
        assert_eq!(names.len(), TABLES.len());
        assert!(TABLES.iter().zip(1..).all(|(table, id)| table.id == id));
        for table in TABLES {
            let columns: BTreeSet<_> = table.schema.0.iter().map(|field| field.name).collect();
            assert_eq!(columns.len(), table.schema.0.len(), "{}", table.name);
        }
    }
}
