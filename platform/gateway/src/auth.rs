//! Who calls.

use gantry_directory::{Directory, Resource, Verb, VerifiedKey};
use gantry_proto::ErrorCode;
use http::{HeaderMap, header};

use crate::problem::Problem;

/// The credential of a request, if there is one: `Authorization: Bearer`, else `X-API-Key`.
fn credential(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let unreadable = || Problem::unauthenticated("the credential is not readable");
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value
            .to_str()
            .map_err(|_| unreadable())?
            .split_once(' ')
            .ok_or_else(unreadable)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Problem::unauthenticated("only the Bearer scheme is accepted"));
        }
        return Ok(Some(token.trim()));
    }
    headers
        .get("x-api-key")
        .map(|value| value.to_str().map_err(|_| unreadable()))
        .transpose()
}

/// The caller, if the key is valid and its scope allows the operation.
pub(crate) async fn authorise(
    directory: &dyn Directory,
    headers: &HeaderMap,
    needs: (Resource, Verb),
) -> Result<VerifiedKey, Problem> {
    let token = credential(headers)?.ok_or_else(|| Problem::unauthenticated("this operation needs an API key"))?;
    let key = directory.authenticate_key(token).await?;
    let (resource, verb) = needs;
    if !key.scope.allows(resource, verb) {
        let detail = format!("a key of scope `{}` may not {verb} {resource}", key.scope);
        return Err(Problem::new(ErrorCode::Forbidden, detail)
            .hint("use a key with a wider scope; an admin makes one with `gantry key create --scope`"));
    }
    Ok(key)
}
