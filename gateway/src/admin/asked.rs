//! What a client asks: a request read whole within limits, and its body as what it asks for.

use bytes::{Bytes, BytesMut};
use http::Request;
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use vestibule_plugins::Path;
use vestibule_plugins::decode::decode;

use super::problem::Problem;
use crate::config::StageConfig;
use crate::config::scalar;
use crate::reload::entry::ProblemRow;
use crate::reload::{Change, How};
use crate::snapshot;

/// The largest body that is read: all that can be asked for fits in a hundredth of it.
const LARGEST: usize = 64 * 1024;
/// So much of a larger one is thrown away, so that a client that sends all of it first gets to read why it is refused.
const DISCARDED: usize = 1024 * 1024;

/// A request with its body; that it could not be read stands in the body's place, since who may not ask is told that first.
pub struct Asked {
    pub head: Parts,
    pub body: Result<Bytes, Problem>,
}

/// Reads it all.
pub async fn read(request: Request<Incoming>) -> Asked {
    let (head, mut incoming) = request.into_parts();
    let is_too_large = incoming.size_hint().lower() > LARGEST as u64;
    let mut body = BytesMut::new();
    let mut seen = 0;
    while seen <= DISCARDED {
        let Some(frame) = incoming.frame().await else { break };
        let Ok(frame) = frame else {
            let problem = Problem::bad_request("the body is cut short, or is not sent as HTTP/1.1 has it");
            return Asked { head, body: Err(problem) };
        };
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len();
        if seen <= LARGEST {
            body.extend_from_slice(&data);
        }
    }
    let body = match is_too_large || seen > LARGEST {
        true => Err(Problem::too_large(LARGEST)),
        false => Ok(body.freeze()),
    };
    Asked { head, body }
}

/// The body of `POST /reload`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadBody {
    /// The new configuration is tried by a stage, with these settings over those of the file.
    #[serde(deserialize_with = "scalar::given")]
    stage: Option<StageConfig>,
    /// The new configuration comes in force at once, though the file asks for a stage.
    at_once: bool,
}

/// The body of an operation that needs none: empty, or an object without keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NoBody {}

/// What `POST /reload` asks for.
pub fn reload(body: &[u8]) -> Result<Change, Problem> {
    match json(body)? {
        ReloadBody { stage: Some(_), at_once: true } => {
            Err(Problem::bad_request("`stage` and `at_once` exclude each other: keep the one that is meant"))
        }
        ReloadBody { stage: Some(stage), .. } => staged(stage, &Path::root().key("stage")),
        ReloadBody { at_once: true, .. } => Ok(Change::Reload(How::AtOnce)),
        ReloadBody { .. } => Ok(Change::Reload(How::AsFileSays)),
    }
}

/// What `POST /stage` asks for.
pub fn stage(body: &[u8]) -> Result<Change, Problem> {
    staged(json(body)?, &Path::root())
}

/// What `POST /stage/promote` asks for.
pub fn promote(body: &[u8]) -> Result<Change, Problem> {
    json::<NoBody>(body).map(|_| Change::Promote)
}

/// What `POST /stage/abort` asks for.
pub fn abort(body: &[u8]) -> Result<Change, Problem> {
    json::<NoBody>(body).map(|_| Change::Abort)
}

/// What `POST /rollback` asks for.
pub fn rollback(body: &[u8]) -> Result<Change, Problem> {
    json::<NoBody>(body).map(|_| Change::Rollback)
}

/// Refused here already where a value is out of its bounds, since then it is the body that is wrong and not a file.
fn staged(stage: StageConfig, at: &Path) -> Result<Change, Problem> {
    let mut problems = Vec::new();
    match snapshot::reload::stage(&stage, at, &mut problems) {
        Some(_) => Ok(Change::Reload(How::Staged(stage))),
        None => Err(wrong_body(problems)),
    }
}

/// The value of a body; the default where there is none.
fn json<T: Default + DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    let value: serde_yaml::Value = serde_json::from_slice(body).map_err(|error| {
        Problem::bad_request(format!(
            "the body is not JSON: {error}; leave it empty, or send an object such as `{{}}`"
        ))
    })?;
    // By the decoder of the file, which tells every problem, and each in words.
    let (decoded, problems) = decode(&value);
    match decoded {
        Some(decoded) if problems.is_empty() => Ok(decoded),
        _ => Err(wrong_body(problems)),
    }
}

fn wrong_body(problems: Vec<vestibule_plugins::Problem>) -> Problem {
    Problem::wrong_body(problems.into_iter().map(ProblemRow::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_how_to_reload() {
        let how = |body: &str| match reload(body.as_bytes()) {
            Ok(Change::Reload(how)) => how,
            other => panic!("{other:?}"),
        };
        assert!(matches!(how(""), How::AsFileSays));
        assert!(matches!(how(" \n"), How::AsFileSays));
        assert!(matches!(how("{}"), How::AsFileSays));
        assert!(matches!(how(r#"{"at_once": false}"#), How::AsFileSays));
        assert!(matches!(how(r#"{"at_once": true}"#), How::AtOnce));
        assert!(matches!(how(r#"{"stage": {}}"#), How::Staged(stage) if stage == StageConfig::default()));
        assert!(
            matches!(how(r#"{"stage": {"min_requests": 7}}"#), How::Staged(stage) if stage.min_requests == Some(7))
        );
        assert!(matches!(stage(b"{\"min_requests\": 7}"), Ok(Change::Reload(How::Staged(_)))));
    }

    #[test]
    fn a_body_that_is_wrong_is_refused_in_words() {
        let check = |asked: Result<Change, Problem>, path: Option<&str>, told: &str| {
            let problem = asked.unwrap_err();
            let row = problem.problems.first();
            assert_eq!(row.and_then(|row| row.path.as_deref()), path, "{problem:?}");
            assert!(problem.detail.contains(told), "{told}: {problem:?}");
        };
        check(reload(b"{"), None, "the body is not JSON: EOF while parsing an object at line 1 column 1");
        check(reload(b"at_once: true"), None, "not JSON: expected value at line 1 column 1");
        check(reload(b"[]"), None, "expected ");
        check(
            reload(b"{\"at_onse\": true}"),
            Some("at_onse"),
            "at_onse: unknown key `at_onse`; did you mean `at_once`?",
        );
        check(
            reload(b"{\"stage\": {\"shar\": \"5%\"}}"),
            Some("stage.shar"),
            "stage.shar: unknown key `shar`; did you mean `share`?",
        );
        check(reload(b"{\"stage\": {}, \"at_once\": true}"), None, "exclude each other");
        check(reload(b"{\"at_once\": 1}"), Some("at_once"), "expected `true` or `false`, got the number `1`");
        check(stage(b"{\"for\": \"2d\"}"), Some("for"), "2d");
        check(stage(b"{\"for\": \"25h\"}"), Some("for"), "for: a stage lasts from `1s` to `24h`, got `25h`");
        check(
            reload(b"{\"stage\": {\"share\": \"0%\"}}"),
            Some("stage.share"),
            "`0.01%` to `100%` are allowed",
        );
        check(stage(b"{\"guards\": [\"p99 > 1s\"]}"), Some("guards[0]"), "write `p99 < 1s`");
        check(rollback(b"{\"to\": 3}"), Some("to"), "unknown key `to`; no key is allowed here");
    }
}
