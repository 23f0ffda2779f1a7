//! Runs the code of one run: polls it, and sends out what it did whenever it waits or has ended.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Poller, Poll};

use gantry_proto::v1::{RaiseOp, RetryPolicy, ReturnOp, StepOp, step_op};
use tokio::sync::oneshot;

use crate::context::{Answer, Outgoing};
use crate::{Context, Outcome};

/// Where a run's operations go.
pub(crate) trait Outlet {
    /// Takes one message's worth; `last` when the run needs no slot from here on.
    fn send(&self, ops: Vec<Outgoing>, last: bool);
}

/// The code of a run, until its last message is sent; then the answer to that.
pub(crate) struct Driver<O> {
    pub(crate) code: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    pub(crate) context: Context,
    pub(crate) outlet: O,
    pub(crate) retry: (u32, u64),
}

impl<O: Outlet + Unpin> Future for Driver<O> {
    type Output = Option<oneshot::Receiver<Answer>>;

    fn poll(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Self::Output> {
        let outcome = self.code.as_mut().poll(poller);
        let mut ops = self.context.take();
        match outcome {
            Poll::Pending => {
                // A sleep ends the lease with its message.
                let sleeps = ops
                    .iter()
                    .any(|each| matches!(each.op.kind, Some(step_op::Kind::Sleep(_))));
                if !ops.is_empty() {
                    self.outlet.send(ops, sleeps);
                }
                Poll::Pending
            }
            Poll::Ready(outcome) => {
                let kind = match outcome {
                    Ok(output) => step_op::Kind::Return(ReturnOp { output }),
                    Err(failure) => {
                        let (attempts, backoff_ms) = self.retry;
                        step_op::Kind::Raise(RaiseOp {
                            retry: failure.retry.then_some(RetryPolicy {
                                attempts,
                                backoff_ms,
                                factor_percent: 200,
                                max_backoff_ms: 60_000,
                            }),
                            fault: failure.fault,
                        })
                    }
                };
                let (answer, told) = oneshot::channel();
                ops.push(Outgoing {
                    op: StepOp { kind: Some(kind) },
                    answer,
                });
                self.outlet.send(ops, true);
                Poll::Ready(Some(told))
            }
        }
    }
}
