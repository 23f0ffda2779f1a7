//! Work on the installation as a whole, scripted.

/// A backup of one chunk: what is in one is tested where it is made.
pub struct OneChunk;

#[async_trait::async_trait]
impl gantry_gateway::Maintenance for OneChunk {
    async fn backup(
        &self,
        options: gantry_gateway::BackupOptions,
    ) -> Result<gantry_gateway::BackupStream, gantry_engine::api::Refusal> {
        let text = format!("artifacts: {}", options.artifacts);
        Ok(Box::pin(futures_util::stream::iter([Ok(text.into())])))
    }
}
