//! Search attributes of a definition.

use gantry_proto::limits::ATTRIBUTES_MAX;
use indexmap::IndexMap;
use serde_json::Value;

use super::names::Scope;
use super::{Check, join};
use crate::spec::attributes::{check_name, typed};
use crate::spec::source::WorkflowSource;
use crate::spec::template::has_markup;

impl Check<'_> {
    pub(super) fn attributes(&mut self, source: &WorkflowSource, scope: &Scope<'_>) -> IndexMap<String, Value> {
        let path = vec!["attributes".to_owned()];
        if source.attributes.len() > ATTRIBUTES_MAX {
            self.complain(
                &path,
                format!(
                    "{} search attributes are too many; at most {ATTRIBUTES_MAX} are allowed",
                    source.attributes.len()
                ),
            );
        }
        let mut attributes = IndexMap::new();
        for (name, value) in &source.attributes {
            let place = join(&path, name);
            if let Err(message) = check_name(name) {
                self.complain_key(&place, message);
            }
            let value = value.value();
            self.values(&place, &value, scope);
            // What has no template in it is known now.
            let text = match &value {
                Value::Object(fields) => fields.get("time").unwrap_or(&Value::Null),
                other => other,
            };
            if !text.as_str().is_some_and(has_markup) {
                self.checked(&place, typed(&value));
            }
            attributes.insert(name.clone(), value);
        }
        attributes
    }
}
