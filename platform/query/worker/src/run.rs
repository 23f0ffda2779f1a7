//! The way of a query through this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use duckdb::arrow::array::RecordBatch;
use duckdb::types::Value;
use duckdb::{Connection, InterruptHandle, Statement, params_from_iter};
use gantry_proto::limits::{QUERY_PROCESS_MEMORY_BYTES, QUERY_ROW_BYTES_MAX};
use gantry_proto::v1::query_input::Kind as Input;
use gantry_proto::v1::query_output::Kind as Output;
use gantry_proto::v1::query_parameter::Value as Given;
use gantry_proto::v1::{QueryEnd, QueryFault, QueryHead, QueryOrder, QueryParameter, QueryResultColumn, QueryRows};

use crate::channel::Channel;
use crate::database::Database;
use crate::failure::Failure;
use crate::{confine, json, kinds, tables};

/// Rows that are sent together.
const ROWS_FRAME_BYTES: usize = 256 << 10;

/// Takes the order and answers it; what remains to be sent is the end.
pub(crate) fn answer(channel: &mut Channel) -> Result<QueryEnd, Failure> {
    let Input::Order(order) = channel.receive()? else {
        return Err(Failure::internal("the daemon did not begin with an order"));
    };
    confine::confine(order.memory_bytes + QUERY_PROCESS_MEMORY_BYTES, order.timeout_ms)?;
    // `/` once confined.
    let directory = std::env::current_dir()
        .map_err(|error| Failure::internal(format!("the working directory is unknown: {error}")))?
        .to_string_lossy()
        .trim_end_matches('/')
        .to_owned();
    let database = Database::open(order.memory_bytes)?;
    let connection = database.connection();
    tables::create_tails(connection, &order.tables)?;
    loop {
        match channel.receive()? {
            Input::Tail(tail) => tables::append(connection, &order.tables, &tail)?,
            Input::Start(_) => break,
            Input::Order(_) => return Err(Failure::internal("a second order")),
        }
    }
    tables::create_views(connection, &order.tables)?;
    database.lock(&format!("{directory}/{}/", tables::FILES))?;
    let watch = Watch::start(connection.interrupt_handle(), Duration::from_millis(order.timeout_ms))?;
    let answered = database
        .check(&order.sql)
        .and_then(|()| select(channel, connection, &order));
    let late = watch.stop();
    answered.map_err(|failure| {
        // A message may name a path although it must not: the one that means something on this machine is left out.
        let message = if directory.is_empty() {
            failure.message
        } else {
            failure.message.replace(&directory, "")
        };
        let fault = if late { QueryFault::Timeout } else { failure.fault };
        Failure {
            message: if late {
                format!("it ran longer than {} ms", order.timeout_ms)
            } else {
                message
            },
            fault,
            position: failure.position.filter(|_| !late),
        }
    })
}

fn select(channel: &mut Channel, connection: &Connection, order: &QueryOrder) -> Result<QueryEnd, Failure> {
    let mut statement = connection.prepare(&order.sql)?;
    let values = values(&statement, &order.parameters)?;
    // Only started: rows are made as they are asked for. The iterator that this returns panics on errors; `step` returns them.
    drop(statement.stream_arrow(params_from_iter(values))?);
    let columns = (0..statement.column_count())
        .map(|index| {
            Ok(QueryResultColumn {
                name: statement.column_name(index)?.clone(),
                r#type: kinds::name(&statement.column_logical_type(index)),
            })
        })
        .collect::<Result<_, duckdb::Error>>()?;
    send(channel, Output::Head(QueryHead { columns }))?;

    let (mut sent_rows, mut sent_bytes) = (0u64, 0u64);
    let mut waiting = QueryRows::default();
    let mut waiting_bytes = 0;
    let mut end = QueryEnd {
        more_rows: false,
        more_bytes: false,
    };
    'answer: while let Some(array) = statement.step()? {
        let batch = RecordBatch::from(&array);
        for index in 0..batch.num_rows() {
            if sent_rows == order.rows_max {
                end.more_rows = true;
                break 'answer;
            }
            let row = json::row(&batch, index)
                .map_err(|error| Failure::new(QueryFault::Failed, format!("a value cannot be written: {error}")))?;
            if row.len() > QUERY_ROW_BYTES_MAX {
                return Err(Failure::new(
                    QueryFault::Failed,
                    format!(
                        "row {} has {} bytes, the limit is {QUERY_ROW_BYTES_MAX}",
                        sent_rows + 1,
                        row.len()
                    ),
                ));
            }
            if sent_bytes + row.len() as u64 > order.bytes_max {
                end.more_bytes = true;
                break 'answer;
            }
            sent_rows += 1;
            sent_bytes += row.len() as u64;
            waiting_bytes += row.len();
            waiting.rows.push(row);
            if waiting_bytes >= ROWS_FRAME_BYTES {
                send(channel, Output::Rows(std::mem::take(&mut waiting)))?;
                waiting_bytes = 0;
            }
        }
    }
    if !waiting.rows.is_empty() {
        send(channel, Output::Rows(waiting))?;
    }
    Ok(end)
}

fn send(channel: &mut Channel, kind: Output) -> Result<(), Failure> {
    channel
        .send(kind)
        .map_err(|error| Failure::internal(format!("the answer cannot be sent: {error}")))
}

/// A value for each parameter of the statement, by name; a position is a name too.
fn values(statement: &Statement<'_>, parameters: &[QueryParameter]) -> Result<Vec<Value>, Failure> {
    let invalid = |message: String| Failure::new(QueryFault::Invalid, message);
    let mut given: BTreeMap<&str, &QueryParameter> = parameters.iter().map(|each| (each.name.as_str(), each)).collect();
    let mut values = Vec::new();
    for index in 1..=statement.parameter_count() {
        let name = statement.parameter_name(index)?;
        let parameter = given.remove(name.as_str()).ok_or_else(|| {
            invalid(format!(
                "the statement has a parameter `{name}`, and no value is given for it"
            ))
        })?;
        values.push(match &parameter.value {
            None => Value::Null,
            Some(Given::Truth(value)) => Value::Boolean(*value),
            Some(Given::Whole(value)) => Value::BigInt(*value),
            Some(Given::Number(value)) => Value::Double(*value),
            Some(Given::Text(value)) => Value::Text(value.clone()),
        });
    }
    match given.keys().next() {
        None => Ok(values),
        Some(name) => Err(invalid(format!(
            "a value is given for `{name}`, which the statement does not have"
        ))),
    }
}

/// Interrupts the query when its time is over.
struct Watch {
    over: mpsc::Sender<()>,
    late: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Watch {
    fn start(handle: Arc<InterruptHandle>, limit: Duration) -> Result<Self, Failure> {
        let (over, wait) = mpsc::channel();
        let late = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&late);
        let thread = thread::Builder::new()
            .stack_size(64 << 10)
            .spawn(move || {
                if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    set.store(true, Ordering::SeqCst);
                    handle.interrupt();
                }
            })
            .map_err(|error| Failure::internal(format!("no thread can be started: {error}")))?;
        Ok(Self { over, late, thread })
    }

    /// Whether the time was over before this.
    fn stop(self) -> bool {
        // It is gone already when the time was over.
        let _ = self.over.send(());
        let _ = self.thread.join();
        self.late.load(Ordering::SeqCst)
    }
}
