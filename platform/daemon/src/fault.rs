//! The error code of what ended a command, so that what is printed leads to a page.

use gantry_engine::StartError;
use gantry_journal::SealError;
use gantry_proto::ErrorCode;

use crate::backup::BackupError;
use crate::data_dir::DataDirError;

/// The code of an error about stored data; `None` for everything else.
pub(crate) fn code_of(error: &anyhow::Error) -> Option<ErrorCode> {
    error.chain().find_map(|cause| {
        let code = cause
            .downcast_ref::<DataDirError>()
            .and_then(of_data_dir)
            .or_else(|| cause.downcast_ref::<gantry_journal::OpenError>().and_then(of_journal))
            .or_else(|| {
                cause
                    .downcast_ref::<gantry_directory::OpenError>()
                    .and_then(of_directory)
            })
            .or_else(|| cause.downcast_ref::<BackupError>().map(of_backup));
        code.or_else(|| {
            let damaged = cause.is::<SealError>() || matches!(cause.downcast_ref(), Some(StartError::Recovery { .. }));
            damaged.then_some(ErrorCode::DataDamaged)
        })
    })
}

fn of_data_dir(error: &DataDirError) -> Option<ErrorCode> {
    Some(match error {
        DataDirError::InUse { .. } => ErrorCode::DataInUse,
        DataDirError::Newer { .. } => ErrorCode::DataFormat,
        DataDirError::Damaged { .. } | DataDirError::HalfRestored { .. } => ErrorCode::DataDamaged,
        DataDirError::Io { .. } | DataDirError::NotOne { .. } => return None,
    })
}

fn of_journal(error: &gantry_journal::OpenError) -> Option<ErrorCode> {
    use gantry_journal::OpenError as E;
    Some(match error {
        E::Locked { .. } => ErrorCode::DataInUse,
        E::Format { .. } | E::Newer { .. } => ErrorCode::DataFormat,
        E::Damaged { .. } | E::Foreign { .. } => ErrorCode::DataDamaged,
        E::Partitions { .. } | E::PartitionCount { .. } | E::Io { .. } => return None,
    })
}

fn of_directory(error: &gantry_directory::OpenError) -> Option<ErrorCode> {
    use gantry_directory::OpenError as E;
    Some(match error {
        E::NewerSchema { .. } => ErrorCode::DataFormat,
        E::Damaged(_) => ErrorCode::DataDamaged,
        _ => return None,
    })
}

fn of_backup(error: &BackupError) -> ErrorCode {
    match error {
        BackupError::DataDir(error) => of_data_dir(error).unwrap_or(ErrorCode::BackupRefused),
        BackupError::Journal(error) => of_journal(error).unwrap_or(ErrorCode::BackupRefused),
        BackupError::Newer { .. } => ErrorCode::DataFormat,
        BackupError::Unsound(_)
        | BackupError::Read(_)
        | BackupError::Damaged { .. }
        | BackupError::Incomplete
        | BackupError::Digest { .. } => ErrorCode::DataDamaged,
        _ => ErrorCode::BackupRefused,
    }
}
