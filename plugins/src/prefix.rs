//! One path prefix in another's place, as the Kubernetes Gateway API's `ReplacePrefixMatch` does it.
//!
//! For rewrites and redirects alike. The table of results is under test in `path_rewrite`.

use std::borrow::Cow;

/// Replaces the prefix `from` of `path` by `to`, element by element; `None` where `path` does not begin with
/// `from`. A `/` at the end of either means nothing, and an empty `to` takes the prefix away. The result
/// begins with one `/`, so that it can never be read as a host.
pub fn replace_prefix<'a>(path: &'a str, from: &str, to: &str) -> Option<Cow<'a, str>> {
    let Splice { keep_from, head } = Splice::of(path.as_bytes(), from, to)?;
    Some(if head.is_empty() {
        path[keep_from..].into()
    } else {
        [head.as_str(), &path[keep_from..]].concat().into()
    })
}

/// The same for a path of any bytes.
pub(crate) fn replace_prefix_bytes(path: &[u8], from: &str, to: &str) -> Option<Vec<u8>> {
    let Splice { keep_from, head } = Splice::of(path, from, to)?;
    Some([head.as_bytes(), &path[keep_from..]].concat())
}

/// A path as the end of another one behind a new beginning.
struct Splice {
    keep_from: usize,
    head: String,
}

impl Splice {
    fn of(path: &[u8], from: &str, to: &str) -> Option<Self> {
        let from = from.trim_end_matches('/');
        let to = to.trim_matches('/');
        let rest = path.strip_prefix(from.as_bytes())?;
        if !matches!(rest.first(), None | Some(b'/')) {
            return None;
        }
        let keep_from = path.len() - rest.len();
        Some(match (to, rest) {
            ("", []) => Self { keep_from, head: "/".to_owned() },
            // The rest of `/foo//bar` begins with two slashes, which a client would take for a host.
            ("", rest) => {
                let slashes = rest.iter().take_while(|byte| **byte == b'/').count();
                Self { keep_from: keep_from + slashes - 1, head: String::new() }
            }
            (to, _) => Self { keep_from, head: format!("/{to}") },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripping_alone_is_borrowed() {
        assert!(matches!(replace_prefix("/foo/bar", "/foo", ""), Some(Cow::Borrowed("/bar"))));
    }
}
