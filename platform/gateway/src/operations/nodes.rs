//! Nodes.

use gantry_directory::{Resource as R, Verb as V};
use gantry_engine::api::NodeView;
use http::Method;

use crate::dto::{DrainBody, Items};
use crate::handlers::nodes;
use crate::operation::Content::Json;
use crate::operation::Operation;
use crate::schema::{list as list_of, of};

pub(super) fn operations() -> Vec<Operation> {
    const ONE: &str = "/api/v1/nodes/{id}";
    vec![
        Operation::guarded(
            Method::GET,
            "/api/v1/nodes",
            "list_nodes",
            (R::Node, V::List),
            "Nodes that serve the tenant",
            nodes::list,
        )
        .returns(200, &[Json(list_of::<Items<NodeView>, NodeView>())]),
        Operation::guarded(Method::GET, ONE, "get_node", (R::Node, V::Get), "One node", nodes::get)
            .returns(200, &[Json(of::<NodeView>())]),
        Operation::guarded(
            Method::POST,
            ONE,
            "drain_node",
            (R::Node, V::Drain),
            "Let a node finish what it holds and take nothing new, or lift that",
            nodes::drain,
        )
        .action("drain")
        .body(Json(of::<DrainBody>()))
        .returns(200, &[Json(of::<NodeView>())]),
    ]
}
