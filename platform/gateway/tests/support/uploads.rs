//! Uploads of the scripted engine: one is there, and what is sent is kept for the test to look at.

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use gantry_proto::UploadId;

use super::*;

pub const UPLOAD: &[u8] = b"a,b\n1,2\n";

pub fn upload_id() -> UploadId {
    UploadId::new(1, PartitionId::default(), 78)
}

fn view(name: &str, size_bytes: u64) -> UploadView {
    UploadView {
        id: upload_id(),
        name: name.into(),
        size_bytes,
        sha256: "00".repeat(32),
        content_type: Some("text/html".into()),
        created_by: Default::default(),
        created_at_ms: 1,
        expires_at_ms: 2,
    }
}

impl Engine {
    fn find(&self, tenant: TenantId, upload: UploadId) -> Result<UploadView, Refusal> {
        if tenant == self.0.lock().tenant && upload == upload_id() {
            Ok(view("out/da\"ta.csv", UPLOAD.len() as u64))
        } else {
            Err(not_found())
        }
    }
}

#[async_trait::async_trait]
impl Uploads for Engine {
    async fn upload(
        &self,
        new: NewUpload,
        mut data: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<UploadReceipt, Refusal> {
        let mut content = Vec::new();
        while let Some(part) = data.next().await {
            content.extend_from_slice(&part.map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?);
        }
        let mut script = self.0.lock();
        let known = |(other, _): &(NewUpload, Vec<u8>)| other.idempotency_key == new.idempotency_key;
        let replayed = new.idempotency_key.is_some() && script.uploaded.iter().any(known);
        let upload = view(&new.name, content.len() as u64);
        script.uploaded.push((new, content));
        Ok(UploadReceipt { upload, replayed })
    }

    async fn uploads(&self, tenant: TenantId) -> Result<Vec<UploadView>, Refusal> {
        Ok(self.find(tenant, upload_id()).into_iter().collect())
    }

    async fn upload_info(&self, tenant: TenantId, upload: UploadId) -> Result<UploadView, Refusal> {
        self.find(tenant, upload)
    }

    async fn upload_content(&self, tenant: TenantId, upload: UploadId) -> Result<UploadBody, Refusal> {
        let upload = self.find(tenant, upload)?;
        let parts: Vec<std::io::Result<Bytes>> = UPLOAD.chunks(3).map(|part| Ok(Bytes::from_static(part))).collect();
        let stream = Box::pin(stream::iter(parts));
        Ok(UploadBody { upload, stream })
    }

    async fn delete_upload(&self, caller: Caller, upload: UploadId) -> Result<(), Refusal> {
        self.find(caller.tenant, upload).map(drop)
    }
}
