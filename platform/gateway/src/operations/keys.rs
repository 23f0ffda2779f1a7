//! API keys and node tokens.

use gantry_directory::{Resource as R, Verb as V};
use http::Method;

use super::PAGE;
use crate::dto::{CreateKeyBody, CreateNodeTokenBody, CreatedKey, CreatedNodeToken, KeyView, NodeTokenView, Paged};
use crate::handlers::keys;
use crate::operation::Content::Json;
use crate::operation::Operation;
use crate::schema::{list as list_of, of};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::GET,
            "/api/v1/keys",
            "list_keys",
            (R::Key, V::List),
            "API keys of the tenant, newest first",
            keys::list_keys,
        )
        .query(PAGE)
        .returns(200, &[Json(list_of::<Paged<KeyView>, KeyView>())]),
        Operation::guarded(
            Method::POST,
            "/api/v1/keys",
            "create_key",
            (R::Key, V::Create),
            "Make an API key; it is shown this once",
            keys::create_key,
        )
        .body(Json(of::<CreateKeyBody>()))
        .returns(201, &[Json(of::<CreatedKey>())]),
        Operation::guarded(
            Method::POST,
            "/api/v1/keys/{id}",
            "revoke_key",
            (R::Key, V::Revoke),
            "End an API key, at once",
            keys::revoke_key,
        )
        .action("revoke")
        .returns(200, &[Json(of::<KeyView>())]),
        Operation::guarded(
            Method::GET,
            "/api/v1/node-tokens",
            "list_node_tokens",
            (R::NodeToken, V::List),
            "Node tokens of the tenant, newest first",
            keys::list_node_tokens,
        )
        .query(PAGE)
        .returns(200, &[Json(list_of::<Paged<NodeTokenView>, NodeTokenView>())]),
        Operation::guarded(
            Method::POST,
            "/api/v1/node-tokens",
            "create_node_token",
            (R::NodeToken, V::Create),
            "Make a node token; it is shown this once",
            keys::create_node_token,
        )
        .body(Json(of::<CreateNodeTokenBody>()))
        .returns(201, &[Json(of::<CreatedNodeToken>())]),
        Operation::guarded(
            Method::POST,
            "/api/v1/node-tokens/{id}",
            "revoke_node_token",
            (R::NodeToken, V::Revoke),
            "End a node token",
            keys::revoke_node_token,
        )
        .action("revoke")
        .returns(200, &[Json(of::<NodeTokenView>())]),
    ]
}
