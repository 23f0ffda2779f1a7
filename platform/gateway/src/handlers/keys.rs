//! API keys and node tokens.

use axum::response::Response;
use gantry_directory::{NewKey, NewNodeToken};
use http::StatusCode;
use secrecy::ExposeSecret;

use super::{json, secret};
use crate::call::{GuardedCall, SMALL_BODY_BYTES_MAX};
use crate::dto::{CreateKeyBody, CreateNodeTokenBody, CreatedKey, CreatedNodeToken, KeyView, NodeTokenView, Paged};
use crate::problem::Problem;

/// A page from one item more than it holds: the extra one tells that there is a next page.
fn page<R, V: From<R> + utoipa::ToSchema>(mut records: Vec<R>, limit: u32, cursor: impl Fn(&R) -> String) -> Paged<V> {
    let limit = limit as usize;
    let more = records.len() > limit;
    records.truncate(limit);
    let next_cursor = records.last().filter(|_| more).map(cursor);
    Paged::new(records.into_iter().map(V::from).collect(), next_cursor)
}

pub(crate) async fn list_keys(call: GuardedCall) -> Result<Response, Problem> {
    let limit = call.limit()?;
    let after = call.query_as("cursor", "a cursor of this list")?;
    let keys = call.shared.directory.keys(call.key.tenant, after, limit + 1).await?;
    json(
        StatusCode::OK,
        &page::<_, KeyView>(keys, limit, |key| key.id.to_string()),
    )
}

pub(crate) async fn create_key(mut call: GuardedCall) -> Result<Response, Problem> {
    let body: CreateKeyBody = call.call.json(SMALL_BODY_BYTES_MAX).await?;
    let new = NewKey {
        tenant: call.key.tenant,
        name: body.name,
        scope: body.scope.into(),
        expires_at_ms: body.expires_at_ms,
        created_by: Some(call.key.id),
    };
    let issued = call.shared.directory.create_key(new).await?;
    let body = CreatedKey {
        record: issued.record.into(),
        key: issued.token.expose_secret().to_owned(),
    };
    Ok(secret(json(StatusCode::CREATED, &body)?))
}

pub(crate) async fn revoke_key(call: GuardedCall) -> Result<Response, Problem> {
    let revoked = call
        .shared
        .directory
        .revoke_key(call.key.tenant, call.id(0, "key")?, Some(call.key.id))
        .await?;
    json(StatusCode::OK, &KeyView::from(revoked))
}

pub(crate) async fn list_node_tokens(call: GuardedCall) -> Result<Response, Problem> {
    let limit = call.limit()?;
    let after = call.query_as("cursor", "a cursor of this list")?;
    let tokens = call
        .shared
        .directory
        .node_tokens(call.key.tenant, after, limit + 1)
        .await?;
    json(
        StatusCode::OK,
        &page::<_, NodeTokenView>(tokens, limit, |token| token.id.to_string()),
    )
}

pub(crate) async fn create_node_token(mut call: GuardedCall) -> Result<Response, Problem> {
    let body: CreateNodeTokenBody = call.call.json(SMALL_BODY_BYTES_MAX).await?;
    let new = NewNodeToken {
        tenant: call.key.tenant,
        name: body.name,
        shared: body.shared,
        created_by: Some(call.key.id),
    };
    let issued = call.shared.directory.create_node_token(new).await?;
    let body = CreatedNodeToken {
        record: issued.record.into(),
        token: issued.token.expose_secret().to_owned(),
    };
    Ok(secret(json(StatusCode::CREATED, &body)?))
}

pub(crate) async fn revoke_node_token(call: GuardedCall) -> Result<Response, Problem> {
    let revoked = call
        .shared
        .directory
        .revoke_node_token(call.key.tenant, call.id(0, "node token")?, Some(call.key.id))
        .await?;
    json(StatusCode::OK, &NodeTokenView::from(revoked))
}
