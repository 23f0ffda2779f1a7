//! Path parameters and actions: `{id}:action` splits on the last colon of the raw path, so that an encoded colon belongs to the id.

use percent_encoding::percent_decode_str;

/// A request path against its template.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Matched {
    /// Decoded parameters in order.
    pub(super) params: Vec<String>,
    /// The action, if the last segment ends in one that the path knows.
    pub(super) action: Option<&'static str>,
}

/// Takes a raw path apart. `None`: a parameter is empty or not UTF-8, so it names nothing.
pub(super) fn take_apart(template: &str, raw: &str, actions: &[&'static str]) -> Option<Matched> {
    let mut action = None;
    let mut raw = raw;
    if let Some((head, tail)) = raw.rsplit_once(':')
        && let Some(known) = actions.iter().find(|known| **known == tail)
    {
        action = Some(*known);
        raw = head;
    }
    let mut params = Vec::new();
    for (segment, value) in template.split('/').zip(raw.split('/')) {
        if segment.starts_with('{') {
            let decoded = percent_decode_str(value).decode_utf8().ok()?;
            if decoded.is_empty() {
                return None;
            }
            params.push(decoded.into_owned());
        }
    }
    Some(Matched { params, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "/api/v1/workflows/{id}";

    fn matched(raw: &str) -> Option<(String, Option<&'static str>)> {
        let matched = take_apart(TEMPLATE, raw, &["cancel"])?;
        Some((matched.params[0].clone(), matched.action))
    }

    #[test]
    fn the_last_colon_splits_and_only_before_a_known_action() {
        assert_eq!(matched("/api/v1/workflows/wf_1"), Some(("wf_1".into(), None)));
        assert_eq!(
            matched("/api/v1/workflows/wf_1:cancel"),
            Some(("wf_1".into(), Some("cancel")))
        );
        assert_eq!(
            matched("/api/v1/workflows/a:b:cancel"),
            Some(("a:b".into(), Some("cancel")))
        );
        assert_eq!(matched("/api/v1/workflows/a:b"), Some(("a:b".into(), None)));
        assert_eq!(
            matched("/api/v1/workflows/wf_1%3Acancel"),
            Some(("wf_1:cancel".into(), None))
        );
        assert_eq!(matched("/api/v1/workflows/a%2Fb"), Some(("a/b".into(), None)));
        assert_eq!(matched("/api/v1/workflows/:cancel"), None);
        assert_eq!(matched("/api/v1/workflows/%ff"), None);
    }
}
