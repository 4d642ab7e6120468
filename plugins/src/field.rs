//! One header field that a plugin writes: which names it may have, how its value is made legal, how it is
//! set.
//!
//! Which fields are written when is for the plugins to say.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::problem::{Path, Problem, did_you_mean};

/// The fields that say where a message ends and what the connection does; the gateway writes them for each
/// side.
const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A field name, to look it up by and to write as it was typed.
#[derive(Clone)]
pub(crate) struct FieldName {
    pub(crate) name: HeaderName,
    /// HTTP/1.1 sends it so; a legacy upstream may insist on `SOAPAction`.
    spelling: Bytes,
}

impl FieldName {
    /// Refuses what is no field name and what frames a message.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| misnamed(text))?;
        if is_framing(&name) {
            return Err(Problem::new(
                Path::root(),
                format!("`{text}` cannot be changed: the gateway writes it"),
            )
            .hint("leave it out; it is kept right on both sides by itself"));
        }
        // In HTTP/1.1 as people know it; every other name goes out as it was typed.
        let spelling = if text == "host" {
            Bytes::from_static(b"Host")
        } else {
            Bytes::copy_from_slice(text.as_bytes())
        };
        Ok(Self { name, spelling })
    }
}

fn misnamed(text: &str) -> Problem {
    let problem = Problem::new(
        Path::root(),
        format!(
            "`{}` is not a header name; it may have letters, digits and `-`, as in `x-served-by`",
            text.escape_debug()
        ),
    );
    let mended = text.trim().trim_end_matches(':').replace([' ', '\t'], "-");
    match HeaderName::from_bytes(mended.as_bytes()) {
        Ok(_) => match did_you_mean(text, [mended.as_str()]) {
            Some(hint) => problem.hint(hint),
            None => problem,
        },
        Err(_) => problem,
    }
}

/// Which fields one `remove` entry names.
pub(crate) enum FieldPattern {
    Name(HeaderName),
    /// `x-remote-*`, in lower case and without the star.
    Prefix(String),
}

impl FieldPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let Some((prefix, behind)) = text.split_once('*') else {
            return FieldName::parse(text).map(|name| Self::Name(name.name));
        };
        if !behind.is_empty() || prefix.is_empty() {
            return Err(Problem::new(
                Path::root(),
                format!(
                    "`{text}` has its `*` in the wrong place; one may stand at the end of a name, as in `x-remote-*`"
                ),
            ));
        }
        HeaderName::from_bytes(prefix.as_bytes()).map_err(|_| misnamed(text))?;
        Ok(Self::Prefix(prefix.to_ascii_lowercase()))
    }

    pub(crate) fn remove_from<H: Fields>(&self, head: &mut H) {
        match self {
            Self::Name(name) => head.remove(name),
            Self::Prefix(prefix) => {
                // A prefix is meant for the names that the user has in mind, never for what frames the
                // message.
                let named = |name: &&HeaderName| {
                    name.as_str().starts_with(prefix.as_str()) && !is_framing(name) && **name != HOST
                };
                while let Some(name) = head.fields().keys().find(named).cloned() {
                    head.remove(&name);
                }
            }
        }
    }
}

pub(crate) fn is_framing(name: &HeaderName) -> bool {
    FRAMING.contains(&name.as_str())
}

/// The value that a rendered text becomes: bytes that no field may carry are dropped. `None` where nothing is
/// left.
pub(crate) fn value(rendered: Cow<'_, [u8]>) -> Option<HeaderValue> {
    if rendered.is_empty() {
        return None;
    }
    // The common case, which is checked once and copied once.
    if let Ok(value) = HeaderValue::from_bytes(&rendered) {
        return Some(value);
    }
    let mut bytes = rendered.into_owned();
    bytes.retain(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..));
    if bytes.is_empty() { None } else { HeaderValue::from_maybe_shared(Bytes::from(bytes)).ok() }
}

/// The header section of a request or of a response. Writing goes by the engine's own methods, which keep the
/// case of the names beside the names.
pub(crate) trait Fields {
    fn fields(&self) -> &HeaderMap;
    fn set(&mut self, name: &FieldName, value: HeaderValue);
    fn add(&mut self, name: &FieldName, value: HeaderValue);
    fn remove(&mut self, name: &HeaderName);
}

// Writing fails for a name that is none, which `FieldName` rules out, and for a section of 2^15 fields, where
// the new one is left out.
impl Fields for RequestHeader {
    fn fields(&self) -> &HeaderMap {
        &self.headers
    }

    fn set(&mut self, name: &FieldName, value: HeaderValue) {
        let _ = self.insert_header(name.spelling.clone(), value);
    }

    fn add(&mut self, name: &FieldName, value: HeaderValue) {
        let _ = self.append_header(name.spelling.clone(), value);
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

impl Fields for ResponseHeader {
    fn fields(&self) -> &HeaderMap {
        &self.headers
    }

    fn set(&mut self, name: &FieldName, value: HeaderValue) {
        let _ = self.insert_header(name.spelling.clone(), value);
    }

    fn add(&mut self, name: &FieldName, value: HeaderValue) {
        let _ = self.append_header(name.spelling.clone(), value);
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{get, told};

    fn refusal(text: &str) -> String {
        told(&[FieldName::parse(text).map(|_| ()).unwrap_err()])
    }

    #[test]
    fn what_frames_a_message_is_refused() {
        for name in FRAMING {
            assert!(refusal(name).contains("the gateway writes it"), "{name}");
        }
        assert!(refusal("Transfer-Encoding").contains("the gateway writes it"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert_eq!(
            refusal("x-served-by:"),
            ": `x-served-by:` is not a header name; it may have letters, digits and `-`, as in `x-served-by` \
             (did you mean `x-served-by`?)"
        );
        for text in ["", ":path", "a b", "x\r\ny", "ö"] {
            assert!(refusal(text).contains("is not a header name"), "{text}");
        }
    }

    #[test]
    fn names_go_out_as_they_were_typed() {
        let mut head = get("/");
        head.set(&FieldName::parse("SOAPAction").unwrap(), HeaderValue::from_static("x"));
        head.add(&FieldName::parse("x-Added").unwrap(), HeaderValue::from_static("y"));
        let mut wire = Vec::new();
        head.header_to_h1_wire(&mut wire);
        assert_eq!(
            String::from_utf8(wire).unwrap(),
            "Host: Shop.Example:8443\r\nSOAPAction: x\r\nx-Added: y\r\n"
        );
    }

    #[test]
    fn a_prefix_removes_its_names_but_never_the_framing() {
        let mut head = get("/");
        for (name, value) in [
            ("X-Remote-User", "a"),
            ("x-remote-group", "b"),
            ("X-Remote-Group", "c"),
            ("x-real-ip", "d"),
            ("Content-Length", "1"),
        ] {
            head.append_header(name, value).unwrap();
        }
        for pattern in ["X-Remote-*", "c*", "h*"] {
            FieldPattern::parse(pattern).unwrap().remove_from(&mut head);
        }
        let mut wire = Vec::new();
        head.header_to_h1_wire(&mut wire);
        let mut lines: Vec<&[u8]> =
            wire.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        lines.sort();
        assert_eq!(lines, [&b"Content-Length: 1\r"[..], b"Host: Shop.Example:8443\r", b"x-real-ip: d\r"]);
    }

    #[test]
    fn a_star_stands_at_the_end_of_something() {
        for text in ["*", "x-*-y", "*-y", "x-**"] {
            let refused = FieldPattern::parse(text).map(|_| ()).unwrap_err();
            assert!(refused.message.contains("wrong place"), "{text}");
        }
    }

    #[test]
    fn bytes_that_no_field_may_carry_are_dropped() {
        for (rendered, kept) in [
            (&b"plain"[..], Some(&b"plain"[..])),
            (b"a\r\nX-Evil: 1\0\x7f", Some(b"aX-Evil: 1")),
            (b"a\tb\xff", Some(b"a\tb\xff")),
            (b"\r\n", None),
            (b"", None),
        ] {
            assert_eq!(value(rendered.into()).as_ref().map(HeaderValue::as_bytes), kept);
        }
    }
}
