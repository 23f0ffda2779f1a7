//! The text form of credentials: `<prefix>_<lookup>_<secret>`.
//!
//! `lookup` (13 characters) is the last eight bytes of the row's id and finds the row; `secret` (52 characters) is 32 random bytes. Both are base32 with
//! lower-case letters and digits only, so that a double click selects a whole token and an underscore always separates.

use data_encoding::BASE32_DNSSEC as BASE32;
use secrecy::{ExposeSecret, SecretString};

use crate::error::{AuthError, HashError};

const LOOKUP_CHARS: usize = 13;
const SECRET_CHARS: usize = 52;

/// What a credential is for. The prefix tells secret scanners as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    ApiKey,
    Node,
}

impl TokenKind {
    const ALL: [Self; 2] = [Self::ApiKey, Self::Node];

    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "ab",
            Self::Node => "gn",
        }
    }
}

/// A token taken apart. Borrowed, so that no copy of the secret is left behind.
#[derive(Clone, Copy)]
pub(crate) struct Parsed<'a> {
    pub(crate) lookup: &'a str,
    pub(crate) secret: &'a str,
}

/// Takes a token of the wanted kind apart, without looking anything up.
pub(crate) fn parse(kind: TokenKind, token: &str) -> Result<Parsed<'_>, AuthError> {
    let (prefix, rest) = token.split_once('_').ok_or(AuthError::Malformed)?;
    if prefix != kind.prefix() {
        let known = TokenKind::ALL.iter().any(|other| other.prefix() == prefix);
        return Err(if known {
            AuthError::WrongKind
        } else {
            AuthError::Malformed
        });
    }
    let (lookup, secret) = rest.split_once('_').ok_or(AuthError::Malformed)?;
    let base32 = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'v').contains(&byte))
    };
    if lookup.len() != LOOKUP_CHARS || secret.len() != SECRET_CHARS || !base32(lookup) || !base32(secret) {
        return Err(AuthError::Malformed);
    }
    Ok(Parsed { lookup, secret })
}

/// The public part of a row's token.
pub(crate) fn lookup_of(id: &[u8; 16]) -> String {
    BASE32.encode(&id[8..])
}

/// What may be shown of a token: enough to recognise it in a list.
pub(crate) fn shown(kind: TokenKind, id: &[u8; 16]) -> String {
    format!("{}_{}", kind.prefix(), lookup_of(id))
}

/// A fresh secret part.
pub(crate) fn mint() -> Result<SecretString, HashError> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| HashError::Entropy(error.to_string()))?;
    Ok(SecretString::from(BASE32.encode(&bytes)))
}

/// The whole token.
pub(crate) fn compose(kind: TokenKind, id: &[u8; 16], secret: &SecretString) -> SecretString {
    SecretString::from(format!(
        "{}_{}_{}",
        kind.prefix(),
        lookup_of(id),
        secret.expose_secret()
    ))
}

/// 64 random bits for an id.
pub(crate) fn entropy() -> Result<u64, HashError> {
    getrandom::u64().map_err(|error| HashError::Entropy(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_token_parses_and_only_as_its_kind() {
        let id = [0xfe; 16];
        let token = compose(TokenKind::ApiKey, &id, &mint().unwrap());
        let parsed = parse(TokenKind::ApiKey, token.expose_secret()).unwrap();
        assert_eq!(parsed.lookup, lookup_of(&id));
        assert!(matches!(
            parse(TokenKind::Node, token.expose_secret()),
            Err(AuthError::WrongKind)
        ));
    }

    #[test]
    fn other_texts_are_malformed() {
        let good = compose(TokenKind::ApiKey, &[1; 16], &mint().unwrap());
        let good = good.expose_secret();
        for bad in [
            "",
            "ab",
            "ab_",
            "ab__",
            "zz_a_b",
            &good[1..],
            &good[..good.len() - 1],
            &good.to_uppercase(),
            &format!("{good}a"),
            &format!(" {good}"),
        ] {
            assert!(
                matches!(parse(TokenKind::ApiKey, bad), Err(AuthError::Malformed)),
                "{bad}"
            );
        }
    }
}
