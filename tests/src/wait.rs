//! Waiting for a condition with a deadline. The interval is how often somebody else's state is looked at; nothing is assumed to be done after a time.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until `look` gives a value. An error of `look` ends the wait; after `deadline` the error says what was waited for.
pub async fn until<T>(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = look().await? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("waited {deadline:?} in vain for {what}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
