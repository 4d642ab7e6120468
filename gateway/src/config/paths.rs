//! `paths:` of a listener: what becomes of paths that can be read in more than one way.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::route::normal::{DotSegments, EncodedSlashes};

/// What becomes of paths that can be read in more than one way. What is matched is what is sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PathsConfig {
    /// `%2f` and `%5c`. Default reject.
    pub encoded_slashes: EncodedSlashesConfig,
    /// Whether `//` is `/`. Default true.
    pub merge_slashes: bool,
    /// `.` and `..`. Default resolve.
    pub dot_segments: DotSegmentsConfig,
}

impl Default for PathsConfig {
    fn default() -> Self {
        Self {
            encoded_slashes: EncodedSlashesConfig::Reject,
            merge_slashes: true,
            dot_segments: DotSegmentsConfig::Resolve,
        }
    }
}

/// What becomes of `%2f` and `%5c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodedSlashesConfig {
    /// The request is a 400.
    Reject,
    /// They stay as they are, and separate nothing.
    Keep,
    /// They are slashes.
    Decode,
}

/// What becomes of `.` and `..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DotSegmentsConfig {
    /// They are resolved; one that climbs above the root is a 400.
    Resolve,
    /// The request is a 400.
    Reject,
}

impl From<EncodedSlashesConfig> for EncodedSlashes {
    fn from(typed: EncodedSlashesConfig) -> Self {
        match typed {
            EncodedSlashesConfig::Reject => Self::Reject,
            EncodedSlashesConfig::Keep => Self::Keep,
            EncodedSlashesConfig::Decode => Self::Decode,
        }
    }
}

impl From<DotSegmentsConfig> for DotSegments {
    fn from(typed: DotSegmentsConfig) -> Self {
        match typed {
            DotSegmentsConfig::Resolve => Self::Resolve,
            DotSegmentsConfig::Reject => Self::Reject,
        }
    }
}
