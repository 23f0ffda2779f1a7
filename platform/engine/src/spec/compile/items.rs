//! A task over a list.

use gantry_proto::limits::TASKS_PER_WORKFLOW_MAX;
use serde_json::Value;

use super::names::Scope;
use super::{Check, join};
use crate::spec::definition::{FanOutDef, Tolerated};
use crate::spec::source::{ListSource, TaskSource, ToleratedSource};
use crate::spec::template::is_expression;

impl Check<'_> {
    pub(super) fn items(&mut self, path: &[String], source: &TaskSource, scope: &Scope<'_>) -> Option<FanOutDef> {
        let Some(list) = &source.for_each else {
            let given = [
                ("max_parallel", source.max_parallel.is_some()),
                ("on_item_failure", source.on_item_failure.is_some()),
                ("tolerated_failures", source.tolerated_failures.is_some()),
            ];
            for (field, _) in given.iter().filter(|(_, given)| *given) {
                self.complain_key(&join(path, field), format!("`{field}` goes with `for_each`"));
            }
            return None;
        };
        let place = join(path, "for_each");
        let items = match list {
            ListSource::Expression(text) => {
                if !is_expression(text) {
                    let message =
                        "`for_each` is one expression that gives a list, such as `{{ params.files }}`, or a list";
                    self.complain(&place, message);
                }
                Value::String(text.clone())
            }
            ListSource::Items(items) => {
                if items.len() > TASKS_PER_WORKFLOW_MAX {
                    let message = format!(
                        "{} items are too many; at most {TASKS_PER_WORKFLOW_MAX} are allowed",
                        items.len()
                    );
                    self.complain(&place, message);
                }
                Value::Array(items.clone())
            }
        };
        self.values(&place, &items, scope);
        let max_parallel = source.max_parallel.and_then(|limit| {
            let checked = u32::try_from(limit).ok().filter(|limit| *limit > 0);
            let checked = checked.ok_or_else(|| format!("`max_parallel` is {limit}; it is 1 or more"));
            self.checked(&join(path, "max_parallel"), checked)
        });
        let tolerated = source.tolerated_failures.as_ref();
        let tolerated =
            tolerated.and_then(|source| self.checked(&join(path, "tolerated_failures"), tolerated_of(source)));
        Some(FanOutDef {
            items,
            max_parallel,
            on_failure: source.on_item_failure.unwrap_or_default(),
            tolerated: tolerated.unwrap_or_default(),
        })
    }
}

fn tolerated_of(source: &ToleratedSource) -> Result<Tolerated, String> {
    match source {
        ToleratedSource::Items(items) => u32::try_from(*items)
            .map(Tolerated::Items)
            .map_err(|_| format!("{items} are more than any list has")),
        ToleratedSource::Percent(text) => {
            let number = text
                .trim()
                .strip_suffix('%')
                .and_then(|number| number.trim().parse::<u32>().ok());
            number
                .filter(|percent| *percent <= 100)
                .map(Tolerated::Percent)
                .ok_or_else(|| format!("`{text}` is no number of items; write it as 3 or as 10%"))
        }
    }
}
