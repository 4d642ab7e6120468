//! `access_log:`: one line for each request.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::scalar::{self, Word};

/// Whether, how and where each request is logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLogConfig {
    /// `json`, `text`, or `none` for no access log. Default `json`.
    pub format: AccessLogFormat,
    /// `stdout`, `stderr` or a file, which is appended to. Default `stdout`.
    pub path: AccessLogPath,
}

/// How a line is spelt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// One line for a person's eye.
    Text,
    /// No access log.
    None,
}

impl Word for AccessLogFormat {
    const WORDS: &'static [(&'static str, Self)] =
        &[("json", Self::Json), ("text", Self::Text), ("none", Self::None)];
}

impl<'de> Deserialize<'de> for AccessLogFormat {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::word(from)
    }
}

/// Where the lines go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AccessLogPath {
    /// The standard output.
    #[default]
    Stdout,
    /// The standard error.
    Stderr,
    /// A file.
    File(PathBuf),
}

impl<'de> Deserialize<'de> for AccessLogPath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text(from, "`stdout`, `stderr` or a file's path", |text| match text {
            "" => {
                Err("the access log's path is empty\nhint: write `stdout`, `stderr` or a file's path".into())
            }
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            file => Ok(Self::File(file.into())),
        })
    }
}

impl JsonSchema for AccessLogPath {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AccessLogPath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`stdout`, `stderr` or a file's path.",
            "type": "string",
            "examples": ["stdout", "stderr"]
        })
    }
}
