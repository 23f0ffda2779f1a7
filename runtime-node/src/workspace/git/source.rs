//! What may be named as a git source.

use url::Url;

/// Longest URL or ref.
const TEXT_BYTES_MAX: usize = 2048;

/// A git source that may be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitUrl {
    /// `https://`, `ssh://` or `git://`, in canonical form.
    Remote(String),
    /// An absolute path, still to be checked against the node's allow-list.
    Local(String),
}

/// Why a text is no git source, or no ref.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitUrlError {
    /// Begins with a dash: git would read an option.
    #[error("it begins with `-`")]
    Option,
    /// Control characters, spaces, or other things that no URL holds.
    #[error("it holds a character that is not allowed")]
    Character,
    /// Another transport.
    #[error("`{0}` is not allowed: use https://, ssh:// or git://, or a path on the node's list of allowed paths")]
    Scheme(String),
    /// `user:password@`, or a user with https.
    #[error("it holds credentials; they do not belong into a definition")]
    Credentials,
    /// No host, or a strange one.
    #[error("its host is missing or not allowed")]
    Host,
    /// Not a URL at all.
    #[error("it is not a URL ({0})")]
    Syntax(String),
    /// Too long or empty.
    #[error("it is empty or longer than {TEXT_BYTES_MAX} bytes")]
    Length,
    /// Not a branch, tag, full ref or commit.
    #[error("it is not the name of a branch, tag or commit")]
    Ref,
}

impl GitUrl {
    /// Checks a source.
    ///
    /// # Errors
    /// [`GitUrlError`]
    pub fn parse(text: &str) -> Result<Self, GitUrlError> {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            return Err(GitUrlError::Length);
        }
        if text.starts_with('-') {
            return Err(GitUrlError::Option);
        }
        if text.starts_with('/') && !text.starts_with("//") {
            let bad = text.chars().any(char::is_control);
            return if bad {
                Err(GitUrlError::Character)
            } else {
                Ok(Self::Local(text.to_owned()))
            };
        }
        let odd = |c: char| !c.is_ascii_graphic() || matches!(c, '"' | '\\' | '<' | '>' | '`' | '\'');
        if text.chars().any(odd) {
            return Err(GitUrlError::Character);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let scheme = text.split(':').next().unwrap_or_default();
            return Err(GitUrlError::Scheme(scheme.chars().take(48).collect()));
        };
        if !matches!(scheme, "https" | "ssh" | "git") {
            return Err(GitUrlError::Scheme(scheme.chars().take(48).collect()));
        }
        // A line break behind a percent sign ends up in what git tells credential helpers and servers.
        let lower = rest.to_ascii_lowercase();
        if ["%00", "%0a", "%0d"].iter().any(|encoded| lower.contains(encoded)) {
            return Err(GitUrlError::Character);
        }
        let url = Url::parse(text).map_err(|error| GitUrlError::Syntax(error.to_string()))?;
        if url.password().is_some() || (scheme != "ssh" && !url.username().is_empty()) {
            return Err(GitUrlError::Credentials);
        }
        let name_ok = |name: &str| !name.starts_with('-') && !name.contains('%');
        let host = url.host_str().unwrap_or_default();
        if host.is_empty() || !name_ok(host) || !name_ok(url.username()) {
            return Err(GitUrlError::Host);
        }
        if url.path().starts_with("/-") || url.path().contains("::") {
            return Err(GitUrlError::Option);
        }
        Ok(Self::Remote(url.into()))
    }
}

/// Checks the name of a branch, tag, full ref or commit.
///
/// # Errors
/// [`GitUrlError`]
pub fn check_ref(text: &str) -> Result<(), GitUrlError> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return Err(GitUrlError::Length);
    }
    if text.starts_with('-') {
        return Err(GitUrlError::Option);
    }
    let bad_char = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let parts_ok = text
        .split('/')
        .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"));
    if text.chars().any(bad_char) || !parts_ok || text.contains("..") || text.contains("@{") || text.ends_with('.') {
        return Err(GitUrlError::Ref);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_sources_pass() {
        for text in [
            "https://example.org/a/b.git",
            "https://example.org:8443/a%20b",
            "ssh://git@example.org/a/b",
            "git://example.org/a",
        ] {
            assert_eq!(GitUrl::parse(text), Ok(GitUrl::Remote(text.to_owned())), "{text}");
        }
        assert_eq!(GitUrl::parse("/srv/repo"), Ok(GitUrl::Local("/srv/repo".into())));
    }

    #[test]
    fn hostile_sources_are_refused() {
        for text in [
            "",
            "ext::sh -c touch% /tmp/x",
            "ext::sh",
            "file:///etc",
            "FILE:///etc",
            "http://example.org/a",
            "-u./payload",
            "--upload-pack=touch /tmp/x",
            "https://user:secret@example.org/a",
            "https://token@example.org/a",
            "ssh://git:pw@example.org/a",
            "ssh://-oProxyCommand=touch/a",
            "ssh://%2doProxyCommand=x/a",
            "ssh://-l@example.org/a",
            "git@example.org:a/b",
            "https://",
            "https://exa mple.org/",
            "https://example.org/%0ahost=evil",
            "https://example.org/-u",
            "//example.org/a",
            "../repo",
            "repo",
            "fd::17/x",
            "https::https://example.org/",
        ] {
            assert!(GitUrl::parse(text).is_err(), "{text:?} passed");
        }
    }

    #[test]
    fn refs() {
        for text in [
            "main",
            "v1.0",
            "feature/x",
            "refs/pull/1/head",
            "0123456789abcdef0123456789abcdef01234567",
        ] {
            assert_eq!(check_ref(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "-x",
            "--upload-pack=x",
            "a b",
            "a..b",
            "a:b",
            "a^",
            "a~1",
            "@{1}",
            "a/.b",
            "a//b",
            "x.lock",
            "a\nb",
            "*",
        ] {
            assert!(check_ref(text).is_err(), "{text:?} passed");
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_one_of_three_transports(text in "\\PC{0,60}") {
            if let Ok(GitUrl::Remote(url)) = GitUrl::parse(&text) {
                prop_assert!(["https://", "ssh://", "git://"].iter().any(|scheme| url.starts_with(scheme)));
            }
        }
    }
}
