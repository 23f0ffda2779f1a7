//! Every limit of the system with the reason beside it. Past one, a typed error; never silence.

/// One frame between node and supervisor. Holds the largest chunk, report file or injected file plus its envelope.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// One chunk of a process's output. Small enough that many streams share a connection fairly, large enough that 1 GB is 16 k chunks.
pub const OUTPUT_CHUNK_BYTES_MAX: usize = 64 << 10;

/// Output that a supervisor keeps unacknowledged before it stops reading the pipe. It survives a node restart in the sandbox's memory.
pub const OUTPUT_BUFFER_BYTES_MAX: usize = 1 << 20;

/// Default for what a step attempt may print in all; a definition may ask for more up to [`OUTPUT_LIMIT_BYTES_MAX`].
pub const OUTPUT_LIMIT_BYTES_DEFAULT: u64 = 64 << 20;

/// Most that a step attempt may print in all: what an operator can still page through.
pub const OUTPUT_LIMIT_BYTES_MAX: u64 = 4 << 30;

/// `$GANTRY_OUTPUT`: values that later steps are rendered with. It becomes a journal record, so it is small.
pub const STEP_OUTPUTS_BYTES_MAX: u64 = 256 << 10;

/// `$GANTRY_ATTRS`: facts about the step, shown with it.
pub const STEP_ATTRS_BYTES_MAX: u64 = 16 << 10;

/// `$GANTRY_PROGRESS`: shown live, last content wins.
pub const STEP_PROGRESS_BYTES_MAX: u64 = 16 << 10;

/// A submitted definition. A person cannot review more, and it is kept whole in the journal.
pub const DEFINITION_BYTES_MAX: usize = 1 << 20;

/// Parameters of a submission.
pub const PARAMETERS_BYTES_MAX: usize = 256 << 10;

/// Tasks of one workflow (500-task pages are a bar of the dashboard; fan-out adds to them at run time).
pub const TASKS_PER_WORKFLOW_MAX: usize = 1_000;

/// Steps of one task.
pub const STEPS_PER_TASK_MAX: usize = 100;

/// Names of workflows, tasks, steps, labels, capabilities.
pub const NAME_BYTES_MAX: usize = 128;

/// Environment of a step: the kernel allows more, a frame does not.
pub const STEP_ENV_BYTES_MAX: usize = 256 << 10;

/// A rendered command.
pub const COMMAND_BYTES_MAX: usize = 128 << 10;

/// Result of rendering one template; a loop in a template cannot exhaust memory.
pub const RENDERED_BYTES_MAX: usize = 256 << 10;

/// Instructions that one template may execute (minijinja fuel).
pub const TEMPLATE_FUEL: u64 = 100_000;

/// Attempts that infrastructure may lose before a step fails with that cause.
pub const INFRASTRUCTURE_ATTEMPTS_MAX: u32 = 20;

/// Attempts that a definition may ask for by `retry`.
pub const RETRY_ATTEMPTS_MAX: u32 = 100;

/// Longest timeout and longest back-off of a step: a week.
pub const STEP_TIMEOUT_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// Longest sleep, and longest wait for a signal or a decision: a leap year. What waits longer belongs into a schedule.
pub const WAIT_MS_MAX: u64 = 366 * 24 * 3_600_000;

/// Search attributes of one workflow. They are part of its row, which every list reads.
pub const ATTRIBUTES_MAX: usize = 32;

/// Name of a search attribute.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 64;

/// Text of a search attribute: what one searches by, not what one reads.
pub const ATTRIBUTE_TEXT_BYTES_MAX: usize = 256;

/// Text of a filter.
pub const FILTER_BYTES_MAX: usize = 4_096;

/// Comparisons in one filter: each is made for every row that is looked at.
pub const FILTER_TERMS_MAX: usize = 64;

/// Rows that one page of a list looks at before it is cut short: a filter that matches nothing must not read the whole history at once.
pub const LIST_ROWS_MAX: usize = 20_000;

/// Workflows that one bulk operation has sent for and that are not reported: bounds what a cancelled one still does.
pub const BULK_WINDOW: usize = 256;

/// Workflows that one letter of a bulk operation names: they are acted upon in one batch.
pub const BULK_LETTER_ITEMS_MAX: usize = 16;

/// Workflows per second that a bulk operation acts upon when it does not say: other work goes on beside it.
pub const BULK_RATE_DEFAULT: u32 = 100;

/// Workflows per second at most.
pub const BULK_RATE_MAX: u32 = 1_000;

/// Payload of a signal that is given to many: it goes with every letter.
pub const BULK_PAYLOAD_BYTES_MAX: usize = 16 << 10;

/// Workflows that a bulk operation names of those that it did not act upon; the newest. All of them are counted.
pub const BULK_ITEMS_SHOWN_MAX: usize = 100;

/// Bulk operations of one partition that run at once.
pub const BULKS_OPEN_MAX: usize = 16;

/// Bulk operations of one partition that are kept: they are in memory.
pub const BULKS_KEPT_MAX: usize = 1_000;

/// How long an ended bulk operation is kept: a week.
pub const BULK_KEPT_MS: u64 = 7 * 24 * 3_600_000;

/// Rows that a preview of a bulk operation looks at: some hundred milliseconds.
pub const BULK_PREVIEW_ROWS_MAX: usize = 100_000;

/// Results that a restarted or forked workflow has from the one before: they are journaled again in one batch.
pub const CARRIED_BYTES_MAX: usize = 16 << 20;

/// Artifacts that it has from there, all together: they are copied while the caller waits.
pub const CARRIED_ARTIFACTS_BYTES_MAX: u64 = 1 << 30;
/// Reworks of a task that does not say how many there may be: a fourth try is seldom better than the third, and somebody should look why.
pub const REWORKS_DEFAULT: u32 = 3;
/// The most that it may say. Every round stays in the row of the task.
pub const REWORKS_MAX: u32 = 20;

/// What runs before a workflow ends (`on_failure`, `on_cancel`) when it does not say how long it may take: enough to tell somebody and to clean up.
pub const HANDLER_MS_DEFAULT: u64 = 10 * 60_000;
/// The longest that it may say. The end of a workflow waits for it, and somebody for the end.
pub const HANDLER_MS_MAX: u64 = 24 * 3_600_000;
/// The reason that it is given: a process takes 128 KiB in one variable, and a reason is to be read.
pub const HANDLER_REASON_BYTES_MAX: usize = 4_096;

/// Payload of a signal: it becomes outputs, as those of a step.
pub const SIGNAL_BYTES_MAX: usize = 256 << 10;

/// Signals that one workflow keeps until a task takes them. Their payloads are in memory while they wait.
pub const SIGNALS_KEPT_MAX: usize = 64;

/// Newest ids of signals that one workflow remembers to recognise a repeated one. They are part of its row, 16 bytes each.
pub const SIGNAL_IDS_MAX: usize = 256;

/// Length of a caller's id for a signal.
pub const SIGNAL_ID_BYTES_MAX: usize = 255;

/// Comment of a decision, feedback of a rework, reason of a pause: what a person types.
pub const COMMENT_BYTES_MAX: usize = 16 << 10;

/// Environment and parameters that a decision to retry may change.
pub const CHANGES_BYTES_MAX: usize = 64 << 10;

/// Text of a condition (`when`): one line for people, not a program.
pub const CONDITION_BYTES_MAX: usize = 2_048;

/// Bytes of values that one evaluation of a condition may look at, counted each time: some milliseconds of work.
pub const CONDITION_WORK_BYTES_MAX: u64 = 64 << 20;

/// Keys and scopes that one approval may name.
pub const DECIDERS_MAX: usize = 64;

/// Files that the artifacts of one step may be.
pub const ARTIFACTS_PER_STEP_MAX: usize = 1_000;

/// One artifact.
pub const ARTIFACT_BYTES_MAX: u64 = 4 << 30;

/// All artifacts of one step attempt.
pub const ARTIFACTS_BYTES_MAX: u64 = 16 << 30;

/// One upload: what a person sends in one request without a protocol to resume it.
pub const UPLOAD_BYTES_MAX: u64 = 1 << 30;

/// Uploads of one tenant that have not expired; a list of them needs no pages.
pub const UPLOADS_PER_TENANT_MAX: usize = 500;

/// Bytes of all of a tenant's uploads: they take the server's disk until they expire.
pub const UPLOADS_PER_TENANT_BYTES_MAX: u64 = 8 << 30;

/// Uploads that are received at once; more are told to come back.
pub const UPLOADS_AT_ONCE_MAX: usize = 16;

/// How long an upload is kept, unless the sender says a shorter time: long enough to use it in the same working day.
pub const UPLOAD_TTL_MS_MAX: u64 = 24 * 3_600_000;

/// Uploads that one definition takes, all together: they are copied while its submitter waits, who is not kept longer than half a minute.
pub const SUBMIT_UPLOADS_BYTES_MAX: u64 = 1 << 30;

/// Directory entries that a capture walks before it gives up.
pub const CAPTURE_ENTRIES_MAX: usize = 2_000_000;

/// Depth of directories in a workspace that is captured or copied.
pub const TREE_DEPTH_MAX: usize = 256;

/// Layers under a workspace before they are flattened: overlayfs allows more, lookup cost grows with each.
pub const WORKSPACE_LAYERS_MAX: usize = 32;

/// Commands that wait for one partition before submitters get `overloaded`.
pub const PARTITION_QUEUE_MAX: usize = 4_096;

/// Commands that one batch takes: bounds its latency and the size of its commit.
pub const BATCH_COMMANDS_MAX: usize = 256;

/// Partitions of a new data directory. Twice the cores of a laptop, so that one slow decide does not stop everybody; 12 bits at most.
pub const PARTITIONS_DEFAULT: u16 = 8;

/// Letters that one partition hands another at once: one batch there makes them durable together.
pub const LETTERS_PER_DELIVERY_MAX: usize = 64;

/// What users wrote in one delivery of letters; a single larger one goes alone. Bounds what is held in memory on the way.
pub const DELIVERY_BYTES_MAX: usize = 4 << 20;

/// Greatest priority of a workflow; the least is 0.
pub const PRIORITY_MAX: u32 = 9;

/// Priority of a workflow that says none.
pub const PRIORITY_DEFAULT: u32 = 4;

/// Waiting so long outweighs one level of priority. So a ready task of the least priority goes before one of the greatest that became ready
/// `PRIORITY_MAX` times this later (4.5 minutes): nothing of a tenant waits longer behind newer work than that.
pub const PRIORITY_STEP_MS: u64 = 30_000;

/// Greatest weight of a tenant: shares stay whole numbers.
pub const TENANT_WEIGHT_MAX: u32 = 1_000;

/// Generations of workflows that start workflows. A person cannot follow more, and a definition that starts itself ends there.
pub const CHILD_DEPTH_MAX: u32 = 8;

/// Bytes of a concurrency key or of the key of a rate limit, rendered: a name, not a text.
pub const LIMIT_KEY_BYTES_MAX: usize = 255;

/// Holders of one concurrency key, or starts in one period of a rate: an eviction looks at all holders of a key.
pub const LIMIT_MAX: u32 = 10_000;

/// Concurrency keys and rates of one task or workflow, each: they are asked for one after the other.
pub const LIMITS_PER_TASK_MAX: usize = 4;

/// Period of a rate limit: a week.
pub const LIMIT_PERIOD_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// Those that wait for limits or hold them in one partition: about 200 bytes of memory each, 20 MB in all.
pub const LIMIT_CLAIMS_PER_PARTITION_MAX: usize = 100_000;

/// A holder of so long is asked whether it still holds. Letters lose nothing; this bounds what a fault of ours could keep locked.
pub const LIMIT_PROBE_MS: u64 = 3_600_000;

/// Definitions of a tenant that are paused at once: each task that becomes ready looks at them.
pub const PAUSED_SCOPES_MAX: usize = 1_000;

/// Longest wait of a caller until every partition knows of a pause; it comes to know of it all the same.
pub const PAUSE_SPREAD_MS: u64 = 10_000;

/// Holders that are asked at once.
pub const LIMIT_PROBES_MAX: usize = 256;

/// Messages queued towards or from one node before the stream stops reading.
pub const SESSION_QUEUE_MAX: usize = 1_024;

/// Nodes that may be connected to one coordinator.
pub const NODES_MAX: usize = 1_000;

/// SSE readers of one gateway process.
pub const SSE_READERS_MAX: usize = 10_000;

/// Items of one page of a list.
pub const PAGE_ITEMS_MAX: u32 = 500;

/// Items of a page when the caller does not say.
pub const PAGE_ITEMS_DEFAULT: u32 = 50;

/// A segment file of live output before the next one is begun.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_TTL_MS: u64 = 24 * 3_600_000;

/// Shortest time that a caller may ask for: a repetition must have time to come.
pub const IDEMPOTENCY_TTL_MS_MIN: u64 = 1_000;

/// Longest time that a caller may ask for: each key is a row and a timer until then.
pub const IDEMPOTENCY_TTL_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// Length of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// SQL of one query: what a person writes, and a program generates for a chart.
pub const QUERY_SQL_BYTES_MAX: usize = 64 << 10;

/// Parameters of one query.
pub const QUERY_PARAMETERS_MAX: usize = 256;

/// Rows of an answer when the caller does not say: what a terminal shows.
pub const QUERY_ROWS_DEFAULT: u64 = 1_000;

/// Rows of an answer at most. A query aggregates; copying history out is what the archive's own files are for.
pub const QUERY_ROWS_MAX: u64 = 100_000;

/// Rows of an answer, as JSON. The daemon holds an answer in memory while it is sent.
pub const QUERY_ANSWER_BYTES_MAX: u64 = 16 << 20;

/// One row of an answer, as JSON: with its frame's envelope it fits [`QUERY_FRAME_BYTES_MAX`].
pub const QUERY_ROW_BYTES_MAX: usize = 4 << 20;

/// One frame between the daemon and a query process: a row of the journal with its largest payload, or a row of an answer.
pub const QUERY_FRAME_BYTES_MAX: usize = 8 << 20;

/// Time of a query, all in all, when the caller does not say.
pub const QUERY_TIMEOUT_MS_DEFAULT: u64 = 10_000;

/// Longest time of a query: below the 30 s after which the gateway gives up a request.
pub const QUERY_TIMEOUT_MS_MAX: u64 = 25_000;

/// Memory that `DuckDB` may use for one query. It keeps to that for tables and sorts, but not for single values, hence the next one.
pub const QUERY_MEMORY_BYTES: u64 = 256 << 20;

/// What a query's process may have above [`QUERY_MEMORY_BYTES`] before the kernel refuses it memory: code's data, stacks, buffers, an answer's row.
pub const QUERY_PROCESS_MEMORY_BYTES: u64 = 128 << 20;

/// Queries that run at once. Each may use a core and [`QUERY_MEMORY_BYTES`]; more get `overloaded`.
pub const QUERIES_MAX: usize = 4;

/// Queries of one tenant that run at once: nobody takes all of [`QUERIES_MAX`].
pub const QUERIES_PER_TENANT_MAX: usize = 2;

/// Sealed objects that one query reads: their names fit a frame, and opening one costs about a millisecond.
pub const QUERY_OBJECTS_MAX: usize = 4_096;

/// Sealed objects kept on local disk for queries, all tenants together; also what one query may read. The oldest used go first.
pub const QUERY_CACHE_BYTES_MAX: u64 = 2 << 30;

/// Rows of workflows that are not sealed, as they go to a query's process. They are in its memory.
pub const QUERY_TAIL_BYTES_MAX: usize = 64 << 20;

/// Heartbeat of a node.
pub const HEARTBEAT_MS_DEFAULT: u64 = 5_000;

/// Lease of a task. Six heartbeats: one lost packet or a slow fsync does not cost an attempt.
pub const LEASE_MS_DEFAULT: u64 = 30_000;

/// Dead-man deadline of a supervisor: long enough to survive an upgrade that goes wrong, short enough that no work is orphaned for a day.
pub const DEADMAN_MS_DEFAULT: u64 = 3_600_000;

/// Grace between the polite signal and SIGKILL.
pub const CANCEL_GRACE_MS_DEFAULT: u64 = 10_000;

/// Legal holds of one partition. They are in memory, so that removal and erasure see them without a read.
pub const HOLDS_PER_PARTITION_MAX: usize = 10_000;

/// Why a workflow is held, in words.
pub const HOLD_REASON_BYTES_MAX: usize = 1_024;

/// Ended workflows that one batch erases or removes: bounds the size of its commit.
pub const DESTROY_BATCH_MAX: usize = 64;

/// Ended workflows that are sealed together at most.
pub const SEAL_WORKFLOWS_MAX: usize = 1_000;

/// A sealed object as it is written; one workflow with more becomes one object all the same. Small enough to be held in memory and fetched at once.
pub const SEALED_OBJECT_BYTES_MAX: usize = 16 << 20;

/// Bytes per second that sealing and compaction write at most: a share of a laptop's disk that nobody misses.
pub const SEAL_BYTES_PER_S: u64 = 16 << 20;

/// Activations (steps) of one run of code: what a replay goes through and memory holds while it runs. Longer work is cut into children.
pub const ACTIVATIONS_PER_TASK_MAX: usize = 10_000;

/// Operations of one message of a worker: bounds a batch, and is far more than code does between two waits.
pub const RUN_OPS_MAX: usize = 128;

/// Stable key of an activation: a path of names.
pub const ACTIVATION_KEY_BYTES_MAX: usize = 256;

/// Runs that one worker has at once: far more than a process works on, few enough to be queued towards it.
pub const WORKER_SLOTS_MAX: u32 = 16_384;

/// Components that one worker registers.
pub const COMPONENTS_PER_WORKER_MAX: usize = 1_000;

/// Message and hint of a failure of user code: for people to read.
pub const FAULT_BYTES_MAX: usize = 4 << 10;

/// Longest that code sleeps at once: a year. It may sleep again.
pub const RUN_SLEEP_MS_MAX: u64 = 366 * 24 * 3_600_000;

/// Longest that a call waits for the end of a run before it answers with what is known: less than the time that a request may take.
pub const RUN_WAIT_MS_MAX: u64 = 25_000;

// Relations that other code relies on.
const _: () = assert!(
    OUTPUT_CHUNK_BYTES_MAX * 2 <= FRAME_BYTES_MAX,
    "a chunk and its envelope fit a frame"
);
const _: () = assert!(
    STEP_OUTPUTS_BYTES_MAX + STEP_ATTRS_BYTES_MAX + STEP_PROGRESS_BYTES_MAX <= FRAME_BYTES_MAX as u64 / 2,
    "all report files fit one exit frame"
);
const _: () = assert!(
    SIGNAL_BYTES_MAX as u64 == STEP_OUTPUTS_BYTES_MAX,
    "a signal becomes outputs"
);
const _: () = assert!(OUTPUT_LIMIT_BYTES_DEFAULT <= OUTPUT_LIMIT_BYTES_MAX);
const _: () = assert!(
    UPLOAD_BYTES_MAX <= ARTIFACT_BYTES_MAX && UPLOAD_BYTES_MAX <= SUBMIT_UPLOADS_BYTES_MAX,
    "every upload can become the artifact of a workflow"
);
const _: () = assert!(
    LEASE_MS_DEFAULT >= 3 * HEARTBEAT_MS_DEFAULT,
    "a lease outlives two lost heartbeats"
);
const _: () = assert!(PAGE_ITEMS_DEFAULT <= PAGE_ITEMS_MAX);
const _: () = assert!(QUERY_ROWS_DEFAULT <= QUERY_ROWS_MAX && QUERY_TIMEOUT_MS_DEFAULT <= QUERY_TIMEOUT_MS_MAX);
const _: () = assert!(
    QUERY_ROW_BYTES_MAX * 2 <= QUERY_FRAME_BYTES_MAX,
    "a row of an answer fits a frame"
);
const _: () = assert!(
    (QUERY_TAIL_BYTES_MAX as u64) < QUERY_MEMORY_BYTES,
    "unsealed rows leave room to work with them"
);

/// Runs that a schedule makes up for after a pause of the daemon, and times that one backfill asks for: more is a job for a script that looks at the results.
pub const SCHEDULE_CATCH_UP_MAX: usize = 1_000;

/// Runs of a schedule that wait for the one before. Past it, times are left out and counted.
pub const SCHEDULE_QUEUE_MAX: usize = 1_000;

/// Runs of a schedule at once; those beyond wait in its queue, whatever its overlap policy says.
pub const SCHEDULE_RUNNING_MAX: usize = 100;

/// Schedules of one tenant in one partition: all are held in memory.
pub const SCHEDULES_PER_PARTITION_MAX: usize = 10_000;

/// Longest jitter of a schedule: a day.
pub const SCHEDULE_JITTER_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// A time of a schedule that is later than this has been missed, unless the schedule says otherwise.
pub const SCHEDULE_GRACE_MS_DEFAULT: u64 = 60_000;
