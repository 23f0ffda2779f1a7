//! A copy of the directory as it is at one moment.

use std::path::Path;

use super::SqliteDirectory;
use crate::error::ManageError;

impl SqliteDirectory {
    /// Writes everything that is committed into a new file, whole and without what was deleted. Writers are not held up.
    ///
    /// # Errors
    /// When the file exists, or cannot be written.
    pub async fn snapshot_into(&self, path: &Path) -> Result<(), ManageError> {
        let path = path
            .to_str()
            .ok_or_else(|| ManageError::Invalid(format!("the path {} is no text", path.display())))?;
        sqlx::query("VACUUM INTO ?").bind(path).execute(&self.readers).await?;
        Ok(())
    }
}
