//! Which token speaks for a node. Without this, whoever holds any node token could speak for every node.

use gantry_proto::{NodeId, NodeTokenId};
use sqlx::Row;

use super::{SqliteDirectory, id_bytes, to_sql};
use crate::error::ManageError;

impl SqliteDirectory {
    pub(super) async fn bind(&self, token: Option<NodeTokenId>, node: NodeId) -> Result<(), ManageError> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let bound = sqlx::query(
            "SELECT b.token, COALESCE(old.revoked_at_ms IS NOT NULL AND old.tenant = new.tenant AND old.shared = new.shared, 0) AS replaceable \
             FROM node_bindings b LEFT JOIN node_tokens old ON old.id = b.token LEFT JOIN node_tokens new ON new.id = ? WHERE b.node = ?",
        )
        .bind(token.as_ref().map(|token| token.as_bytes().as_slice()))
        .bind(node.as_bytes().as_slice())
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(row) = bound {
            let holder = row
                .try_get::<Option<Vec<u8>>, _>("token")?
                .map(|bytes| id_bytes(&bytes).map(NodeTokenId::from_bytes))
                .transpose()?;
            if holder == token {
                return Ok(());
            }
            // A revoked token speaks for nobody any more, so its node may join with a new one of the same tenant; the daemon's own process may take
            // any node over.
            if token.is_some() && !row.try_get::<bool, _>("replaceable")? {
                return Err(ManageError::Forbidden(format!(
                    "{node} joined with another token: revoke that one first, or remove the node's state directory to join as a new node"
                )));
            }
        }
        sqlx::query(
            "INSERT INTO node_bindings (node, token, bound_at_ms) VALUES (?, ?, ?) \
             ON CONFLICT (node) DO UPDATE SET token = excluded.token, bound_at_ms = excluded.bound_at_ms",
        )
        .bind(node.as_bytes().as_slice())
        .bind(token.as_ref().map(|token| token.as_bytes().as_slice()))
        .bind(to_sql(self.now_ms()))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }
}
