//! The OpenAPI 3.1 document, made from the same list as the routes.

use std::collections::BTreeMap;

use gantry_engine::api::{NodeState, TaskState, WorkflowState};
use serde_json::{Map, Value, json};

use crate::dto::OutputLine;
use crate::operation::{Content, Operation, Permission};
use crate::problem::ProblemBody;
use crate::schema::{Schema, of};

/// The document of this version.
#[must_use]
pub fn document(version: &str) -> Value {
    render(&crate::operations::all(), version)
}

pub(crate) fn render(operations: &[Operation], version: &str) -> Value {
    let mut schemas = Schemas::default();
    // Named by records and streams, whose data has no type of its own in the document.
    for (name, schema) in [
        ("WorkflowState", of::<WorkflowState>()),
        ("TaskState", of::<TaskState>()),
        ("NodeState", of::<NodeState>()),
        ("OutputLine", of::<OutputLine>()),
        ("Problem", of::<ProblemBody>()),
    ] {
        schemas.named(name, schema);
    }
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        let entry = describe(operation, &mut schemas);
        paths
            .entry(operation.full_path())
            .or_default()
            .insert(operation.method.as_str().to_ascii_lowercase(), entry);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gantry",
            "version": version,
            "description": "Durable workflows whose steps run in fresh containers. Errors are application/problem+json; each code has a page under /docs/errors.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas.0,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "ab_<id>_<secret>" },
                "header": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
            },
        },
    })
}

#[derive(Default)]
struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    fn named(&mut self, name: &str, schema: Schema) {
        let inline = self.inline(schema);
        self.0.entry(name.to_owned()).or_insert(inline);
    }

    /// A schema in place, and all that it refers to among the components.
    fn inline(&mut self, schema: Schema) -> Value {
        let mut collected = Vec::new();
        schema.collect(&mut collected);
        for (name, schema) in collected {
            self.0
                .entry(name)
                .or_insert_with(|| serde_json::to_value(schema).unwrap_or_default());
        }
        serde_json::to_value(schema.inline()).unwrap_or_default()
    }

    fn content(&mut self, content: &[Content]) -> Value {
        let mut media = Map::new();
        for one in content {
            match one {
                Content::Json(schema) => {
                    media.insert("application/json".to_owned(), json!({ "schema": self.inline(*schema) }))
                }
                Content::Other(name) => media.insert((*name).to_owned(), json!({})),
            };
        }
        Value::Object(media)
    }
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let path = operation
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let text = json!({ "type": "string" });
    path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": text }))
        .chain(
            operation
                .query
                .iter()
                .map(|query| json!({ "name": query.name, "in": "query", "description": query.about, "schema": text })),
        )
        .collect()
}

fn describe(operation: &Operation, schemas: &mut Schemas) -> Value {
    let mut responses = Map::new();
    for (status, content) in &operation.responses {
        let mut response = json!({ "description": reason(*status) });
        if !content.is_empty() {
            response["content"] = schemas.content(content);
        }
        responses.insert(status.to_string(), response);
    }
    let problem = json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
    responses.insert(
        "default".to_owned(),
        json!({ "description": "What went wrong", "content": problem }),
    );

    let mut entry = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters(operation),
        "responses": responses,
    });
    if !operation.body.is_empty() {
        entry["requestBody"] =
            json!({ "required": operation.body_required, "content": schemas.content(&operation.body) });
    }
    match operation.permission() {
        Permission::Public => entry["security"] = json!([]),
        Permission::Needs(resource, verb) => {
            entry["security"] = json!([{ "bearer": [] }, { "header": [] }]);
            entry["x-gantry-permission"] = json!({ "resource": resource.as_str(), "verb": verb.as_str() });
        }
    }
    entry
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Answer")
}
