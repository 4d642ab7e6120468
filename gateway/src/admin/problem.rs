//! A problem as RFC 9457 has it: why a request is refused, or what it asks for is.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::reload::entry::{Entry, ProblemRow};

/// Why not.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is (RFC 9457 section 4.2.1).
    r#type: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status of the answer.
    #[serde(serialize_with = "code")]
    #[schemars(with = "u16")]
    pub status: StatusCode,
    /// What is wrong, for the person who asked.
    pub detail: String,
    /// Each thing that is wrong: with the files, where a reload is refused, or with the body.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub problems: Vec<ProblemRow>,
    /// A header field that belongs to the status.
    #[serde(skip)]
    pub field: Option<(&'static str, &'static str)>,
}

impl Problem {
    /// One without particulars.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or_default();
        Self {
            r#type: "about:blank",
            title,
            status,
            detail: detail.into(),
            problems: Vec::new(),
            field: None,
        }
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 400, since these things in the body are wrong.
    pub fn wrong_body(rows: impl IntoIterator<Item = ProblemRow>) -> Self {
        let problems: Vec<ProblemRow> = rows.into_iter().collect();
        let told = problems.iter().map(|ProblemRow { path, message, hint, .. }| {
            let path = path.as_ref().map(|path| format!("{path}: ")).unwrap_or_default();
            let hint = hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            format!("{path}{message}{hint}")
        });
        let detail = told.collect::<Vec<_>>().join("\n");
        Self { problems, ..Self::bad_request(detail) }
    }

    /// A change that was refused.
    pub fn refused(status: StatusCode, entry: &Entry) -> Self {
        Self { problems: entry.problems.clone(), ..Self::new(status, entry.message.clone()) }
    }

    /// 401.
    pub fn no_token() -> Self {
        Self {
            field: Some(("www-authenticate", "Bearer realm=\"vestibule\"")),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "a token has to be shown: `Authorization: Bearer TOKEN`, with what `admin.token_file` holds",
            )
        }
    }

    /// 405; `allow` is what is allowed.
    pub fn wrong_method(allow: &'static str) -> Self {
        Self {
            field: Some(("allow", allow)),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("this path takes {allow}"))
        }
    }

    /// 413.
    pub fn too_large(most: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than the {most} bytes allowed"))
    }
}

fn code<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}
