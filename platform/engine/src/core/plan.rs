//! From definition to plan: templates rendered, inputs resolved. What fails here fails the step, not the engine.

use bytes::Bytes;
use gantry_proto::v1::{self, Payload, Plan};
use gantry_proto::{ErrorCode, limits};
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::body::Body;
use super::flow::failure;
use super::inputs::inputs;
use super::state::{PartitionState, Task, TaskRef, Workflow};
use super::trace::traceparent;
use crate::spec;
use crate::spec::definition::{RunDef, StepDef, TaskDef, WorkspaceSourceDef};

/// Why a plan cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct PlanFault {
    /// What programs match on.
    pub(crate) code: ErrorCode,
    /// What is wrong.
    pub(crate) message: String,
}

impl PlanFault {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// blake3 of the encoded plan.
pub(super) fn digest(plan: &Plan) -> Bytes {
    Bytes::copy_from_slice(blake3::hash(&plan.encode_to_vec()).as_bytes())
}

/// The plan of a task's current step, for its next attempt.
pub(super) fn build(state: &PartitionState, reference: TaskRef) -> Result<Plan, PlanFault> {
    let gone = || PlanFault::new(ErrorCode::Internal, "the definition of the workflow cannot be read");
    let workflow = state.workflows.get(&reference.0).ok_or_else(gone)?;
    let body = workflow.body.as_deref().ok_or_else(gone)?;
    let position = reference.1 as usize;
    let task = workflow.tasks.get(position).ok_or_else(gone)?;
    let (name, definition) = workflow.definition(position).ok_or_else(gone)?;
    let (index, row) = task.row.current().ok_or_else(gone)?;
    let step = definition.steps.get(index).ok_or_else(gone)?;
    let attempt = row.attempts.last().map_or(0, |last| last.attempt) + 1;
    let scope = scope(workflow, position, attempt);
    let render = |what: &str, template: &str| {
        spec::render(template, &scope).map_err(|error| {
            PlanFault::new(
                ErrorCode::TemplateError,
                format!("{what} of step `{}`: {error}", step.key),
            )
        })
    };

    let command = command(step, &render)?;
    let mut env = Vec::with_capacity(step.env.len());
    let mut env_bytes = 0usize;
    let changed = task.changes.as_deref().map(|changes| &changes.env);
    for (key, template) in &step.env {
        if changed.is_some_and(|changed| changed.contains_key(key)) {
            continue;
        }
        let value = render(&format!("env `{key}`"), template)?;
        env_bytes += key.len() + value.len();
        env.push(v1::EnvVar {
            name: key.clone(),
            value,
        });
    }
    for (name, value) in changed.into_iter().flatten() {
        env_bytes += name.len() + value.len();
        env.push(v1::EnvVar {
            name: name.clone(),
            value: value.clone(),
        });
    }
    for (name, value) in own_env(workflow, task, definition) {
        env_bytes += name.len() + value.len();
        env.push(v1::EnvVar {
            name: name.to_owned(),
            value,
        });
    }
    if env_bytes > limits::STEP_ENV_BYTES_MAX {
        let message = format!(
            "the environment of step `{}` has {env_bytes} bytes; the limit is {}",
            step.key,
            limits::STEP_ENV_BYTES_MAX
        );
        return Err(PlanFault::new(ErrorCode::TooLarge, message));
    }
    // The tree is built once per task, and so are its inputs.
    let inputs = if index == 0 {
        inputs(workflow, body, &definition.inputs)?
    } else {
        Vec::new()
    };
    Ok(Plan {
        image: render("image", &step.image)?,
        command,
        env,
        workdir: step
            .workdir
            .as_deref()
            .map(|template| render("workdir", template))
            .transpose()?,
        timeout_ms: step.timeout_ms,
        grace_ms: step.grace_ms,
        resources: v1::Resources {
            cpu_millis: step.resources.cpu_millis,
            memory_bytes: step.resources.memory_bytes,
            pids: step.resources.pids,
            tmp_bytes: step.resources.tmp_bytes,
        },
        workspace: v1::WorkspacePlan {
            sources: sources(workflow, body, position, &render)?,
        },
        inputs,
        artifact_globs: step.artifacts.iter().map(|artifact| artifact.glob.clone()).collect(),
        outputs: step.outputs.clone(),
        task_name: name.to_owned(),
        step_key: step.key.clone(),
        // Stable over attempts: one step of one task of one workflow. A round that was asked for is to do it once more.
        idempotency_key: match task.row.round {
            0 => format!("{}.{index}", task.row.id),
            round => format!("{}.{index}.{round}", task.row.id),
        },
        traceparent: Some(traceparent(
            workflow.row.traceparent.as_deref(),
            workflow.row.id,
            task.row.id,
            index,
            attempt,
        )),
        last: index + 1 == definition.steps.len(),
        output_limit_bytes: step.output_limit_bytes,
        required_artifacts: step
            .artifacts
            .iter()
            .filter(|each| each.required)
            .map(|each| each.glob.clone())
            .collect(),
    })
}

/// Variables that say why a step runs.
fn own_env(workflow: &Workflow, task: &Task, definition: &TaskDef) -> Vec<(&'static str, String)> {
    let mut env = Vec::new();
    if definition.assess.is_some() {
        let feedback = task.feedback.as_deref().unwrap_or_default();
        env.push(("GANTRY_REWORK", task.row.round.to_string()));
        env.push(("GANTRY_FEEDBACK", feedback.replace('\0', "")));
    }
    if task.row.handles.is_some() {
        let failure = failure(workflow);
        let names = [
            ("GANTRY_FAILURE_CODE", "code"),
            ("GANTRY_FAILURE_MESSAGE", "message"),
            ("GANTRY_FAILURE_TASK", "task"),
            ("GANTRY_FAILURE_TASK_CODE", "task_code"),
        ];
        // A process cannot be given a zero byte.
        let text = |field: &str| failure[field].as_str().unwrap_or_default().replace('\0', "");
        env.extend(names.map(|(name, field)| (name, text(field))));
    }
    env
}

type Render<'a> = dyn Fn(&str, &str) -> Result<String, PlanFault> + 'a;

fn command(step: &StepDef, render: &Render<'_>) -> Result<v1::Command, PlanFault> {
    let command = match &step.run {
        RunDef::Shell(script) => v1::Command {
            shell: Some(render("run", script)?),
            argv: Vec::new(),
        },
        RunDef::Argv(argv) => {
            let argv = argv.iter().map(|each| render("run", each)).collect::<Result<_, _>>()?;
            v1::Command { shell: None, argv }
        }
    };
    let bytes = command.shell.as_ref().map_or(0, String::len) + command.argv.iter().map(String::len).sum::<usize>();
    if bytes > limits::COMMAND_BYTES_MAX {
        let message = format!(
            "the command of step `{}` has {bytes} bytes; the limit is {}",
            step.key,
            limits::COMMAND_BYTES_MAX
        );
        return Err(PlanFault::new(ErrorCode::TooLarge, message));
    }
    Ok(command)
}

fn sources(
    workflow: &Workflow,
    body: &Body,
    position: usize,
    render: &Render<'_>,
) -> Result<Vec<v1::WorkspaceSource>, PlanFault> {
    use v1::workspace_source::Kind;
    let mut sources = Vec::new();
    let definition = workflow.definition(position);
    for each in definition.iter().flat_map(|(_, task)| &task.workspace) {
        let kind = match &each.source {
            WorkspaceSourceDef::Git { url, reference, depth } => Kind::Git(v1::GitSource {
                url: render("workspace", url)?,
                r#ref: reference
                    .as_deref()
                    .map(|template| render("workspace", template))
                    .transpose()?,
                depth: *depth,
            }),
            WorkspaceSourceDef::Path(path) => Kind::LocalPath(render("workspace", path)?),
            WorkspaceSourceDef::From(name) => {
                let source = body
                    .definition
                    .tasks
                    .get_index_of(name.as_str())
                    .and_then(|index| workflow.tasks.get(index));
                let source = source.ok_or_else(|| {
                    PlanFault::new(
                        ErrorCode::WorkspaceRefused,
                        format!("there is no task `{name}` to take a workspace from"),
                    )
                })?;
                Kind::FromTask(source.row.id)
            }
        };
        sources.push(v1::WorkspaceSource {
            name: each.name.clone(),
            kind: Some(kind),
        });
    }
    Ok(sources)
}

/// Outputs of a task: those of its steps, later ones win, then its own (those of its child, of a signal, of a decision); or the outputs of its items, in order.
fn outputs(workflow: &Workflow, task: &Task) -> Map<String, Value> {
    if task.row.fan_seq.is_some() {
        let items = workflow.items(task.row.index);
        let outputs = items.map(|item| Value::Object(outputs(workflow, item))).collect();
        return Map::from_iter([("items".to_owned(), outputs)]);
    }
    let mut merged = Map::new();
    for result in task.results.iter().chain([&task.result]).flatten() {
        merged.extend(result.outputs.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    merged
}

fn task_scope(workflow: &Workflow, task: &Task) -> Value {
    let mut scope = json!({
        "outputs": outputs(workflow, task),
        "state": task.row.state().text(),
        "code": task.row.end_code.as_deref().unwrap_or_default(),
    });
    if task.row.fan_seq.is_some() {
        let items = workflow
            .items(task.row.index)
            .zip(task.items.iter().flat_map(|items| items.iter()));
        scope["items"] = items
            .map(|(item, value)| json!({ "item": value, "outputs": outputs(workflow, item), "state": item.row.state().text() }))
            .collect();
    }
    scope
}

/// What a task may read before any step of it has run.
pub(super) fn roots(workflow: &Workflow, position: usize) -> Map<String, Value> {
    let mut roots = Map::new();
    let Some((body, task)) = workflow.body.as_deref().zip(workflow.tasks.get(position)) else {
        return roots;
    };
    let tasks: Map<String, Value> = body
        .ancestors(workflow.origin(position))
        .into_iter()
        .map(|index| {
            (
                workflow.tasks[index].row.name.clone(),
                task_scope(workflow, &workflow.tasks[index]),
            )
        })
        .collect();
    let mut params = body.parameters.clone();
    if let Some(changes) = &task.changes {
        params.extend(changes.params.clone());
    }
    roots.insert("params".to_owned(), Value::Object(params));
    roots.insert("tasks".to_owned(), Value::Object(tasks));
    roots.insert(
        "workflow".to_owned(),
        json!({ "id": workflow.row.id.to_string(), "name": workflow.row.name }),
    );
    roots.insert("task".to_owned(), json!({ "name": task.row.name }));
    if task.row.handles.is_some() {
        roots.insert("failure".to_owned(), failure(workflow));
    }
    let definition = workflow.definition(position);
    if definition.is_some_and(|(_, definition)| definition.assess.is_some()) {
        let feedback = task.feedback.as_deref().unwrap_or_default();
        roots.insert(
            "rework".to_owned(),
            json!({ "round": task.row.round, "feedback": feedback }),
        );
    }
    if let Some((index, value)) = task.row.item.zip(item(workflow, task)) {
        roots.insert("item_index".to_owned(), json!(index));
        roots.insert("item".to_owned(), value.clone());
    }
    roots
}

/// Renders a template over [`roots`].
pub(super) fn render(workflow: &Workflow, position: usize, template: &str) -> Result<String, spec::RenderError> {
    spec::render(template, &Value::Object(roots(workflow, position)))
}

/// Renders a template over what a task may read whose steps are done.
pub(super) fn render_done(workflow: &Workflow, position: usize, template: &str) -> Result<String, spec::RenderError> {
    spec::render(template, &Value::Object(with_steps(workflow, position)))
}

/// What a step may read.
fn scope(workflow: &Workflow, position: usize, attempt: u32) -> Value {
    let mut scope = with_steps(workflow, position);
    scope.insert("attempt".to_owned(), json!(attempt));
    Value::Object(scope)
}

/// What is there when some steps are done.
fn with_steps(workflow: &Workflow, position: usize) -> Map<String, Value> {
    let task = &workflow.tasks[position];
    let definition = workflow.definition(position);
    let keys = definition
        .iter()
        .flat_map(|(_, task)| &task.steps)
        .map(|step| &step.key);
    let steps: Map<String, Value> = keys
        .zip(&task.results)
        .filter_map(|(key, result)| Some((key.clone(), json!({ "outputs": result.as_ref()?.outputs }))))
        .collect();
    let mut scope = roots(workflow, position);
    scope.insert("steps".to_owned(), Value::Object(steps));
    scope
}

/// The value that a task is the item of.
pub(crate) fn item<'w>(workflow: &'w Workflow, task: &Task) -> Option<&'w Value> {
    let parent = workflow.tasks.get(task.row.origin? as usize)?;
    // The list of items of before is not kept.
    let current = parent.row.first_item.is_some_and(|first| task.row.index >= first);
    parent.items.as_ref().filter(|_| current)?.get(task.row.item? as usize)
}

/// The input of a task of code among other tasks: its texts are templates.
pub(super) fn code_input(state: &PartitionState, reference: TaskRef) -> Result<Bytes, PlanFault> {
    let gone = || PlanFault::new(ErrorCode::Internal, "the definition of the workflow cannot be read");
    let workflow = state.workflows.get(&reference.0).ok_or_else(gone)?;
    let position = reference.1 as usize;
    let (name, definition) = workflow.definition(position).ok_or_else(gone)?;
    let code = definition.code().ok_or_else(gone)?;
    let failures = workflow.tasks[position].row.code_failures.unwrap_or(0);
    let scope = scope(workflow, position, failures + 1);
    let input = rendered(&code.input, &scope)
        .map_err(|error| PlanFault::new(ErrorCode::TemplateError, format!("input of task `{name}`: {error}")))?;
    let json = input.to_string();
    if json.len() > limits::PARAMETERS_BYTES_MAX {
        let message = format!(
            "the input of task `{name}` has {} bytes; the limit is {}",
            json.len(),
            limits::PARAMETERS_BYTES_MAX
        );
        return Err(PlanFault::new(ErrorCode::TooLarge, message));
    }
    Ok(json.into())
}

fn rendered(value: &Value, scope: &Value) -> Result<Value, String> {
    Ok(match value {
        Value::String(template) => Value::String(spec::render(template, scope).map_err(|error| error.to_string())?),
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| rendered(item, scope))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|(key, item)| Ok((key.clone(), rendered(item, scope)?)));
            Value::Object(members.collect::<Result<_, String>>()?)
        }
        other => other.clone(),
    })
}

/// Stored files of a task, in the order of its steps.
pub(crate) fn artifacts(task: &Task) -> impl Iterator<Item = &v1::Artifact> {
    task.results.iter().flatten().flat_map(|result| &result.artifacts)
}

/// The workflow's own outputs, once every task has completed.
pub(super) fn workflow_outputs(workflow: &Workflow) -> Result<Option<Payload>, PlanFault> {
    let Some(body) = workflow.body.as_deref() else {
        return Ok(None);
    };
    if body.definition.outputs.is_empty() {
        return Ok(None);
    }
    let tasks: Map<String, Value> = workflow
        .tasks
        .iter()
        .filter(|task| task.row.origin.is_none())
        .map(|task| (task.row.name.clone(), task_scope(workflow, task)))
        .collect();
    let scope = json!({
        "params": body.parameters,
        "tasks": tasks,
        "workflow": { "id": workflow.row.id.to_string(), "name": workflow.row.name },
    });
    let mut outputs = Map::new();
    let mut bytes = 0usize;
    for (name, template) in &body.definition.outputs {
        let value = spec::render(template, &scope).map_err(|error| {
            PlanFault::new(
                ErrorCode::TemplateError,
                format!("output `{name}` of the workflow: {error}"),
            )
        })?;
        bytes += name.len() + value.len();
        outputs.insert(name.clone(), Value::String(value));
    }
    if bytes as u64 > limits::STEP_OUTPUTS_BYTES_MAX {
        let message = format!(
            "the outputs of the workflow have {bytes} bytes; the limit is {}",
            limits::STEP_OUTPUTS_BYTES_MAX
        );
        return Err(PlanFault::new(ErrorCode::TooLarge, message));
    }
    let json = Value::Object(outputs).to_string().into_bytes();
    Ok(Some(Payload {
        outputs_json: Some(json.into()),
        ..Payload::default()
    }))
}
