//! Playbooks: versions, validation, comparison, moving them between installations.

use axum::response::Response;
use bytes::Bytes;
use gantry_directory::ManageError;
use gantry_directory::playbooks::{ExportedPlaybook, NewPlaybookVersion, PlaybookVersion};
use gantry_engine::api::{DefinitionView, PlaybookPin};
use gantry_proto::limits::{DEFINITION_BYTES_MAX, PAGE_ITEMS_MAX};
use gantry_proto::{ErrorCode, TenantId};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use similar::TextDiff;

use super::{json, typed};
use crate::call::{GuardedCall, short};
use crate::dto::Paged;
use crate::dto::playbooks::{
    BundledPlaybook, BundledVersion, CreatePlaybookBody, CreatedPlaybookVersion, ImportAnswer, PlaybookBundle,
    PlaybookDiff, PlaybookVersionView, PlaybookView,
};
use crate::problem::Problem;
use crate::serve::Shared;

/// A definition in JSON grows by escaping; twice is ample for anything that a person wrote.
const CREATE_BODY_BYTES_MAX: usize = 2 * DEFINITION_BYTES_MAX + (16 << 10);

/// A bundle is read and written in memory; larger sets are moved playbook by playbook.
const BUNDLE_BYTES_MAX: usize = 16 << 20;

/// Format of bundles.
const BUNDLE_FORMAT: u32 = 1;

/// What the directory says, about a playbook.
fn said(name: &str) -> impl FnOnce(ManageError) -> Problem + '_ {
    move |error| match error {
        ManageError::NotFound => Problem::not_found(&format!("playbook `{}`, or it has no such version", short(name))),
        other => other.into(),
    }
}

/// The text of a definition, however it was sent.
pub(super) fn source_of(definition: Value) -> Result<Bytes, Problem> {
    match definition {
        Value::String(text) => Ok(Bytes::from(text)),
        // JSON is YAML, so an object goes the same way; indented, so that lines in messages mean something.
        Value::Object(object) => Ok(serde_json::to_vec_pretty(&object)
            .map_err(|error| Problem::invalid(error.to_string()))?
            .into()),
        _ => Err(Problem::invalid(
            "`definition` must be a text (YAML or JSON) or an object",
        )),
    }
}

fn digest_of(view: &DefinitionView) -> Result<[u8; 32], Problem> {
    let mut digest = [0; 32];
    hex::decode_to_slice(&view.digest, &mut digest)
        .map_err(|_| Problem::new(ErrorCode::Internal, "the definition has no digest"))?;
    Ok(digest)
}

/// `name` or `name@version`, resolved to what it says now.
pub(super) async fn resolve(
    shared: &Shared,
    tenant: TenantId,
    reference: &str,
) -> Result<(Bytes, PlaybookPin), Problem> {
    let (name, asked) = match reference.rsplit_once('@') {
        None => (reference, None),
        Some((name, number)) => {
            let number = number.parse::<u32>().ok().filter(|number| *number > 0);
            let number = number.ok_or_else(|| {
                Problem::invalid(format!(
                    "`{}` is no playbook version; write `name` or `name@3`",
                    short(reference)
                ))
            })?;
            (name, Some(number))
        }
    };
    let playbook = shared.directory.playbook(tenant, name).await.map_err(said(name))?;
    if playbook.archived_at_ms.is_some() {
        let message = format!("playbook `{name}` is archived and starts nothing");
        return Err(Problem::new(ErrorCode::Conflict, message).hint("restore it first"));
    }
    let found = shared.directory.playbook_source(tenant, name, asked).await;
    let (version, source) = found.map_err(said(name))?;
    let pin = PlaybookPin {
        name: version.name,
        version: version.version,
        asked,
    };
    Ok((Bytes::from(source), pin))
}

fn number(text: &str) -> Result<Option<u32>, Problem> {
    if text == "latest" {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| Problem::not_found(&format!("version `{}`", short(text))))
}

async fn find(call: &GuardedCall, version: Option<u32>) -> Result<(PlaybookVersion, Vec<u8>), Problem> {
    let name = call.text(0);
    let found = call.shared.directory.playbook_source(call.key.tenant, name, version);
    found.await.map_err(said(name))
}

pub(crate) async fn list(call: GuardedCall) -> Result<Response, Problem> {
    let limit = call.limit()?;
    let archived = call.query_as("archived", "`true` or `false`")?.unwrap_or(false);
    let after = call.query("cursor")?;
    let mut found = call
        .shared
        .directory
        .playbooks(call.key.tenant, archived, after, limit + 1)
        .await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(|last| last.name.clone());
    let items = found.into_iter().map(PlaybookView::from).collect();
    json(StatusCode::OK, &Paged::new(items, next_cursor))
}

pub(crate) async fn create(mut call: GuardedCall) -> Result<Response, Problem> {
    let body: CreatePlaybookBody = call.call.json(CREATE_BODY_BYTES_MAX).await?;
    let source = source_of(body.definition)?;
    let view = call.shared.backend.inspect(source.clone()).await?;
    let name = body.name.unwrap_or_else(|| view.name.clone());
    if name.contains('@') {
        return Err(Problem::invalid(
            "a playbook's name has no `@`, which begins the number of a version",
        ));
    }
    let new = NewPlaybookVersion {
        tenant: call.key.tenant,
        digest: digest_of(&view)?,
        description: view.description,
        note: body.note,
        source: source.to_vec(),
        created_by: Some(call.key.id),
        expected: body.expected,
        name: name.clone(),
    };
    let made = call
        .shared
        .directory
        .create_playbook_version(new)
        .await
        .map_err(said(&name))?;
    let status = if made.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let location = format!("/api/v1/playbooks/{name}/versions/{}", made.version.version);
    let answer = CreatedPlaybookVersion {
        version: made.version.into(),
        created: made.created,
    };
    let mut response = json(status, &answer)?;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(crate) async fn validate(mut call: GuardedCall) -> Result<Response, Problem> {
    let body: CreatePlaybookBody = call.call.json(CREATE_BODY_BYTES_MAX).await?;
    let view = call.shared.backend.inspect(source_of(body.definition)?).await?;
    json(StatusCode::OK, &view)
}

pub(crate) async fn get(call: GuardedCall) -> Result<Response, Problem> {
    let name = call.text(0);
    let found = call.shared.directory.playbook(call.key.tenant, name).await;
    json(StatusCode::OK, &PlaybookView::from(found.map_err(said(name))?))
}

async fn set_archived(call: GuardedCall, archive: bool) -> Result<Response, Problem> {
    let name = call.text(0);
    let changed = call
        .shared
        .directory
        .archive_playbook(call.key.tenant, name, archive, Some(call.key.id))
        .await;
    json(StatusCode::OK, &PlaybookView::from(changed.map_err(said(name))?))
}

pub(crate) async fn archive(call: GuardedCall) -> Result<Response, Problem> {
    set_archived(call, true).await
}

pub(crate) async fn restore(call: GuardedCall) -> Result<Response, Problem> {
    set_archived(call, false).await
}

pub(crate) async fn versions(call: GuardedCall) -> Result<Response, Problem> {
    let limit = call.limit()?;
    let before = call.query_as("cursor", "a cursor of this list")?;
    let name = call.text(0);
    let found = call
        .shared
        .directory
        .playbook_versions(call.key.tenant, name, before, limit + 1)
        .await;
    let mut found = found.map_err(said(name))?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(|last| last.version.to_string());
    let items = found.into_iter().map(PlaybookVersionView::from).collect();
    json(StatusCode::OK, &Paged::new(items, next_cursor))
}

pub(crate) async fn version(call: GuardedCall) -> Result<Response, Problem> {
    let (version, _) = find(&call, number(call.text(1))?).await?;
    json(StatusCode::OK, &PlaybookVersionView::from(version))
}

pub(crate) async fn definition(call: GuardedCall) -> Result<Response, Problem> {
    let (_, source) = find(&call, number(call.text(1))?).await?;
    Ok(typed(StatusCode::OK, "text/plain; charset=utf-8", source))
}

pub(crate) async fn outline(call: GuardedCall) -> Result<Response, Problem> {
    let (_, source) = find(&call, number(call.text(1))?).await?;
    let view = call.shared.backend.inspect(source.into()).await?;
    json(StatusCode::OK, &view)
}

pub(crate) async fn diff(call: GuardedCall) -> Result<Response, Problem> {
    let (to, new) = find(&call, call.query_as("to", "a version's number")?).await?;
    let before = call
        .query_as("from", "a version's number")?
        .unwrap_or_else(|| to.version.saturating_sub(1).max(1));
    let (from, old) = find(&call, Some(before)).await?;
    let backend = &call.shared.backend;
    let (a, b) = (
        backend.inspect(old.clone().into()).await?,
        backend.inspect(new.clone().into()).await?,
    );
    let (old, new) = (String::from_utf8_lossy(&old), String::from_utf8_lossy(&new));
    let text = TextDiff::from_lines(old.as_ref(), new.as_ref())
        .unified_diff()
        .context_radius(3)
        .header(
            &format!("{}@{}", from.name, from.version),
            &format!("{}@{}", to.name, to.version),
        )
        .to_string();
    let tasks = |view: &DefinitionView| {
        view.tasks
            .iter()
            .map(|task| (task.name.clone(), task.digest.clone()))
            .collect()
    };
    let (tasks_added, tasks_removed, tasks_changed) = changes(&tasks(&a), &tasks(&b));
    let parameters = |view: &DefinitionView| -> Named {
        let properties = view.parameters.get("properties").and_then(Value::as_object);
        let named = properties.into_iter().flatten();
        named.map(|(name, schema)| (name.clone(), schema.to_string())).collect()
    };
    let (parameters_added, parameters_removed, parameters_changed) = changes(&parameters(&a), &parameters(&b));
    let answer = PlaybookDiff {
        from: from.into(),
        to: to.into(),
        tasks_added,
        tasks_removed,
        tasks_changed,
        parameters_added,
        parameters_removed,
        parameters_changed,
        text,
    };
    json(StatusCode::OK, &answer)
}

/// Names with what tells their contents apart.
type Named = Vec<(String, String)>;

/// Names that only the second has, only the first has, and that both have with another content; each in its own order.
fn changes(a: &Named, b: &Named) -> (Vec<String>, Vec<String>, Vec<String>) {
    let find = |list: &Named, name: &str| list.iter().find(|each| each.0 == name).map(|each| each.1.clone());
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    for (name, content) in b {
        match find(a, name) {
            None => added.push(name.clone()),
            Some(before) if before != *content => changed.push(name.clone()),
            Some(_) => {}
        }
    }
    let removed = a.iter().filter(|(name, _)| find(b, name).is_none());
    (added, removed.map(|(name, _)| name.clone()).collect(), changed)
}

pub(crate) async fn export(call: GuardedCall) -> Result<Response, Problem> {
    let directory = &call.shared.directory;
    let tenant = call.key.tenant;
    let mut names: Vec<String> = call.query_all("name").map(ToOwned::to_owned).collect();
    if names.is_empty() {
        let mut after: Option<String> = None;
        loop {
            let page = directory
                .playbooks(tenant, false, after.as_deref(), PAGE_ITEMS_MAX)
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            names.extend(page.into_iter().map(|playbook| playbook.name));
        }
    }
    let mut bytes = 0;
    let mut playbooks = Vec::with_capacity(names.len());
    for name in names {
        let latest = directory.playbook(tenant, &name).await.map_err(said(&name))?.latest;
        let mut versions = Vec::new();
        for number in 1..=latest {
            let found = directory.playbook_source(tenant, &name, Some(number)).await;
            let (version, source) = found.map_err(said(&name))?;
            bytes += source.len();
            if bytes > BUNDLE_BYTES_MAX / 2 {
                let message = format!("these playbooks have more than {} bytes", BUNDLE_BYTES_MAX / 2);
                return Err(Problem::new(ErrorCode::TooLarge, message).hint("export fewer at once: `?name=...`"));
            }
            versions.push(BundledVersion {
                version: version.version,
                definition: String::from_utf8_lossy(&source).into_owned(),
                note: version.note,
                created_at_ms: version.created_at_ms,
            });
        }
        playbooks.push(BundledPlaybook { name, versions });
    }
    let bundle = PlaybookBundle {
        format: BUNDLE_FORMAT,
        playbooks,
    };
    json(StatusCode::OK, &bundle)
}

pub(crate) async fn import(mut call: GuardedCall) -> Result<Response, Problem> {
    let bundle: PlaybookBundle = call.call.json(BUNDLE_BYTES_MAX).await?;
    if bundle.format != BUNDLE_FORMAT {
        let message = format!(
            "the bundle has format {}; this version reads format {BUNDLE_FORMAT}",
            bundle.format
        );
        return Err(Problem::invalid(message));
    }
    let mut playbooks = Vec::with_capacity(bundle.playbooks.len());
    for playbook in bundle.playbooks {
        let mut versions = Vec::with_capacity(playbook.versions.len());
        for each in playbook.versions {
            let source = Bytes::from(each.definition);
            // What does not compile here would not run here.
            let view = call
                .shared
                .backend
                .inspect(source.clone())
                .await
                .map_err(|mut refusal| {
                    refusal.message = format!("`{}@{}`: {}", short(&playbook.name), each.version, refusal.message);
                    refusal
                })?;
            let version = PlaybookVersion {
                name: playbook.name.clone(),
                version: each.version,
                digest: digest_of(&view)?,
                description: view.description,
                note: each.note,
                created_at_ms: each.created_at_ms,
                created_by: None,
            };
            versions.push((version, source.to_vec()));
        }
        playbooks.push(ExportedPlaybook {
            name: playbook.name,
            versions,
        });
    }
    let added = call
        .shared
        .directory
        .import_playbooks(call.key.tenant, playbooks, Some(call.key.id))
        .await?;
    json(StatusCode::OK, &ImportAnswer { versions_added: added })
}

#[cfg(test)]
mod tests {
    use super::changes;

    fn list(items: &[(&str, &str)]) -> super::Named {
        items
            .iter()
            .map(|(name, digest)| ((*name).into(), (*digest).into()))
            .collect()
    }

    #[test]
    fn added_removed_and_changed_are_told_apart() {
        let (added, removed, changed) = changes(
            &list(&[("a", "1"), ("b", "1"), ("c", "1")]),
            &list(&[("d", "1"), ("c", "2"), ("a", "1")]),
        );
        assert_eq!(
            (added, removed, changed),
            (vec!["d".to_owned()], vec!["b".to_owned()], vec!["c".to_owned()])
        );
    }
}
