//! Concurrency keys and rate limits.

use gantry_proto::limits::{LIMIT_KEY_BYTES_MAX, LIMIT_MAX, LIMIT_PERIOD_MS_MAX, LIMITS_PER_TASK_MAX};

use super::names::Scope;
use super::{Check, join};
use crate::spec::definition::{LimitDef, OnLimit};
use crate::spec::source_limits::{ConcurrencyFields, ConcurrencySource, OnRate, RateFields, RateSource};
use crate::spec::template::has_markup;

impl Check<'_> {
    /// Limits of a workflow or a task: concurrency keys, then rates.
    pub(super) fn limits(
        &mut self,
        path: &[String],
        concurrency: Option<&ConcurrencySource>,
        rate: Option<&RateSource>,
        scope: &Scope<'_>,
    ) -> Vec<LimitDef> {
        let mut limits = Vec::new();
        let place = join(path, "concurrency");
        match concurrency {
            None => {}
            Some(ConcurrencySource::One(one)) => limits.extend(self.hold(&place, one, scope)),
            Some(ConcurrencySource::Many(many)) => {
                self.few(&place, many.len());
                for (index, each) in many.iter().enumerate() {
                    limits.extend(self.hold(&join(&place, index), each, scope));
                }
            }
        }
        let place = join(path, "rate_limit");
        match rate {
            None => {}
            Some(RateSource::One(one)) => limits.extend(self.rate(&place, one, scope)),
            Some(RateSource::Many(many)) => {
                self.few(&place, many.len());
                for (index, each) in many.iter().enumerate() {
                    limits.extend(self.rate(&join(&place, index), each, scope));
                }
            }
        }
        limits
    }

    fn few(&mut self, path: &[String], count: usize) {
        if count > LIMITS_PER_TASK_MAX {
            let message = format!("{count} are too many; at most {LIMITS_PER_TASK_MAX} are allowed");
            self.complain(path, message);
        }
    }

    fn hold(&mut self, path: &[String], source: &ConcurrencyFields, scope: &Scope<'_>) -> Option<LimitDef> {
        self.limit_key(path, &source.key, scope);
        Some(LimitDef {
            key: source.key.clone(),
            limit: self.count(&join(path, "limit"), source.limit, u64::from(LIMIT_MAX))?,
            per_ms: None,
            burst: None,
            on_limit: source.on_limit,
        })
    }

    fn rate(&mut self, path: &[String], source: &RateFields, scope: &Scope<'_>) -> Option<LimitDef> {
        self.limit_key(path, &source.key, scope);
        let limit = self.count(&join(path, "limit"), source.limit, u64::from(LIMIT_MAX))?;
        let per_ms = self.duration(&join(path, "per"), &source.per, 1, LIMIT_PERIOD_MS_MAX)?;
        let burst = source.burst;
        Some(LimitDef {
            key: source.key.clone(),
            limit,
            per_ms: Some(per_ms),
            burst: match burst {
                Some(burst) => Some(self.count(&join(path, "burst"), burst, u64::from(limit))?),
                None => None,
            },
            on_limit: match source.on_limit {
                OnRate::Wait => OnLimit::Wait,
                OnRate::Refuse => OnLimit::Refuse,
            },
        })
    }

    fn count(&mut self, path: &[String], value: u64, most: u64) -> Option<u32> {
        let checked = u32::try_from(value).ok().filter(|_| (1..=most).contains(&value));
        let checked = checked.ok_or_else(|| format!("it is {value}; it has to be 1 to {most}"));
        self.checked(path, checked)
    }

    fn limit_key(&mut self, path: &[String], key: &str, scope: &Scope<'_>) {
        let place = join(path, "key");
        if has_markup(key) {
            self.template(&place, key, scope);
        } else if key.is_empty() || key.len() > LIMIT_KEY_BYTES_MAX {
            self.complain(&place, format!("a key has 1 to {LIMIT_KEY_BYTES_MAX} bytes"));
        }
    }

    /// A task that asks for a key that its own workflow holds would wait for ever.
    pub(super) fn own_keys(&mut self, path: &[String], of_workflow: &[LimitDef], of_task: &[LimitDef]) {
        let held = |limit: &&LimitDef| {
            let same = of_workflow
                .iter()
                .find(|own| own.per_ms.is_none() && own.key == limit.key);
            limit.per_ms.is_none() && same.is_some_and(|own| own.limit.min(limit.limit) == 1)
        };
        for limit in of_task.iter().filter(held) {
            let message = format!(
                "its workflow holds the key `{}`, so that this task would wait for ever",
                limit.key
            );
            self.complain(&join(path, "concurrency"), message);
        }
    }
}
