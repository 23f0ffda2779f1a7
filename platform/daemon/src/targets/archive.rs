//! Where history goes, and how long it is kept: arguments of every role with an engine.

use std::str::FromStr;

use anyhow::{Context as _, Result};
use gantry_engine::archive::{ArchiveConfig, ArchiveParts, Retention};
use gantry_journal::ErasureList;
use gantry_journal::archive::{ArchiveStore, S3Config};
use gantry_proto::TenantId;

use crate::data_dir::DataDir;

const DAY_MS: u64 = 24 * 3_600_000;

/// What every role with an engine takes for the archive.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Archive")]
pub(crate) struct ArchiveArgs {
    /// Days that ended workflows are kept; absent: for ever
    #[arg(long, env = "GANTRY_RETENTION_DAYS", value_name = "DAYS")]
    retention_days: Option<u32>,
    /// Days for one tenant, may repeat; `forever` is a number too
    #[arg(long, value_name = "TENANT=DAYS")]
    tenant_retention_days: Vec<TenantRetention>,
    /// Minutes after its end at which a workflow is sealed into the archive
    #[arg(
        long,
        env = "GANTRY_SEAL_AFTER_MINUTES",
        default_value_t = 60,
        value_name = "MINUTES"
    )]
    seal_after_minutes: u32,
    /// Keep the archive in this S3 bucket instead of the data directory; credentials as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or of the instance
    #[arg(long, env = "GANTRY_ARCHIVE_S3_BUCKET", value_name = "BUCKET")]
    archive_s3_bucket: Option<String>,
    /// Region of the bucket
    #[arg(
        long,
        env = "GANTRY_ARCHIVE_S3_REGION",
        default_value = "us-east-1",
        value_name = "REGION"
    )]
    archive_s3_region: String,
    /// URL of an S3-compatible service that is not AWS
    #[arg(long, env = "GANTRY_ARCHIVE_S3_ENDPOINT", value_name = "URL")]
    archive_s3_endpoint: Option<String>,
    /// What all names in the bucket begin with
    #[arg(long, env = "GANTRY_ARCHIVE_S3_PREFIX", default_value = "", value_name = "PREFIX")]
    archive_s3_prefix: String,
}

/// `ten_...=30` or `ten_...=forever`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TenantRetention {
    tenant: TenantId,
    days: Option<u32>,
}

impl FromStr for TenantRetention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (tenant, days) = text
            .split_once('=')
            .ok_or("write it as TENANT=DAYS, for example ten_0192...=30")?;
        let days = match days {
            "forever" => None,
            days => Some(
                days.parse()
                    .map_err(|_| format!("`{days}` is neither a number of days nor `forever`"))?,
            ),
        };
        Ok(Self {
            tenant: tenant.parse().map_err(|error| format!("{error}"))?,
            days,
        })
    }
}

impl ArchiveArgs {
    /// Opens what keeping history needs. Blocks for a read of the list of erasures.
    pub(crate) fn open(&self, data: &DataDir) -> Result<ArchiveParts> {
        let objects = match &self.archive_s3_bucket {
            None => ArchiveStore::local(&data.archive()).context("open the archive")?,
            Some(bucket) => ArchiveStore::s3(&S3Config {
                bucket: bucket.clone(),
                region: self.archive_s3_region.clone(),
                endpoint: self.archive_s3_endpoint.clone(),
                prefix: self.archive_s3_prefix.trim_matches('/').to_owned(),
                access_key_id: None,
                secret_access_key: None,
            })
            .context("open the archive's bucket")?,
        };
        let days = |days: Option<u32>| days.map(|days| u64::from(days) * DAY_MS);
        Ok(ArchiveParts {
            objects,
            erasures: ErasureList::open(&data.erasures())?,
            config: ArchiveConfig::new(
                u64::from(self.seal_after_minutes) * 60_000,
                Retention {
                    default_ms: days(self.retention_days),
                    tenants: self
                        .tenant_retention_days
                        .iter()
                        .map(|each| (each.tenant, days(each.days)))
                        .collect(),
                },
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use gantry_proto::PartitionId;

    use super::*;

    #[test]
    fn retention_of_a_tenant_is_days_or_for_ever() {
        let tenant = TenantId::new(1, PartitionId::default(), 5);
        let parse = |text: String| text.parse::<TenantRetention>();
        assert_eq!(
            parse(format!("{tenant}=30")).unwrap(),
            TenantRetention { tenant, days: Some(30) }
        );
        assert_eq!(
            parse(format!("{tenant}=forever")).unwrap(),
            TenantRetention { tenant, days: None }
        );
        for wrong in [format!("{tenant}"), format!("{tenant}=soon"), "wf_1=3".to_owned()] {
            assert!(parse(wrong).is_err());
        }
    }
}
