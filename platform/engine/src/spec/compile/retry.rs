//! What happens after a failed attempt.

use gantry_proto::limits::{RETRY_ATTEMPTS_MAX, STEP_TIMEOUT_MS_MAX, WAIT_MS_MAX};
use indexmap::IndexMap;

use super::{Check, ENTRIES_MAX, join};
use crate::spec::definition::{RetryClass, RetryDef, RetryRule};
use crate::spec::retry_source::{RetryFields, RetryOnSource, RetryRuleFields, RetryRuleSource, RetrySource};

const FACTOR_MAX: f64 = 100.0;

impl Check<'_> {
    pub(super) fn retry(&mut self, path: &[String], source: &RetrySource) -> RetryDef {
        let fields = match source {
            RetrySource::Attempts(attempts) => {
                let rule = RetryRule {
                    attempts: self.attempts(path, *attempts),
                    ..RetryRule::default()
                };
                return RetryDef {
                    rule,
                    ..RetryDef::default()
                };
            }
            RetrySource::Full(fields) => fields.as_ref(),
        };
        let RetryFields {
            attempts,
            backoff,
            factor,
            max_backoff,
            jitter,
            max_age,
            on,
            exhausted,
        } = fields;
        let given = RetryRuleFields {
            attempts: Some(*attempts),
            backoff: backoff.clone(),
            factor: *factor,
            max_backoff: max_backoff.clone(),
            jitter: *jitter,
        };
        let rule = self.rule(path, &given, &RetryRule::default());
        let max_age_ms = max_age
            .as_ref()
            .and_then(|value| self.duration(&join(path, "max_age"), value, 1, WAIT_MS_MAX));
        let on_path = join(path, "on");
        let mut exit_codes = None;
        if let Some(codes) = &on.exit_codes {
            let place = join(&on_path, "exit_codes");
            if codes.is_empty() || codes.len() > ENTRIES_MAX {
                self.complain(&place, format!("1 to {ENTRIES_MAX} exit codes may be listed"));
            }
            for (position, code) in codes.iter().enumerate() {
                if !(1..=255).contains(code) {
                    let message = format!("{code} is no exit code of a failure; it lies between 1 and 255");
                    self.complain(&join(&place, position), message);
                }
            }
            exit_codes = Some(codes.iter().filter_map(|code| i32::try_from(*code).ok()).collect());
        }
        let on = self.classes(&on_path, on, &rule);
        RetryDef {
            rule,
            on,
            exit_codes,
            max_age_ms,
            exhausted: exhausted.unwrap_or_default(),
        }
    }

    fn classes(
        &mut self,
        path: &[String],
        on: &RetryOnSource,
        rule: &RetryRule,
    ) -> IndexMap<RetryClass, Option<RetryRule>> {
        let classes = [
            ("exit", RetryClass::Exit, &on.exit),
            ("signal", RetryClass::Signal, &on.signal),
            ("timeout", RetryClass::Timeout, &on.timeout),
            ("oom", RetryClass::Oom, &on.oom),
            ("output_limit", RetryClass::OutputLimit, &on.output_limit),
            ("contract", RetryClass::Contract, &on.contract),
            ("invalid", RetryClass::Invalid, &on.invalid),
        ];
        let mut compiled = IndexMap::new();
        for (name, class, source) in classes {
            match source {
                None | Some(RetryRuleSource::Whether(true)) => {}
                Some(RetryRuleSource::Whether(false)) => {
                    compiled.insert(class, None);
                }
                Some(RetryRuleSource::Rule(fields)) => {
                    compiled.insert(class, Some(self.rule(&join(path, name), fields, rule)));
                }
            }
        }
        compiled
    }

    fn attempts(&mut self, path: &[String], attempts: u64) -> u32 {
        let checked = u32::try_from(attempts).ok();
        let checked = checked.filter(|attempts| (1..=RETRY_ATTEMPTS_MAX).contains(attempts));
        if checked.is_none() {
            self.complain(
                path,
                format!(
                    "{attempts} attempts in all are out of range; it lies between 1 (no retry) and {RETRY_ATTEMPTS_MAX}"
                ),
            );
        }
        checked.unwrap_or(1)
    }

    fn rule(&mut self, path: &[String], fields: &RetryRuleFields, fallback: &RetryRule) -> RetryRule {
        let attempts = fields.attempts.map_or(fallback.attempts, |attempts| {
            self.attempts(&join(path, "attempts"), attempts)
        });
        let backoff = fields.backoff.as_ref();
        let backoff_ms = backoff
            .and_then(|value| self.duration(&join(path, "backoff"), value, 0, STEP_TIMEOUT_MS_MAX))
            .unwrap_or(fallback.backoff_ms);
        let max_backoff = fields.max_backoff.as_ref();
        let max_backoff_ms = max_backoff
            .and_then(|value| self.duration(&join(path, "max_backoff"), value, 0, STEP_TIMEOUT_MS_MAX))
            .unwrap_or_else(|| fallback.max_backoff_ms.max(backoff_ms));
        let factor = fields.factor.unwrap_or(fallback.factor);
        if !(1.0..=FACTOR_MAX).contains(&factor) {
            self.complain(
                &join(path, "factor"),
                format!("{factor} is out of range; a factor lies between 1 and {FACTOR_MAX}"),
            );
        }
        let jitter = fields.jitter.unwrap_or(fallback.jitter);
        if !(0.0..=1.0).contains(&jitter) {
            let message = format!("{jitter} is out of range; jitter lies between 0 and 1");
            self.complain(&join(path, "jitter"), message);
        }
        if max_backoff_ms < backoff_ms {
            self.complain(
                &join(path, "max_backoff"),
                format!("the longest back-off ({max_backoff_ms} ms) is shorter than the first ({backoff_ms} ms)"),
            );
        }
        RetryRule {
            attempts,
            backoff_ms,
            factor,
            max_backoff_ms,
            jitter,
        }
    }
}
